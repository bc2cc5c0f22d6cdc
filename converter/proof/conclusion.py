"""The verdict of a proof in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from converter.proof.excused import FLIPS
from converter.proof.measure import GROSS, Measurement
from converter.proof.verdict import Proof


def conclusion(proof: Proof, names: tuple[str, str] = ("original", "folded")) -> str:
    """The verdict in a sentence or two: equal, differs, or "could not be told".

    Args:
        names: what the two graphs are called.
    """
    if proof.verdict == "equal":
        return _equal(proof, *names)
    if proof.broken:
        return (
            f"Not proven: weights of {names[0]} itself are not numbers: {proof.broken}. No other "
            "input helps: take an earlier checkpoint."
        )
    if proof.failure:
        return f"Not proven: {proof.failure}"
    if proof.verdict == "differs":
        return _differs(proof, names[1])
    if proof.random and len(proof.random) == len(proof.unmeasured):
        return f"Not proven, and not refuted: {'; '.join(proof.random)}."
    return (
        f"Not proven, and not refuted: it could not be measured whether {names[1]} equals "
        f"{names[0]}. On all inputs that were tried, {names[0]} itself is too far from float64 at "
        f"{_listed(proof.unmeasured)}. Pass inputs with --data on which it has something to say."
    )


def _equal(proof: Proof, original: str, folded: str) -> str:
    left = uncovered(proof)
    if left:
        return (
            f"Proven as far as it ran: {folded} equals {original} there. Not proven of what "
            f"never ran: {left}."
        )
    if proof.certificate is None:
        return f"Proven: {folded} equals {original}."
    if not proof.certificate:
        return f"Proven by the measurement alone: {folded} equals {original}."
    if "measurement" in proof.rests_on:
        return f"Proven: {folded} equals {original}, for every input and as measured."
    told = f"Proven by the certificate: {folded} equals {original} for every input."
    if proof.unmeasured:
        told += f" Nothing could be measured at {_listed(proof.unmeasured)}."
    if proof.excused:
        told += " What was measured is further from float64 than is allowed without a certificate."
    return told


def _differs(proof: Proof, folded: str) -> str:
    wrong = [m for m in proof.against if m not in proof.framework]
    if not wrong:
        return "Not proven: the export does not compute what the original framework computes."
    if not proof.certificate:
        return f"Not proven: {folded} differs."
    worst = max(wrong, key=lambda m: m.times)
    return (
        f"Not proven: {folded} is certified, but differs as it runs, at {_where(worst)}: "
        f"{worst.problem or _beyond(worst)}. A kernel of the runtime is wrong there, or numbers "
        "overflow."
    )


def _beyond(m: Measurement) -> str:
    if m.exact:
        return f"{m.candidate_error:.0f} of {m.magnitude:.0f} whole numbers differ"
    if not m.allowed:
        return f"the error is {m.candidate_error:.2g} where none is allowed"
    return f"the error is {m.times:.2g} times what is allowed"


def excuses(found: Sequence[Measurement]) -> Iterator[str]:
    """A note for each output with errors that only the certificate excuses: the worst of them."""
    for name in dict.fromkeys(m.output for m in found):
        worst = max(
            (m for m in found if m.output == name), key=lambda m: (m.times, m.candidate_error)
        )
        if worst.exact:
            yield (
                f"at {_where(worst)}, {_beyond(worst)}. The certificate holds, so floats that are "
                f"nearly equal were compared there; up to {FLIPS:.0%} are taken for that."
            )
        else:
            yield (
                f"at {_where(worst)}, {_beyond(worst)} without a certificate. It holds, so "
                f"roundings explain that, up to {GROSS:.0f} times."
            )


def _where(m: Measurement) -> str:
    return ", ".join(filter(None, (f"output {m.output!r}", m.part, m.inputs)))


def _listed(outputs: Sequence[str]) -> str:
    return ", ".join(map(repr, outputs)) or "any output"


def uncovered(proof: Proof) -> str:
    """What nothing is known of, in words; "" if all ran or is certified."""
    return "; ".join(
        f"{ran.name}{f' (in {ran.whose} alone)' if ran.whose else ''}" for ran in proof.uncovered
    )

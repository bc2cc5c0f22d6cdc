"""The verdict of a proof in words."""

from __future__ import annotations

from converter.proof.verdict import Proof


def conclusion(proof: Proof, names: tuple[str, str] = ("original", "folded")) -> str:
    """The verdict in a sentence: equal, differs, or "could not be told"."""
    if proof.verdict == "equal":
        left = unreached(proof)
        if left:
            return (
                f"Proven as far as it ran: {names[1]} equals {names[0]} there. Not proven of what "
                f"never ran: {left}."
            )
        if proof.certificate is None:
            return f"Proven: {names[1]} equals {names[0]}."
        if proof.certificate:
            return f"Proven: {names[1]} equals {names[0]}, for every input and as measured."
        return f"Proven by the measurement alone: {names[1]} equals {names[0]}."
    if proof.broken:
        return (
            f"Not proven: weights of {names[0]} itself are not numbers: {proof.broken}. No other "
            "input helps: take an earlier checkpoint."
        )
    if proof.failure:
        return f"Not proven: {proof.failure}"
    if proof.verdict == "differs":
        return f"Not proven: {names[1]} differs."
    if proof.random and len(proof.random) == len(proof.unmeasured):
        return f"Not proven, and not refuted: {'; '.join(proof.random)}."
    which = ", ".join(map(repr, proof.unmeasured)) or "any output"
    return (
        f"Not proven, and not refuted: it could not be measured whether {names[1]} equals "
        f"{names[0]}. On all inputs that were tried, {names[0]} itself is too far from float64 at "
        f"{which}. Pass inputs with --data on which it has something to say."
    )


def unreached(proof: Proof) -> str:
    """What never ran in the proof, in words; "" if all did."""
    return "; ".join(
        f"{ran.name}{f' (in {ran.whose} alone)' if ran.whose else ''}" for ran in proof.unreached
    )

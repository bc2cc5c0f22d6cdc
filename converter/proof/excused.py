"""What speaks against a candidate: less where it is certified.

Without a certificate the measurement is all there is, so each error beyond what the rule allows
does. A certificate says that the weights are right, for every input. Then an error of a few times
what is allowed is how roundings fell on the inputs that were drawn, and is told. What roundings
cannot explain still speaks against it, as a kernel of the runtime is wrong then, or a number has
overflowed, of which a certificate says nothing:

* a number that is not finite, or a shape, where the original has another;
* an error of more than `GROSS` times what is allowed. That is 32 times the original's own error or
  64 units in the last place of the largest number, whichever is more;
* of whole numbers and truth values, which depend on comparisons of floats: more than `FLIPS` of
  them, and more than `GROSS` times what is allowed. A label of one sample is a single number, so
  sets of few numbers count together;
* whatever the original framework gives otherwise: the certificate is not about the export.
"""

from __future__ import annotations

from collections.abc import Sequence

from converter.proof.measure import GROSS, Measurement

# The part of an output's whole numbers that nearly equal floats may decide otherwise.
FLIPS = 0.25
# A set of inputs with fewer whole numbers is judged together with the others.
_ENOUGH = 32


def against(
    measured: Sequence[Measurement], framework: Sequence[Measurement], certified: bool
) -> tuple[Measurement, ...]:
    """The measurements that speak against the candidate.

    Args:
        measured: of outputs, and of parts of outputs.
        framework: of the original framework's outputs in the candidate's place.
        certified: whether there is a certificate.
    """
    found = [m for m in measured if m.verdict == "differs"]
    if certified:
        found = [m for m in found if _unexplained(m, measured)]
    return (*found, *(m for m in framework if m.verdict == "differs"))


def _unexplained(m: Measurement, measured: Sequence[Measurement]) -> bool:
    if m.unlike:
        return True
    if not m.exact:
        return m.candidate_error > GROSS * m.allowed
    together = [m]
    if m.magnitude < _ENOUGH:
        together = [other for other in measured if other.output == m.output and other.exact]
    wrong = sum(other.candidate_error for other in together)
    allowed = sum(other.allowed for other in together)
    size = sum(other.magnitude for other in together)
    return wrong > max(GROSS * allowed, FLIPS * size)

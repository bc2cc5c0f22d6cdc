"""The result of a proof: equal, different, or not decided."""

from __future__ import annotations

from dataclasses import dataclass, field

from converter.certificate import Certified, NotCertified
from converter.evaluation.oracle import Feeds
from converter.proof.coverage import Ran
from converter.proof.excused import against
from converter.proof.invariance import Invariance
from converter.proof.measure import Measurement, Verdict


@dataclass(frozen=True)
class Proof:
    """The result of a comparison. `failure` is a sentence that says why there is none.

    `verdict` is "equal", "differs", or "unmeasured": it could not be decided. `unmeasured` names
    the outputs on which the original itself is too far from float64 on all inputs. With a
    certificate fewer measurements speak against the candidate (`excused.py`), and what could not be
    measured, or never ran, rests on it.
    """

    measurements: tuple[Measurement, ...] = ()
    # The worst measurement of each part of an output whose numbers have several sizes.
    parts: tuple[Measurement, ...] = ()
    # The original framework's own outputs in the candidate's place: is the export right?
    framework: tuple[Measurement, ...] = ()
    invariance: Invariance | None = None
    notes: tuple[str, ...] = ()
    failure: str = ""
    # Whether the candidate failed, or the measurement.
    failed: Verdict = "unmeasured"
    unmeasured: tuple[str, ...] = ()
    # The branches and bodies of loops, and whether they ran; sentences about random outputs.
    ran: tuple[Ran, ...] = ()
    random: tuple[str, ...] = ()
    # Weights of the original that hold NaN, if nothing could be decided.
    broken: str = ""
    # Inputs of one batch, the oracle's outputs for them, and which of the measurements' inputs
    # they are; a self-test is made from these.
    sample: Feeds = field(default_factory=dict)
    truth: Feeds = field(default_factory=dict)
    sampled: str = ""
    # A sentence, where nothing was changed and therefore nothing measured against float64.
    unchanged: str = ""
    # Whether both graphs are the same for every input; None if that was not looked for.
    certificate: Certified | NotCertified | None = None

    @property
    def verdict(self) -> Verdict:
        if self.failure:
            return self.failed
        if self.against:
            return "differs"
        if not self.measurements or (self.unmeasured and not self.certificate):
            return "unmeasured"
        return "equal"

    @property
    def against(self) -> tuple[Measurement, ...]:
        """The measurements that speak against the candidate."""
        both = (*self.measurements, *self.parts)
        return against(both, self.framework, bool(self.certificate))

    @property
    def excused(self) -> tuple[Measurement, ...]:
        """Those that would, were it not certified."""
        found = set(self.against)
        both = (*self.measurements, *self.parts)
        return tuple(m for m in both if m.verdict == "differs" and m not in found)

    @property
    def rests_on(self) -> tuple[str, ...]:
        """What shows that both are equal: "certificate", "measurement", or both."""
        if not self.passed:
            return ()
        measured = not self.unmeasured and not self.excused
        return (*["certificate"] * bool(self.certificate), *["measurement"] * measured)

    @property
    def unreached(self) -> tuple[Ran, ...]:
        """What never ran in the proof, which the measurement therefore says nothing about."""
        return tuple(ran for ran in self.ran if not ran.covered)

    @property
    def uncovered(self) -> tuple[Ran, ...]:
        """What nothing is known of: it never ran, and there is no certificate."""
        return () if self.certificate else self.unreached

    @property
    def passed(self) -> bool:
        return self.verdict == "equal"

    @property
    def batch_invariant(self) -> bool:
        return self.invariance is not None and self.invariance.holds

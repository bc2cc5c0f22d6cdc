"""How far a norm's old statistics are from those of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from converter.statistics.moments import InstanceMoments, Moments
from converter.statistics.norms import batches_seen, never_updated, stored

# The relative standard error of a standard deviation of n independent values is 1/sqrt(2n): 2 % at
# a thousand. Neighbouring positions of an image are not independent, so more are needed.
FEW_VALUES = 1000
# How far, in standard deviations of the channel, a mean may be off before there is a warning.
LARGE_SHIFT = 0.5


@dataclass(frozen=True)
class Held:
    """A norm's old statistics: mean and variance, float64 (C,), and whether it was ever updated."""

    kind: str
    mean: Tensor
    variance: Tensor
    eps: float
    batches: int | None
    never_updated: bool

    @classmethod
    def by(cls, norm: _NormBase) -> Held:
        return cls(
            type(norm).__name__, *stored(norm), norm.eps, batches_seen(norm), never_updated(norm)
        )


@dataclass(frozen=True)
class Drift:
    """One row of the table. σ = sqrt(population variance + eps), as the norm divides by it.

    Attributes:
        name, kind, channels: of the norm.
        values: how many values of each channel were seen (samples times positions; for an
            instance norm, samples).
        max_shift, mean_shift: over the channels, of |held mean − population mean| / σ.
        low_ratio, high_ratio: least and largest (held variance + eps) / (population + eps).
        constant: channels whose population variance is 0.
        batches: `num_batches_tracked` before, None where there is none.
        never_updated: it held mean 0 and variance 1, and had counted no batch.
    """

    name: str
    kind: str
    channels: int
    values: int
    max_shift: float
    mean_shift: float
    low_ratio: float
    high_ratio: float
    constant: int
    batches: int | None
    never_updated: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def drift(name: str, held: Held, found: Moments) -> Drift:
    """Compare a norm's old statistics with the moments of the data."""
    variance = found.variance + held.eps
    shift = (held.mean - found.mean).abs() / variance.sqrt()
    ratio = (held.variance + held.eps) / variance
    return Drift(
        name=name,
        kind=held.kind,
        channels=len(found.mean),
        values=found.count,
        max_shift=float(shift.max()),
        mean_shift=float(shift.mean()),
        low_ratio=float(ratio.min()),
        high_ratio=float(ratio.max()),
        constant=int((found.variance == 0).sum()),
        batches=held.batches,
        never_updated=held.never_updated,
    )


def residual(held: Mapping[str, Held], found: Mapping[str, Moments]) -> float:
    """The largest of all shifts, and of all |ratio − 1|: 0 where norms and data agree."""
    rows = [drift(name, held[name], found[name]) for name in found]
    return max(
        (max(row.max_shift, abs(row.low_ratio - 1), abs(row.high_ratio - 1)) for row in rows),
        default=0.0,
    )


def warnings(rows: list[Drift], found: Mapping[str, Moments]) -> list[str]:
    """What deserves a closer look, a sentence for each kind."""
    said = []
    if never := [row.name for row in rows if row.never_updated]:
        said.append(
            f"{_names(never)}: the statistics were never updated (mean 0, variance 1, no batch "
            "counted). Was the model trained? It has statistics now, but weights that were "
            "trained with other ones do not become good by that"
        )
    few = [
        row
        for row in rows
        if row.values < FEW_VALUES and not isinstance(found[row.name], InstanceMoments)
    ]
    if few:
        least = min(row.values for row in few)
        said.append(
            f"{_names([row.name for row in few])}: only {least:,} values of each channel were "
            f"seen; the standard deviation is known to about {(2 * least) ** -0.5:.0%}. "
            f"Give at least {FEW_VALUES:,} samples"
        )
    if constant := [row for row in rows if row.constant]:
        total = sum(row.constant for row in constant)
        said.append(
            f"{_names([row.name for row in constant])}: {total} channels never change on these "
            "data; their variance is 0 and a batch-norm multiplies whatever changes later by "
            "gamma/sqrt(eps)"
        )
    return said


def _names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

"""The numbers of a comparison, arm by arm: what its tables and figures are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from experiments.grid import varied
from experiments.measures import fraction
from experiments.records import Record
from experiments.settings import Settings, label
from experiments.verdict import Estimate, estimate


@dataclass(frozen=True)
class Layer:
    """A layer of an arm, means over the seeds.

    Attributes:
        name: of the layer in the network.
        mean, std: of its input at the first and at the last snapshot, as pairs.
        drift: of its input, mean over the training, see `watching`.
        gradient: norm of its weight's, at the first and at the last snapshot.
    """

    name: str
    mean: tuple[float, float]
    std: tuple[float, float]
    drift: float
    gradient: tuple[float, float]


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seed alone.

    Attributes:
        settings: of all of them, with seed 0.
        label, panel: how it differs from the others; the same without the norm.
        records: by seed.
        accuracy, best: at the end, and the highest on the way.
        recalibrated: at the end with the population's statistics, if that was measured.
        reached: steps to the best accuracy of the same network without a norm, of those seeds
            that reached it; None without such a network.
        fraction: see `measures.fraction`, mean over the seeds; None without such a network, or
            if it never got better.
        seconds: median wall time of an epoch.
        layers: in the order in which data pass them.
    """

    settings: Settings
    label: str
    panel: str
    records: tuple[Record, ...]
    accuracy: Estimate
    best: Estimate
    recalibrated: Estimate | None
    reached: tuple[int, ...] | None
    fraction: float | None
    seconds: float | None
    layers: tuple[Layer, ...]

    @property
    def diverged(self) -> int:
        """How many of the runs ended with a loss that is not finite."""
        return sum(record.diverged is not None for record in self.records)


def arms(records: Sequence[Record]) -> list[Arm]:
    """The arms in the order of their first records."""
    groups: dict[Settings, list[Record]] = {}
    for record in records:
        groups.setdefault(record.settings.arm, []).append(record)
    names = varied(list(groups))
    baselines = {record.settings: record for record in records if record.settings.norm == "none"}
    return [
        _arm(settings, sorted(group, key=lambda r: r.settings.seed), names, baselines)
        for settings, group in groups.items()
    ]


def _arm(
    settings: Settings,
    records: Sequence[Record],
    names: tuple[str, ...],
    baselines: dict[Settings, Record],
) -> Arm:
    pairs = [
        (record, baselines[wanted])
        for record in records
        if (wanted := record.settings.baseline_run) in baselines
    ]
    reached = [step for run, base in pairs if (step := run.steps_to(base.best)) is not None]
    fractions = [found for run, base in pairs if (found := fraction(run, base)) is not None]
    again = [r.recalibrated.accuracy for r in records if r.recalibrated]
    seconds = [second for record in records for second in record.epoch_seconds]
    shown = tuple(name for name in names if name != "recalibrate")
    if settings.norm == "none":
        shown = tuple(name for name in shown if name not in ("bn_position", "momentum"))
    return Arm(
        settings=settings,
        label=label(settings, shown),
        panel=label(settings, tuple(n for n in shown if n != "norm")),
        records=tuple(records),
        accuracy=estimate([record.accuracy for record in records]),
        best=estimate([record.best for record in records]),
        recalibrated=estimate(again) if again else None,
        reached=tuple(reached) if pairs else None,
        fraction=sum(fractions) / len(fractions) if fractions else None,
        seconds=median(seconds) if seconds else None,
        layers=_layers(records),
    )


def _layers(records: Sequence[Record]) -> tuple[Layer, ...]:
    found = []
    for name in records[0].layers:
        runs = [record.layers[name] for record in records if record.layers.get(name)]

        def ends(quantity: str, runs: Sequence[Sequence[object]] = runs) -> tuple[float, float]:
            first, last = (_mean([getattr(run[end], quantity) for run in runs]) for end in (0, -1))
            return first, last

        moved = [snapshot.drift for run in runs for snapshot in run[1:]]
        found.append(Layer(name, ends("mean"), ends("std"), _mean(moved), ends("gradient")))
    return tuple(found)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0

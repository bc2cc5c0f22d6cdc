"""Replace moving averages by the statistics of a data set, and report what that changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from converter.architectures.modules import evaluating
from converter.errors import UserError
from converter.statistics import collect
from converter.statistics.collect import Batches
from converter.statistics.data import Preparation
from converter.statistics.drift import Drift, Held, drift, residual, warnings
from converter.statistics.modes import Mode
from converter.statistics.moments import Moments
from converter.statistics.norms import find, store
from converter.training.data import Samples

MODES: Mapping[Mode, Callable[..., dict[str, Moments]]] = {
    "layerwise": collect.layerwise,
    "onepass": collect.onepass,
}


@dataclass(frozen=True)
class Score:
    """Accuracy in [0, 1] and mean cross-entropy in nats, and on how many samples."""

    accuracy: float
    loss: float
    samples: int


@dataclass(frozen=True)
class Recalibration:
    """What `recalibrate` did.

    Attributes:
        mode: how the statistics were computed.
        rows: a row for each norm, in the order in which the data reach them.
        moments: name -> the moments of the data, float64.
        residual: the result of another pass: the largest relative difference between the
            statistics that are stored now and those of the activations that result from them.
        warnings, notes: a sentence each.
    """

    mode: Mode
    rows: list[Drift]
    moments: Mapping[str, Moments]
    residual: float
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def recalibrate(
    module: nn.Module,
    batches: Batches,
    *,
    mode: Mode = "layerwise",
    progress: Callable[[str], None] = lambda _: None,
) -> Recalibration:
    """Store population statistics in every norm of `module` that keeps statistics, in place.

    What is stored is the variance of the population, M/N. Torch's moving average holds variances
    with Bessel's correction, n/(n−1) of each batch, because they are estimates; here the whole
    population is known. Training normalises batches without it, and so does what this stores.

    Args:
        module: any torch module with one input; its modes and weights are not changed.
        batches: starts a new pass over the inputs; called more than once.
        mode: see `collect`.

    Raises:
        UserError: there is no norm with statistics, no data, only one value per channel, or NaN;
            then the norms keep their old statistics.
    """
    norms = find(module)
    if not norms.tracked:
        raise UserError("the network has no norm with statistics", _why_none(norms.untracked))
    held = {name: Held.by(norm) for name, norm in norms.tracked.items()}
    try:
        found = MODES[mode](module, norms.tracked, batches, progress)
        _check(found)
    except BaseException:
        for name, norm in norms.tracked.items():
            store(norm, held[name].mean, held[name].variance)
        raise
    for name in found:
        counter = norms.tracked[name].num_batches_tracked
        if counter is not None and not int(counter):
            counter.fill_(1)  # the statistics are no longer the initial ones
    again = collect.collect(module, norms.tracked, batches, progress)
    now = {name: Held.by(norms.tracked[name]) for name in found}
    rows = [drift(name, held[name], moments) for name, moments in found.items()]
    return Recalibration(
        mode,
        rows,
        found,
        residual(now, again),
        warnings(rows, found),
        _notes(norms.untracked, norms.frozen, [n for n in norms.tracked if n not in found]),
    )


def score(module: nn.Module, samples: Samples, prepare: Preparation, size: int) -> Score | None:
    """Accuracy and loss; None for a network that is not a classifier.

    Raises:
        UserError: a label is not a class of the network.
    """
    if samples.labels is None:
        return None
    total, right = 0.0, 0
    with evaluating(module):
        inputs = prepare.batches(samples, size)
        for x, y in zip(inputs, torch.split(samples.labels, size), strict=True):
            logits = module(x)
            if not isinstance(logits, Tensor) or logits.ndim != 2:
                return None
            if not 0 <= int(y.min()) <= int(y.max()) < logits.shape[1]:
                raise UserError(
                    f"the labels go from {int(y.min())} to {int(y.max())}, and the network has "
                    f"{logits.shape[1]} classes"
                )
            logits, y = logits.double(), y.to(logits.device)
            total += float(functional.cross_entropy(logits, y, reduction="sum"))
            right += int((logits.argmax(1) == y).sum())
    return Score(right / len(samples), total / len(samples), len(samples))


def _check(found: Mapping[str, Moments]) -> None:
    if not found:
        raise UserError("the data reach no norm with statistics: are there any data?")
    if alone := [name for name, moments in found.items() if moments.count < 2]:
        raise UserError(
            f"{', '.join(alone[:3])}: one value of each channel has no variance",
            "give more samples",
        )


def _why_none(untracked: tuple[str, ...]) -> str:
    if untracked:
        return (
            f"{len(untracked)} batch-norms ({', '.join(untracked[:3])}) have "
            "track_running_stats=False: each batch is normalised by itself, also when the model "
            "is served, so that an answer depends on who else asks. Train with "
            "track_running_stats=True"
        )
    return "there are no batch-norms in it, and nothing to recalibrate"


def _notes(untracked: tuple[str, ...], frozen: tuple[str, ...], unreached: list[str]) -> list[str]:
    return [
        f"{len(names)} norms {why} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for names, why in (
            (untracked, "have track_running_stats=False and keep no statistics; left as they are"),
            (frozen, "are frozen on purpose; left as they are"),
            (tuple(unreached), "are not reached by the data; left as they are"),
        )
        if names
    ]

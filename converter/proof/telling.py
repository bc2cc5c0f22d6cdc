"""Which of the trials to build on, and what is told of outputs that tell little."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from converter.evaluation.oracle import Feeds
from converter.proof.judging import Judgement
from converter.proof.measure import wide
from converter.proof.trials import Trial


def telling(
    trials: Sequence[Trial], judged: Judgement, batches: Sequence[int] = (), usual: int = 0
) -> Trial:
    """The trial to build on: that of the usual batch, unless its outputs are not informative."""
    blunt = {m.inputs for m in judged.measurements if not m.passed or not m.sharp}
    drawn = [t for t in trials if not t.case.given and t.case.framework is None]
    drawn = drawn or list(trials)
    usual = min(usual, len(drawn) - 1)
    for trial in (drawn[usual], *drawn):
        rows = {len(array) for array in trial.case.feeds.values() if array.ndim}
        if trial.case.name not in blunt and (not batches or rows & set(batches)):
            return trial
    return drawn[usual]


def given(trial: Trial) -> Feeds:
    """The oracle's outputs, NaN where the candidate gives no finite number: a self-test leaves
    those out."""
    return {
        name: np.where(np.isfinite(wide(trial.candidate[name])), truth, np.nan)
        if truth.dtype.kind == "f" and truth.shape == trial.candidate[name].shape
        else truth
        for name, truth in trial.truth.items()
    }


def notes(judged: Judgement, outputs: Sequence[str]) -> Iterator[str]:
    """Notes on outputs that could be measured only coarsely, or not at all."""
    for name in judged.coarse(outputs):
        mine = [m for m in judged.measurements if m.output == name and m.verdict == "equal"]
        if mine and all(m.magnitude == 0.0 for m in mine):
            yield f"output {name!r} is empty or 0 on all inputs: pass inputs with --data."
        elif mine:
            best = min(m.reference_error / m.magnitude for m in mine if m.magnitude)
            yield (
                f"output {name!r} could be measured only coarsely: the original itself is "
                f"{best:.1%} of the largest number away from float64."
            )

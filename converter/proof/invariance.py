"""Whether a sample gives the same alone and in a batch: requests may then be batched together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from converter.evaluation.oracle import Array, Feeds
from converter.evaluation.runtime import Runner, RunnerError
from converter.proof import examples
from converter.proof.measure import Case, Measurement, largest_of, wide
from converter.sources.loaded import Input

# What parts of an output differ by: (name, of the samples alone, of the batch).
Parts = Callable[[str, Array, Array], Iterable[Measurement]]

_DEPENDS = "a sample's answer depends on the others in its batch (batch statistics?)"


@dataclass(frozen=True)
class Invariance:
    """Whether a sample alone gives the same as that sample in a batch.

    `difference` is the largest difference, `allowed` what rounding explains; `problem` is a
    sentence when it could not be measured or does not hold. `batch`: the size of the batch.
    """

    difference: float
    allowed: float
    problem: str = ""
    batch: int = 5

    @property
    def holds(self) -> bool:
        return not self.problem and self.difference <= self.allowed


def invariance(
    run: Runner,
    inputs: Sequence[Input],
    case: Case,
    together: Feeds,
    allowed: Mapping[str, float],
    parts: Parts = lambda *_: (),
) -> Invariance:
    """Compare each sample of `case` alone with itself in that batch; the worst output counts.

    Args:
        together: the outputs for the whole batch.
        allowed: by output, how far both may be from the truth, and so from each other.
        parts: how far parts of an output are from each other, by their own scale.
    """
    try:
        alone = [run.run(feeds) for feeds in examples.rows(case.feeds, inputs)]
    except RunnerError as error:
        return Invariance(np.inf, 0.0, f"a sample alone does not run: {error}", 0)
    return compare(together, alone, allowed, parts)


def compare(
    together: Feeds,
    alone: Sequence[Feeds],
    allowed: Mapping[str, float],
    parts: Parts = lambda *_: (),
) -> Invariance:
    """Compare the outputs of a batch with those of its samples, each a batch of one."""
    rows = len(alone)
    worst = Invariance(0.0, 0.0, batch=rows)
    for name, batch in together.items():
        if batch.ndim == 0 or len(batch) != rows:
            return Invariance(
                np.inf, 0.0, f"output {name!r} of shape {batch.shape} has no batch axis", rows
            )
        if any(single[name].shape != (1, *batch.shape[1:]) for single in alone):
            return Invariance(np.inf, 0.0, f"output {name!r} has another shape alone", rows)
        joined = np.concatenate([single[name] for single in alone])
        if batch.dtype.kind not in "biuf" and batch.dtype != ml_dtypes.bfloat16:  # strings
            if not np.array_equal(joined, batch):
                return Invariance(
                    np.inf, 0.0, f"output {name!r} is another alone than in a batch", rows
                )
            continue
        found = wide(joined), wide(batch)
        both = np.isfinite(found[0]) & np.isfinite(found[1])
        if not np.array_equal(np.isfinite(found[0]), np.isfinite(found[1])):
            return Invariance(
                np.inf, 0.0, f"output {name!r} is finite only alone or in a batch", rows
            )
        difference = largest_of(found[0][both] - found[1][both])
        if difference > allowed[name]:
            return Invariance(difference, allowed[name], _DEPENDS, rows)
        for part in parts(name, joined, batch):
            if not part.passed:
                where = f"{_DEPENDS}, at output {name!r}, {part.part}"
                return Invariance(part.candidate_error, part.allowed, where, rows)
        if difference >= worst.difference:
            worst = Invariance(difference, allowed[name], batch=rows)
    return worst

"""A grid of settings: every combination of the values given, each with several seeds.

    expand(Settings(epochs=2), {"norm": ["none", "batch"], "lr": [0.001, 0.01]}, seeds=3)

is 2 x 2 arms of 3 runs. A combination that another one already says (a network without
batch-norm has no place where it stands) is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from converter.errors import UserError
from experiments.settings import Settings, option, without_norm

# A day of trainings; more is most likely a slip.
MOST_RUNS = 10_000


def expand(common: Settings, axes: Mapping[str, Sequence[Any]], seeds: int) -> list[Settings]:
    """The runs, seed by seed: a grid that is stopped has whole repetitions first.

    Args:
        common: the settings that all runs share; its seed is the first one.
        axes: field of `Settings` -> the values that it takes.
        seeds: how many repetitions, with the seeds that follow `common.seed`.

    Raises:
        UserError: for a value that no training can have, an axis without a value, or too many
            runs.
    """
    if seeds < 1:
        raise UserError(f"--seeds is {seeds}", "give at least 1; 3 or more to have a spread")
    for name, values in axes.items():
        if not values:
            raise UserError(f"{option(name)} has no value", "give at least one, or leave it out")
    count = seeds
    for values in axes.values():
        count *= len(values)
    if count > MOST_RUNS:
        raise UserError(f"the grid has {count:,} runs", f"at most {MOST_RUNS:,} are made at once")
    arms = {
        _canonical(replace(common, **dict(zip(axes, values, strict=True)))): None
        for values in product(*axes.values())
    }
    runs = [replace(arm, seed=common.seed + n) for n in range(seeds) for arm in arms]
    for run in runs:
        run.check()
    return runs


def _canonical(settings: Settings) -> Settings:
    """Without a norm, there is no place of it, no moving average and nothing to recalibrate."""
    return without_norm(settings) if settings.norm == "none" else settings


def varied(runs: Sequence[Settings]) -> tuple[str, ...]:
    """The settings, but for the seed, that are not the same for all `runs`."""
    names = [name for name in vars(Settings()) if name != "seed"]
    return tuple(n for n in names if len({getattr(run, n) for run in runs}) > 1)

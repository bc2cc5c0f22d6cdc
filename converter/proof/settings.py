"""Inputs that take other branches: values and sizes on either side of what a graph compares.

`sr == 16000` is true for one whole number of 2^64, which no random draw hits. But the graph holds
that number. A run of the float64 oracle records what was compared; then each input of whole
numbers, truth values or a single number, each open axis, and the mean of each other input is moved
to either side of it: directly to the constants, and to where a straight line through two runs
predicts that the compared numbers meet, which also works behind casts, sums and sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx_ir as ir

from converter.evaluation.oracle import Feeds
from converter.proof.recorder import Recorder
from converter.sources.loaded import Input

# How many runs of the oracle a search may take.
MOST_RUNS = 96
# The largest size of an axis that is tried, and how many numbers one input may then have.
_LONGEST, _MOST_NUMBERS = 4096, 2**22

What = Literal["value", "size", "mean"]
Pairs = dict[tuple[ir.Node, int], tuple[float, float]]


@dataclass(frozen=True)
class Variable:
    """What may be set: the value of an input, the size of an axis, the mean of an input."""

    what: What
    name: str
    whole: bool = True
    least: float = -math.inf
    most: float = math.inf

    def fits(self, value: float) -> bool:
        return self.least <= value <= self.most and (not self.whole or value == int(value))


@dataclass(frozen=True)
class Setting:
    """Some variables and the values that they are set to."""

    values: tuple[tuple[Variable, float], ...] = ()

    @property
    def name(self) -> str:
        """ "sr = 16000, time = 288"; empty if nothing is set."""
        form = {"value": "{} = {}", "size": "axis {} = {}", "mean": "{} around {}"}
        return ", ".join(
            form[variable.what].format(variable.name, f"{value:.12g}")
            for variable, value in self.values
        )

    def but(self, variable: Variable, value: float) -> Setting:
        kept = tuple(pair for pair in self.values if pair[0] != variable)
        return Setting((*kept, (variable, value)))

    def get(self, variable: Variable, default: float) -> float:
        return dict(self.values).get(variable, default)

    def sized(self, inputs: Sequence[Input]) -> list[Input]:
        """The inputs with the sizes that are set."""
        sizes = {v.name: int(value) for v, value in self.values if v.what == "size"}
        return [
            replace(
                item,
                example=tuple(
                    sizes.get(str(name), size) if isinstance(name, str) else size
                    for name, size in zip(item.shape, item.example, strict=True)
                ),
            )
            for item in inputs
        ]

    def fill(self, feeds: Feeds) -> None:
        """Put the values in."""
        for variable, value in self.values:
            if variable.what == "size":
                continue
            old = feeds[variable.name]
            new = old * 0 + value if variable.what == "value" else old.astype(float) + value
            feeds[variable.name] = np.asarray(new).astype(old.dtype)


NOTHING = Setting()


def variables(inputs: Sequence[Input]) -> list[Variable]:
    """What may be set; the variables most likely to matter come first."""
    found: list[Variable] = []
    means: list[Variable] = []
    for item in inputs:
        kind = "f" if item.dtype == "bfloat16" else np.dtype(item.dtype).kind
        if kind == "b":
            found.append(Variable("value", item.name, least=0, most=1))
        elif kind in "iu":
            limits = np.iinfo(item.dtype)
            most = float(limits.max if item.upper is None else item.upper - 1)
            least = float(limits.min if item.upper is None else 0)
            found.append(Variable("value", item.name, least=least, most=most))
        elif math.prod(item.example) == 1 and all(isinstance(s, int) for s in item.shape):
            found.append(Variable("value", item.name, whole=False))
        else:
            means.append(Variable("mean", item.name, whole=False))
    axes = dict.fromkeys(
        name
        for item in inputs
        for axis, name in enumerate(item.shape)
        if isinstance(name, str) and axis
    )
    sizes = [Variable("size", name, least=1, most=_LONGEST) for name in axes]
    return [*found, *sizes, *means]


def explore(
    recorder: Recorder,
    inputs: Sequence[Input],
    feeds: Callable[[Setting], Feeds],
    content: Callable[[], bool],
) -> list[Setting]:
    """Settings on which the graph runs, each of which let something run that did not before.

    Args:
        recorder: of the graph; it keeps the record of what ran.
        inputs: of the graph.
        feeds: makes the inputs of a setting.
        content: says whether everything has run.
    """
    return _Search(recorder, inputs, feeds, content).run()


class _Search:
    def __init__(
        self,
        recorder: Recorder,
        inputs: Sequence[Input],
        feeds: Callable[[Setting], Feeds],
        content: Callable[[], bool],
    ) -> None:
        self._recorder, self._inputs = recorder, inputs
        self._feeds, self._content = feeds, content
        self._variables = variables(inputs)
        self._pairs: dict[Setting, Pairs | None] = {}
        self._found: list[Setting] = []

    def run(self) -> list[Setting]:
        waiting = [NOTHING]
        while waiting and len(self._pairs) < MOST_RUNS:
            setting = waiting.pop(0)
            new = self._try(setting)
            if self._found and self._content():
                break
            if not (new or setting == NOTHING):
                continue
            for other in self._around(setting):
                if other in self._pairs or len(self._pairs) >= MOST_RUNS:
                    continue
                if self._try(other):
                    waiting.append(other)
                if self._found and self._content():
                    return self._found
            if not self._found and setting == NOTHING:
                waiting += self._two_at_once()
        return self._found

    def _try(self, setting: Setting) -> bool:
        """Run it; whether it runs and lets something run that had not."""
        if setting in self._pairs:
            return setting in self._found
        sized = setting.sized(self._inputs)
        if any(math.prod(item.example) > _MOST_NUMBERS for item in sized):
            self._pairs[setting] = None
            return False
        before = dict(self._recorder.turns)
        self._recorder.compared.clear()
        ran = self._recorder.watch(self._feeds(setting))
        self._pairs[setting] = dict(self._recorder.compared)
        if not ran:  # what ran before the failure will not be part of a proof
            self._recorder.turns = before
            return False
        if self._found and set(self._recorder.turns) == {k for k, n in before.items() if n}:
            return False
        self._found.append(setting)
        return True

    def _two_at_once(self) -> list[Setting]:
        """Where nothing runs yet: each value of one variable with half and double of each axis."""
        values = [s for s in self._pairs if s.values and s.values[0][0].what == "value"]
        return [
            value.but(axis, size)
            for value in values
            for axis in self._variables
            if axis.what == "size"
            for size in self._near_sizes(axis)
        ]

    def _around(self, setting: Setting) -> Iterator[Setting]:
        """Settings that differ in one variable."""
        start = self._pairs.get(setting) or {}
        constants = sorted({number for pair in start.values() for number in pair})
        for variable in self._variables:
            now = self._now(setting, variable)
            values: list[float] = []
            if variable.what == "value":
                values += [0.0, 1.0, *(c + d for c in constants for d in (0, -1, 1))]
            if variable.what == "size":
                values += self._near_sizes(variable)
                values += [c + d for c in constants for d in (0, -1, 1) if c <= _LONGEST]
            yield from self._each(setting, variable, now, values)
            yield from self._each(
                setting, variable, now, self._crossings(setting, variable, now, start)
            )

    @staticmethod
    def _each(
        setting: Setting, variable: Variable, now: float, values: Sequence[float]
    ) -> Iterator[Setting]:
        for value in dict.fromkeys(values):
            if math.isfinite(value) and variable.fits(value) and value != now:
                yield setting.but(variable, value)

    def _crossings(
        self, setting: Setting, variable: Variable, now: float, start: Pairs
    ) -> list[float]:
        """Where the compared numbers meet, if they move along a straight line."""
        step = now + 1 if variable.fits(now + 1) else now - 1
        probe = setting.but(variable, step)
        if probe not in self._pairs and len(self._pairs) < MOST_RUNS:
            self._try(probe)
        moved = self._pairs.get(probe) or {}
        found: list[float] = []
        for place, (one, other) in start.items():
            if place not in moved:
                continue
            was, then = one - other, moved[place][0] - moved[place][1]
            slope = (then - was) / (step - now)
            if slope and math.isfinite(slope) and math.isfinite(was):
                root = now - was / slope
                found += (
                    [math.floor(root) + d for d in (0, 1, -1, 2)]
                    if variable.whole
                    else [root, root + 1, root - 1, root + 10, root - 10]
                )
        return found

    def _now(self, setting: Setting, variable: Variable) -> float:
        if variable.what == "size":
            return setting.get(variable, self._size(variable))
        if variable.what == "mean":
            return setting.get(variable, 0.0)
        value = self._feeds(setting)[variable.name]
        return float(np.ravel(value)[0].astype(float)) if value.size else 0.0

    def _size(self, variable: Variable) -> float:
        return float(
            next(
                size
                for item in self._inputs
                for name, size in zip(item.shape, item.example, strict=True)
                if name == variable.name
            )
        )

    def _near_sizes(self, variable: Variable) -> list[float]:
        size = self._size(variable)
        return [float(n) for n in (size // 2, 2 * size, 1) if n >= 1]

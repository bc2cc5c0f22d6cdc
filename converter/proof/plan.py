"""Which inputs a proof draws next, until its verdict does not depend on chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from converter.proof import examples
from converter.proof.draws import Kind, draw, kinds_for
from converter.proof.judging import Judgement
from converter.proof.measure import Case
from converter.proof.trials import Trial
from converter.sources.loaded import Input

# Samples that are drawn in addition, in this order, while a failure may be due to chance.
ROWS = (16, 32)
# Samples of other kinds of inputs.
_PAIR = 2


class Plan:
    """Which inputs to draw next, until a verdict does not depend on chance.

    Args:
        kinds: what was drawn; the first replaces the standard numbers.
        batches: batch sizes on which the model runs.
        certified: what a certificate excuses asks for no more inputs.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        dynamic_batch: bool,
        seed: int,
        kinds: Sequence[Kind],
        batches: Sequence[int | None] = examples.BATCHES,
        certified: bool = False,
    ) -> None:
        sizes = [batch for batch in batches if batch] or [1]
        self._large, self._pair = max(sizes), min(sizes, key=lambda n: abs(n - _PAIR))
        self._certified = certified
        self._inputs, self._dynamic, self._seed = inputs, dynamic_batch, seed
        self._kinds = {kind.name: kind for kind in kinds}
        self._open = {kind.name: iter(_others(kind, inputs)) for kind in kinds}
        self._turns: dict[str, int] = {}
        self._rounds: dict[str, Iterator[int]] = {}

    def next(
        self, judged: Judgement, trials: Sequence[Trial], outputs: Sequence[str]
    ) -> list[Case]:
        """The next inputs; none when the verdict is final."""
        if judged.final(self._certified):
            return []
        wrong = judged.against(self._certified)
        drawn = {t.case.name: t.case.kind for t in trials if not t.case.given}
        for m in wrong:
            if m.inputs in drawn:
                kind = self._kinds[drawn[m.inputs]]
                rows = next(self._rounds.setdefault(kind.name, iter(ROWS)), 0)
                return self._draw(kind, rows, self._large)
        if wrong:
            return []
        given = [t.case.name for t in trials if t.case.given]
        for name, others in self._open.items():
            # What only runs with a setting must be judged by inputs with that setting.
            mine = [n for n, kind in drawn.items() if kind == name or kind.startswith(f"{name}, ")]
            if judged.coarse(outputs, [*mine, *given] if name else None):
                other = next(others, None)
                if other:
                    self._kinds[other.name] = other
                    return self._draw(other, _PAIR, self._pair)
        return []

    def _draw(self, kind: Kind, rows: int, batch: int) -> list[Case]:
        size = batch if self._dynamic else _fixed_rows(self._inputs)
        first = self._turns.get(kind.name, 0 if kind.seed else 1)
        turns = range(first, first - (-rows // size))
        self._turns[kind.name] = turns.stop
        fixed = batch if self._dynamic else None
        return [draw(kind, self._inputs, fixed, self._seed, turn) for turn in turns]


def _others(kind: Kind, inputs: Sequence[Input]) -> Iterator[Kind]:
    """The other kinds of numbers, with the setting of this one."""
    for other in kinds_for(inputs):
        name = ", ".join(filter(None, (kind.name or kind.says, other.name)))
        yield replace(other, name=name, setting=kind.setting)


def _fixed_rows(inputs: Sequence[Input]) -> int:
    sizes = [item.example[0] for item in inputs if item.example]
    return max(1, max(sizes, default=1))

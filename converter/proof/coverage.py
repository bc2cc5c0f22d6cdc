"""Which branches and loops ran on the inputs of a proof, in both graphs, and which never did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from converter.evaluation.oracle import Feeds
from converter.proof.alone import cases, standing_alone
from converter.proof.control import Body, bodies, pairs
from converter.proof.draws import STANDARD, Kind, draw
from converter.proof.forcing import forced
from converter.proof.measure import Case
from converter.proof.recorder import Recorder
from converter.proof.settings import Setting, explore
from converter.sources.loaded import Input


@dataclass(frozen=True)
class Ran:
    """A branch of an If, or the body of a Loop or Scan, in the proof.

    `turns`: the most iterations in one run, 0 if it never ran; `forced`: it ran with its condition
    replaced; `alone`: it ran by itself, on the values it would have read; `dead`: no input lets it
    run; `whose`: "" if it is in both graphs, else which graph has it.
    """

    name: str
    turns: int
    forced: bool = False
    alone: bool = False
    dead: bool = False
    whose: str = ""

    @property
    def covered(self) -> bool:
        return bool(self.turns) or self.forced or self.alone or self.dead


class Coverage:
    """Watches the runs of a proof of two graphs that hold If, Loop or Scan.

    Args:
        reference, candidate: the two graphs.
        inputs: how their inputs are drawn.
        batch: batch size of the inputs that are tried; None for the size that the graph fixes.
        seed: of the random inputs.
    """

    def __init__(
        self,
        reference: ir.Model,
        candidate: ir.Model,
        inputs: Sequence[Input],
        batch: int | None,
        seed: int,
    ) -> None:
        self._recorders = Recorder(reference), Recorder(candidate)
        self._inputs, self._batch, self._seed = inputs, batch, seed
        self._pairs, self._alone = pairs(*(r.bodies for r in self._recorders))
        self._forced: set[int] = set()
        self._alone_ran: set[int] = set()

    @staticmethod
    def needed(*models: ir.Model) -> bool:
        return any(True for model in models for _ in bodies(model.graph)) or any(
            True for model in models for f in model.functions.values() for _ in bodies(f.graph)
        )

    def kinds(self) -> list[Kind]:
        """The kinds of inputs to draw: the first takes the place of the standard kind, on which the
        graph may not run."""
        recorder = self._recorders[0]
        found = explore(recorder, self._inputs, self._feeds, self.content)
        recorder.turns.clear()  # only what runs on measured inputs counts
        first, *others = [_kind(setting) for setting in found] or [STANDARD]
        return [replace(first, name="", says=first.name), *others]

    def watch(self, case: Case) -> None:
        """Record what runs on inputs that were measured."""
        for recorder in self._recorders:
            recorder.watch(case.feeds)

    def content(self) -> bool:
        """Whether everything that can run at all has run, in the first graph."""
        recorder = self._recorders[0]
        return all(recorder.ran(body) or recorder.dead(body) for body in recorder.bodies)

    def to_force(self) -> Iterator[tuple[str, ir.Model, ir.Model, Callable[[], None]]]:
        """For each pair that never ran: its name, both graphs with it forced to run, and a function
        to call when they have been measured."""
        for one, other in self._pairs:
            if self._told(one, other).covered:
                continue
            models = [
                forced(recorder.model, body, recorder.bodies)
                for body, recorder in zip((one, other), self._recorders, strict=True)
            ]
            if models[0] is not None and models[1] is not None:
                yield one.name, models[0], models[1], partial(self._forced.add, id(one))

    def to_run_alone(
        self,
    ) -> Iterator[tuple[ir.Model, ir.Model, Sequence[Case], Callable[[], None]]]:
        """For each pair of branches that could not be forced: both as models, inputs, and a
        function to call when they have been measured."""
        for one, other in self._pairs:
            if self._told(one, other).covered or one.node.op_type != "If":
                continue
            found = [
                standing_alone(body, recorder)
                for body, recorder in zip((one, other), self._recorders, strict=True)
            ]
            if (
                found[0] is not None
                and found[1] is not None
                and set(found[0][1]) == set(found[1][1])
            ):
                given = cases(one.name, found[0][1], self._seed)
                yield found[0][0], found[1][0], given, partial(self._alone_ran.add, id(one))

    def told(self) -> tuple[Ran, ...]:
        """Every body of both graphs, and whether it ran."""
        mine = {id(body) for body in self._recorders[0].bodies}
        return (
            *(self._told(one, other) for one, other in self._pairs),
            *(
                replace(
                    self._of(self._recorders[id(body) not in mine], body),
                    whose="original" if id(body) in mine else "folded",
                )
                for body in self._alone
            ),
        )

    def _told(self, one: Body, other: Body) -> Ran:
        both = [self._of(r, b) for r, b in zip(self._recorders, (one, other), strict=True)]
        return Ran(
            one.name,
            min(ran.turns for ran in both),
            id(one) in self._forced,
            id(one) in self._alone_ran,
            all(ran.dead for ran in both),
        )

    @staticmethod
    def _of(recorder: Recorder, body: Body) -> Ran:
        turns = recorder.turns.get((body.node, body.branch), 0)
        return Ran(body.name, turns, dead=not turns and recorder.dead(body))

    def _feeds(self, setting: Setting) -> Feeds:
        return draw(_kind(setting), self._inputs, self._batch, self._seed).feeds


def _kind(setting: Setting) -> Kind:
    return replace(STANDARD, name=setting.name, setting=setting)

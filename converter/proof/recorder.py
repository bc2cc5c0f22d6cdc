"""An oracle that records what ran: which branches, how many iterations, and what was compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from converter.evaluation.oracle import Array, Feeds, Oracle, OracleError
from converter.proof.control import Body, bodies, captured, fixed

_COMPARISONS = frozenset({"Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"})
# How many numbers of a compared value are looked at.
_MOST = 16
# How many numbers a value may have that is kept for a branch that may be run alone.
_MOST_KEPT = 2**22


class Recorder(Oracle):
    """Evaluates in float64, Loop and Scan iteration by iteration, and records what ran.

    Attributes:
        bodies: those of the graph, in order.
        turns: the most iterations of each in one run.
        seen: the values that branches that did not run would have read.
        compared: pairs of numbers that were compared since `compared` was last emptied.
    """

    def __init__(self, model: ir.Model) -> None:
        super().__init__(model)
        self.bodies = list(bodies(self._model.graph))
        self.turns: dict[tuple[ir.Node, str], int] = {}
        self.seen: dict[tuple[ir.Node, str], dict[ir.Value, Array]] = {}
        self.compared: dict[tuple[ir.Node, int], tuple[float, float]] = {}

    @property
    def model(self) -> ir.Model:
        """The graph that is run, with its functions inlined."""
        return self._model

    def watch(self, feeds: Feeds) -> bool:
        """Run once; False if the graph does not run on these inputs."""
        try:
            self.run(feeds)
        except (OracleError, ValueError, IndexError, KeyError, TypeError):
            return False
        return True

    def ran(self, body: Body) -> bool:
        return self.turns.get((body.node, body.branch), 0) > 0

    def dead(self, body: Body) -> bool:
        """Whether no input whatsoever lets a body run: its If's condition is a constant."""
        for inner in (body, *body.outer):
            formal = {*self._model.graph.inputs}
            for around in inner.outer:
                formal.update(around.graph.inputs)
            if (
                inner.node.op_type == "If"
                and not self.ran(inner)
                and fixed(inner.node.inputs[0], frozenset(formal))
                and (not inner.outer or self.ran(inner.outer[-1]))
            ):
                return True
        return False

    def _run_node(self, node: ir.Node, env: dict[ir.Value, Array]) -> tuple[Array, ...]:
        if node.domain == "":
            if node.op_type in _COMPARISONS:
                self._compare(node, env)
            if node.op_type == "Loop":
                return tuple(self._loop(node, env))
            if node.op_type == "Scan" and not self._batched_scan():
                return tuple(self._scan(node, env))
        return super()._run_node(node, env)

    def _run_if(self, node: ir.Node, env: dict[ir.Value, Array]) -> tuple[Array, ...]:
        condition = node.inputs[0]
        assert condition is not None
        taken = "then_branch" if bool(np.all(self._fetch(condition, env))) else "else_branch"
        self._note(node, taken, 1)
        self._keep(node, "else_branch" if taken == "then_branch" else "then_branch", env)
        return super()._run_if(node, env)

    def _keep(self, node: ir.Node, branch: str, env: dict[ir.Value, Array]) -> None:
        """Keep the values that a branch that does not run would have read."""
        if (node, branch) in self.turns or (node, branch) in self.seen:
            return
        found = {value: env[value] for value in captured(node.attributes[branch].as_graph())
                 if value in env}  # fmt: skip
        if all(isinstance(v, np.ndarray) and v.size <= _MOST_KEPT for v in found.values()):
            self.seen[node, branch] = found

    def _note(self, node: ir.Node, branch: str, turns: int) -> None:
        self.turns[node, branch] = max(turns, self.turns.get((node, branch), 0))

    def _compare(self, node: ir.Node, env: dict[ir.Value, Array]) -> None:
        values = [self._fetch(value, env) for value in node.inputs if value is not None]
        if any(not isinstance(v, np.ndarray) or v.dtype.kind not in "biuf" for v in values):
            return
        one, other = (np.ravel(v)[:_MOST].astype(float) for v in values)
        for index, pair in (
            enumerate(zip(*np.broadcast_arrays(one, other), strict=True))
            if (1 in {len(one), len(other)} or len(one) == len(other))
            else ()
        ):
            self.compared[node, index] = float(pair[0]), float(pair[1])

    def _loop(self, node: ir.Node, env: dict[ir.Value, Array]) -> Iterator[Any]:
        body = node.attributes["body"].as_graph()
        most, start, *initial = node.inputs
        limit = None if most is None else int(self._fetch(most, env).reshape(()))
        going = True if start is None else bool(np.all(self._fetch(start, env)))
        carried: list[Any] = [None if v is None else self._fetch(v, env) for v in initial]
        scanned: list[list[Array]] = [[] for _ in node.outputs[len(carried) :]]
        turn = 0
        while going and (limit is None or turn < limit):
            inner = dict(env)
            given = [np.asarray(turn, np.int64), np.asarray(going), *carried]
            inner.update(zip(body.inputs, given, strict=False))
            self._run_graph(body, inner)
            again, *results = (self._fetch(value, inner) for value in body.outputs)
            carried = results[: len(carried)]
            for found, result in zip(scanned, results[len(carried) :], strict=False):
                found.append(result)
            going = bool(np.all(again))
            turn += 1
        self._note(node, "body", turn)
        yield from carried
        for found, value in zip(scanned, body.outputs[1 + len(carried) :], strict=False):
            yield np.stack(found) if found else self._empty(value)

    def _scan(self, node: ir.Node, env: dict[ir.Value, Array]) -> Iterator[Any]:
        body = node.attributes["body"].as_graph()
        count = node.attributes.get_int("num_scan_inputs", 1)
        values = [self._fetch(value, env) for value in node.inputs if value is not None]
        states, sequences = values[: len(values) - count], values[len(values) - count :]
        outputs = len(body.outputs) - len(states)
        axes = node.attributes.get_ints("scan_input_axes", [0] * count)
        backward = node.attributes.get_ints("scan_input_directions", [0] * count)
        sequences = [
            np.moveaxis(s, axis, 0)[:: -1 if back else 1]
            for s, axis, back in zip(sequences, axes, backward, strict=True)
        ]
        scanned: list[list[Array]] = [[] for _ in range(outputs)]
        turns = min(len(s) for s in sequences)
        for turn in range(turns):
            inner = dict(env)
            inner.update(zip(body.inputs, [*states, *(s[turn] for s in sequences)], strict=True))
            self._run_graph(body, inner)
            results = [self._fetch(value, inner) for value in body.outputs]
            states = results[: len(states)]
            for found, result in zip(scanned, results[len(states) :], strict=True):
                found.append(result)
        self._note(node, "body", turns)
        yield from states
        for found, axis, back, value in zip(
            scanned,
            node.attributes.get_ints("scan_output_axes", [0] * outputs),
            node.attributes.get_ints("scan_output_directions", [0] * outputs),
            body.outputs[len(states) :],
            strict=True,
        ):
            stacked = np.stack(found[:: -1 if back else 1]) if found else self._empty(value)
            yield np.moveaxis(stacked, 0, axis)

    def _batched_scan(self) -> bool:
        """Scan-8 has a batch axis, and other attributes."""
        imports = self._model.graph.opset_imports
        return imports.get("", imports.get("ai.onnx", 0)) < 9

    @staticmethod
    def _empty(value: ir.Value) -> Array:
        shape = [dim if isinstance(dim, int) else 0 for dim in value.shape or ()]
        dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float64)
        return np.zeros((0, *shape), np.float64 if dtype.kind not in "biu" else dtype)

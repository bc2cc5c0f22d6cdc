"""Cases: sequences of tensors, and the ops that hold graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.converter.evaluation.sweep.net import Case, Net


def _sequence(net: Net) -> str:
    made: str = net.op("SequenceConstruct", net.normal(2, 3), net.normal(2, 3), net.normal(2, 3))
    return made


def construct(net: Net) -> None:
    at = np.array(net.pick(-1, 0, 2), np.int64)
    held = _sequence(net)
    net.out(net.op("SequenceAt", held, at), net.op("SequenceLength", held))


def erase(net: Net) -> None:
    at = net.pick([], [np.array(net.pick(-1, 0, 1), np.int64)])
    less = net.op("SequenceErase", _sequence(net), *at)
    net.out(net.op("ConcatFromSequence", less, axis=1))


def insert(net: Net) -> None:
    at = net.pick([], [np.array(net.pick(-1, 0, 1), np.int64)])
    more = net.op("SequenceInsert", _sequence(net), net.normal(2, 3), *at)
    net.out(net.op("ConcatFromSequence", more, axis=net.pick(0, -1), new_axis=net.pick(0, 1)))


def empty(net: Net) -> None:
    more = net.op("SequenceInsert", net.op("SequenceEmpty"), net.normal(2, 3))
    net.out(net.op("SequenceAt", more, np.array(0, np.int64)))


def split_to_sequence(net: Net) -> None:
    sizes = net.pick([], [np.array(2, np.int64)], [np.array([1, 3])])
    more = {} if sizes else {"keepdims": net.pick(0, 1)}
    parts = net.op("SplitToSequence", net.normal(3, 4), *sizes, axis=net.pick(1, -1), **more)
    net.out(net.op("SequenceAt", parts, np.array(-1, np.int64)), net.op("SequenceLength", parts))


def _value(name: str, elem: int = TensorProto.FLOAT, shape: Any = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, elem, shape)


def branches(net: Net) -> None:
    x = net.feed(net.normal(2, 3))
    bodies = [
        helper.make_graph([helper.make_node(op, [x], [f"{op}_of"])], op, [], [_value(f"{op}_of")])
        for op in ("Tanh", "Neg")
    ]
    net.out(
        net.op("If", np.array(net.pick(True, False)), then_branch=bodies[0], else_branch=bodies[1])
    )


def loop(net: Net) -> None:
    """With a number of turns, a condition, or both; an omitted one never ends the loop."""
    body = helper.make_graph(
        [
            helper.make_node("Tanh", ["state"], ["next"]),
            helper.make_node("ReduceSum", ["next"], ["sum"], keepdims=0),
            helper.make_node("Greater", ["sum", "least"], ["again"]),
        ],
        "body",
        [_value("i", TensorProto.INT64, []), _value("go", TensorProto.BOOL, []), _value("state")],
        [_value("again", TensorProto.BOOL, []), _value("next"), _value("sum")],
        [helper.make_tensor("least", TensorProto.FLOAT, [], [0.9])],
    )
    turns, start = net.pick(
        (np.array(4, np.int64), ""), ("", np.array(True)), (np.array(3, np.int64), np.array(True)),
        (np.array(0, np.int64), np.array(True)), (np.array(3, np.int64), np.array(False)),
    )  # fmt: skip
    x = np.abs(net.normal(2)) + 0.5
    net.out(*net.op("Loop", turns, start, x, body=body, outputs=2))


def scan(net: Net) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "x"], ["next"]),
            helper.make_node("Tanh", ["next"], ["y"]),
        ],
        "body",
        [_value("state"), _value("x")],
        [_value("next"), _value("y")],
    )
    axis = net.pick(0, 1, -1)
    x = net.normal(3, 3)
    more = {
        "scan_input_axes": [axis],
        "scan_output_axes": [net.pick(0, 1, -1)],
        "scan_input_directions": [net.pick(0, 1)],
        "scan_output_directions": [net.pick(0, 1)],
    }
    net.out(*net.op("Scan", net.normal(3), x, body=body, num_scan_inputs=1, outputs=2, **more))


def sequence_map(net: Net) -> None:
    body = helper.make_graph([helper.make_node("Tanh", ["x"], ["y"])], "m", [_value("x")],
                             [_value("y")])  # fmt: skip
    made = net.op("SequenceMap", _sequence(net), body=body)
    net.out(net.op("ConcatFromSequence", made, axis=0))


CASES: dict[str, Case] = {
    "ConcatFromSequence": insert,
    "If": branches,
    "Loop": loop,
    "Scan": scan,
    "SequenceAt": construct,
    "SequenceConstruct": construct,
    "SequenceEmpty": empty,
    "SequenceErase": erase,
    "SequenceInsert": insert,
    "SequenceLength": construct,
    "SequenceMap": sequence_map,
    "SplitToSequence": split_to_sequence,
}

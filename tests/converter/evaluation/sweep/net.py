"""A small graph that a case of the sweep writes, with the numbers that are fed to it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper

Array = np.ndarray[Any, Any]
Case = Callable[["Net"], None]


class Net:
    """What a case draws from: `rng` for numbers, `pick` and `size` for shapes and attributes."""

    def __init__(self, opset: int, seed: int) -> None:
        self.opset = opset
        self.rng = np.random.default_rng([opset, seed])
        self._random = random.Random(1000 * opset + seed)
        self.feeds: dict[str, Array] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.outputs: list[str] = []

    def pick(self, *choices: Any) -> Any:
        return self._random.choice(choices)

    def size(self, low: int = 1, high: int = 4) -> int:
        return self._random.randint(low, high)

    def shape(self, rank: int | None = None, low: int = 1) -> list[int]:
        return [self.size(low, 4) for _ in range(self.size(1, 4) if rank is None else rank)]

    def normal(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape)

    def feed(self, array: Any) -> str:
        """An input of the graph; floats are float32."""
        array = np.asarray(array)
        name = f"i{len(self.feeds)}"
        self.feeds[name] = array.astype(np.float32) if array.dtype == np.float64 else array
        return name

    def op(self, op: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """A node; arrays among its inputs are fed, "" is left out."""
        names = [name if isinstance(name, str) else self.feed(name) for name in inputs]
        made = [f"v{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(op, names, made, **attributes))
        return made[0] if outputs == 1 else made

    def out(self, *names: str) -> None:
        self.outputs += names

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "case",
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
                )
                for name, array in self.feeds.items()
            ],
            [helper.make_value_info(name, onnx.TypeProto()) for name in self.outputs],
        )
        opset = helper.make_opsetid("", self.opset)
        return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def one(op: str, *draws: Callable[[Net], Any], **attributes: Callable[[Net], Any]) -> Case:
    """A node whose inputs and attributes are drawn; what is drawn as None is left out."""

    def case(net: Net) -> None:
        inputs = [draw(net) for draw in draws]
        drawn = {name: draw(net) for name, draw in attributes.items()}
        given = {name: value for name, value in drawn.items() if value is not None}
        net.out(net.op(op, *inputs, **given))

    return case

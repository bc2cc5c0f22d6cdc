"""Inputs that are no plain tensors: lists, dicts, values, scalars, and axes that may vary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from source_nets import ConvBase, ConvNet, FixedSize
from torch import Tensor, nn

from converter.errors import UserError
from converter.proof.examples import random_feeds
from converter.sources import (
    InputShape,
    Loaded,
    LoadOptions,
    load,
    parse_input_shape,
    parse_input_value,
)
from converter.sources.calls import path_of
from converter.sources.module import from_module
from converter.system.quiet import torch_quiet
from patterns.networks import randomize_batchnorms

pytestmark = pytest.mark.slow


def make(module: nn.Module, *shapes: str, **values: Any) -> Loaded:
    randomize_batchnorms(module)
    given = tuple(parse_input_shape(text) for text in shapes)
    options = LoadOptions(input_shapes=given, input_values=values)
    return from_module(module, path=Path("model.pt"), kind="a test", options=options)


def inputs(loaded: Loaded) -> dict[str, tuple[int | str, ...]]:
    return {item.name: item.shape for item in loaded.inputs}


class Views(ConvBase):
    def forward(self, xs: Any) -> Tensor:
        return self.body(xs[0]) + 2 * self.body(xs[1])


class OnlyTuples(ConvBase):
    def forward(self, xs: Any) -> dict[str, Any]:
        assert isinstance(xs, tuple)
        return {"sum": self.body(xs[0] + xs[1]), "parts": [self.body(x) for x in xs]}


class Nested(ConvBase):
    """A dict with a list in it, and two values that are only taken by name."""

    def forward(self, batch: Any, *, scale: float, flip: bool = False) -> Tensor:
        y = self.body(batch["views"][0]) - self.body(batch["views"][1])
        return (y.flip(-1) if flip else y) * scale


class Rate(nn.Module):
    """Decides by a number that is not a tensor, as speech models do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 3, padding=1)
        self.bn = nn.BatchNorm1d(4)

    def forward(self, wave: Tensor, sr: int) -> Tensor:
        y = self.bn(self.conv(wave))
        return y[..., ::2] if sr == 16000 else y


class Scalar(ConvBase):
    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.body(x) * scale.float()


class MaybeMask(ConvBase):
    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.body(x) if mask is None else self.body(x) * mask


class ByName(ConvBase):
    def forward(self, **given: Tensor) -> Tensor:
        return self.body(given["image"]).mean((2, 3)) + given["age"][:, None]


class Graph(nn.Module):
    """Nodes in batches, one matrix for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.bn = nn.BatchNorm1d(6)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        return self.bn((adjacency @ self.fc(x)).transpose(1, 2)).mean(-1)


class More(ConvBase):
    def forward(self, x: Tensor, *more: Tensor) -> Tensor:
        return self.body(x) + sum(self.body(m) for m in more)


@pytest.mark.parametrize(
    ("module", "shapes", "values", "expected"),
    [
        (Views(), ["xs.0=3,6,6", "xs.1=3,6,6"], {}, {"xs_0": 3, "xs_1": 3}),
        (OnlyTuples(), ["xs[0]=3,6,6", "xs[1]=3,6,6"], {}, {"xs_0": 3, "xs_1": 3}),
        (
            Nested(),
            ["batch.views.0=3,6,6", "batch.views.1=3,6,6"],
            {"scale": 2.0, "flip": True},
            {"batch_views_0": 3, "batch_views_1": 3},
        ),
        (Rate(), ["wave=1,32"], {"sr": 16000}, {"wave": 1}),
        (Scalar(), ["x=3,6,6"], {"scale": 3}, {"x": 3}),  # it must be a tensor, and becomes one
        (MaybeMask(), ["x=3,6,6"], {"mask": None}, {"x": 3}),
        (ByName(), ["image=3,6,6", "age="], {}, {"image": 3, "age": None}),
        (More(), ["x=3,6,6", "more.0=3,6,6"], {}, {"x": 3, "more_0": 3}),
    ],
)
def test_every_way_to_call_forward(
    module: nn.Module, shapes: list[str], values: dict[str, Any], expected: dict[str, Any]
) -> None:
    """`from_module` compares what onnxruntime gives with what the module gives."""
    loaded = make(module, *shapes, **values)
    found = {n: s[1] if len(s) > 1 else None for n, s in inputs(loaded).items()}
    assert found == expected
    assert loaded.dynamic_batch
    assert loaded.notes == []
    assert loaded.reference is not None
    assert "forward" not in vars(module)
    norms = [n for n in loaded.model.graph if n.op_type == "BatchNormalization"]
    assert norms
    assert str(norms[0].inputs[1].name) == "bn.weight"


def test_values_choose_the_branch() -> None:
    lengths = [
        make(Rate(), "wave=1,32", sr=sr).reference.outputs["output"].shape[-1]
        for sr in (16000, 8000)
    ]
    assert lengths == [16, 32]


def test_a_value_of_a_tensor_fills_its_examples() -> None:
    loaded = make(Scalar(), "x=3,6,6", "scale=():int64", scale=7)
    assert inputs(loaded)["scale"] == ()
    assert loaded.inputs[1].value == 7
    assert random_feeds(loaded.inputs, 2, 0)["scale"] == 7
    assert loaded.reference is not None
    assert loaded.reference.inputs["scale"] == 7


def test_an_input_without_a_batch_axis() -> None:
    loaded = make(Graph(), "x=7,5", "adjacency=(7,7)")
    assert inputs(loaded) == {"x": ("batch", 7, 5), "adjacency": (7, 7)}


def test_axes_that_may_vary() -> None:
    loaded = make(ConvNet(), "3,height=10,width=12")
    assert inputs(loaded) == {"image": ("batch", 3, "height", "width")}
    assert loaded.inputs[0].example == (1, 3, 10, 12)
    loaded = make(ConvNet(), "3,?=9,8")
    assert inputs(loaded) == {"image": ("batch", 3, "image_2", 8)}


def test_axes_that_cannot_vary_are_fixed_and_it_is_said() -> None:
    loaded = make(FixedSize(3, 32), "3,?,?")
    assert inputs(loaded) == {"x": ("batch", 3, 32, 32)}
    assert loaded.notes[0] == "sizes of the example: 3,?=32,?=32"
    assert "only the batch may vary, the other sizes are fixed at 3,32,32: " in loaded.notes[1]
    assert "the model itself fails" in loaded.notes[1]


@pytest.mark.parametrize(
    ("module", "shapes", "values", "message", "hint"),
    [
        (Views(), ["3,6,6"], {}, "does not run", "a list of 2: --input-shape xs.0=3,6,6 --input"),
        (Views(), ["xs.0=3,6,6", "xs.2=3,6,6"], {}, "elements 0, 2", "xs.0, xs.1"),
        (Nested(), ["batch=3,6,6"], {"scale": 1}, "does not run", "--input-shape batch.views=3,6"),
        (Nested(), ["batch.views.0=3,6,6"], {}, "--input-value is missing for scale", "scale=1.0"),
        (Rate(), ["1,32"], {}, "--input-value is missing for sr", "--input-value sr=1"),
        (Rate(), [], {}, "2 inputs: wave, sr", "--input-shape wave=1,128 --input-value sr=1"),
        (Rate(), [], {"rate": 1}, "names rate, which is not an input", "wave, sr"),
        (Rate(), ["wave=2,8"], {"sr": 1}, "does not run", "wave=1,128 is what its first layer"),
        (Scalar(), ["x=3,6,6", "scale="], {"scale": "a"}, "is not a number", "leave --input-shape"),
    ],
)
def test_hints_name_the_models_own_inputs(
    module: nn.Module, shapes: list[str], values: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(UserError) as raised:
        make(module, *shapes, **values)
    assert message in raised.value.message
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y=:int64", InputShape((), "y", "int64")),
        ("3,H,W", InputShape((3, 0, 0), axes=("", "H", "W"))),
        ("3,H=64,?=32", InputShape((3, 64, 32), axes=("", "H", "?"))),
        ("x=T", InputShape((0,), "x", axes=("T",))),
        ("x=?:int64", InputShape((0,), "x", "int64", ("?",))),
        ("adj=(64, 64)", InputShape((64, 64), "adj", batched=False)),
        ("s=()", InputShape((), "s", batched=False)),
        ("xs.0=3,4", InputShape((3, 4), "xs.0")),
    ],
)
def test_the_language_of_shapes(text: str, expected: InputShape) -> None:
    assert parse_input_shape(text) == expected


def test_the_language_of_values() -> None:
    said = ("sr=16000", "a.b=0.5", "flag=true", "mask=none", "mode=fast")
    assert [parse_input_value(text) for text in said] == [
        ("sr", 16000), ("a.b", 0.5), ("flag", True), ("mask", None), ("mode", "fast"),
    ]  # fmt: skip
    for text in ("sr", "=3"):
        with pytest.raises(UserError, match="name=value"):
            parse_input_value(text)
    assert path_of("batch.boxes[1]") == ("batch", "boxes", 1)


def test_a_scripted_program_that_takes_a_number(tmp_path: Path) -> None:
    with torch_quiet():
        program = torch.jit.script(randomize_batchnorms(Rate()).eval())
        torch.jit.save(program, str(tmp_path / "m.pt"))
    with pytest.raises(UserError, match="something else than tensors: sr: int") as raised:
        load(tmp_path / "m.pt")
    assert raised.value.hint == "say what it gets: --input-value sr=1"
    options = LoadOptions(input_shapes=(InputShape((1, 32), "wave"),), input_values={"sr": 16000})
    loaded = load(tmp_path / "m.pt", options)
    assert inputs(loaded) == {"wave": ("batch", 1, 32)}
    assert loaded.reference is not None
    assert loaded.reference.outputs["output"].shape == (2, 4, 16)


def test_a_number_for_an_input_of_an_onnx_file(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "rate"], ["y"])],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("rate", TensorProto.FLOAT, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "m.onnx")
    loaded = load(tmp_path / "m.onnx", LoadOptions(input_values={"rate": 16000}))
    assert loaded.inputs[1].value == 16000
    assert random_feeds(loaded.inputs, 3, 0)["rate"] == 16000
    with pytest.raises(UserError, match="names sr, which is not an input"):
        load(tmp_path / "m.onnx", LoadOptions(input_values={"sr": 1}))

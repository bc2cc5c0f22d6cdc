"""Hashes that say which graphs and which checker a certificate is of."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from converter.certificate.identity import checker_sha256, graph_sha256
from converter.files.onnx_file import write_onnx
from converter.sources import onnx_
from patterns.graphs import Graph

ROOT = Path(__file__).parents[3]


def graph(seed: int = 0) -> Graph:
    g = Graph("float32", seed=seed)
    y = g.op("Conv", g.input("x", "N", 3, 8, 8), g.weight(4, 3, 3, 3, name="w"))
    g.output(g.rename(g.op("LeakyRelu", g.bn(y, 4, "bn"), alpha=0.1), "y"), shape=["N", 4, 6, 6])
    return g


def proto() -> onnx.ModelProto:
    return graph().proto()


def of(model: onnx.ModelProto) -> str:
    return graph_sha256(ir.serde.deserialize_model(model))


def test_it_is_that_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory, in a file, and with the weights in a file beside it."""
    model = ir.serde.deserialize_model(proto())
    expected = graph_sha256(model)
    write_onnx(model, tmp_path / "one.onnx")
    monkeypatch.setattr("converter.files.onnx_file.LARGEST_MESSAGE", 64)
    written = write_onnx(model, tmp_path / "two.onnx")
    assert len(written) == 2
    for name in ("one", "two"):
        assert graph_sha256(onnx_.read(tmp_path / f"{name}.onnx")[0]) == expected


def _rename_nodes(model: onnx.ModelProto) -> None:
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"


def _texts(model: onnx.ModelProto) -> None:
    model.producer_name, model.doc_string, model.graph.name = "somebody", "a text", "net"
    model.graph.node[0].doc_string = "a text"
    helper.set_model_props(model, {"key": "value"})


def _stored_otherwise(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    values = numpy_helper.to_array(weight)
    weight.ClearField("raw_data")
    weight.float_data.extend(values.reshape(-1).tolist())


def _weights_in_another_order(model: onnx.ModelProto) -> None:
    weights = list(reversed(model.graph.initializer))
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)


def _axis_named_otherwise(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "rows"


def _sizes_of_the_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 5


def _unused_opset(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))


@pytest.mark.parametrize(
    "change",
    [
        _rename_nodes, _texts, _stored_otherwise, _weights_in_another_order,
        _axis_named_otherwise, _sizes_of_the_output, _unused_opset,
    ],
)  # fmt: skip
def test_what_is_not_computed_with_does_not_count(
    change: Callable[[onnx.ModelProto], None],
) -> None:
    model = proto()
    change(model)
    assert model.SerializeToString() != proto().SerializeToString()
    assert of(model) == of(proto())


def _one_bit(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] = np.nextafter(values.flat[0], np.float32(9))
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))


def _shape(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    weight.dims[:] = [weight.dims[1], weight.dims[0], *weight.dims[2:]]


def _attribute(model: onnx.ModelProto) -> None:
    (attribute,) = model.graph.node[-1].attribute
    attribute.f = 0.2


def _op(model: onnx.ModelProto) -> None:
    model.graph.node[-1].op_type = "Elu"


def _domain(model: onnx.ModelProto) -> None:
    model.graph.node[-1].domain = "com.example"


def _edge(model: onnx.ModelProto) -> None:
    model.graph.node[-1].input[0] = model.graph.node[0].output[0]


def _opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version += 1


def _size_of_an_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 9


def _two_axes_of_one_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "N"


def _type(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


def _output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = model.graph.node[0].output[0]


@pytest.mark.parametrize(
    "change",
    [
        _one_bit, _shape, _attribute, _op, _domain, _edge, _opset, _size_of_an_input,
        _two_axes_of_one_size, _type, _output,
    ],
)  # fmt: skip
def test_what_is_computed_with_counts(change: Callable[[onnx.ModelProto], None]) -> None:
    model = proto()
    change(model)
    assert of(model) != of(proto())


def test_bodies_count() -> None:
    def choice(constant: float) -> onnx.ModelProto:
        def body(name: str, number: float) -> onnx.GraphProto:
            value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2])
            weight = numpy_helper.from_array(np.full(2, number, np.float32), f"w_{name}")
            node = helper.make_node("Add", ["x", f"w_{name}"], [name])
            return helper.make_graph([node], name, [], [value], [weight])

        node = helper.make_node(
            "If", ["c"], ["y"], then_branch=body("a", 1.0), else_branch=body("b", constant)
        )
        inputs = [
            helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2]),
        ]
        outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])]
        return helper.make_model(helper.make_graph([node], "g", inputs, outputs))

    assert of(choice(2.0)) == of(choice(2.0))
    assert of(choice(2.0)) != of(choice(3.0))


def test_texts_and_narrow_weights_have_one() -> None:
    def held(tensor: onnx.TensorProto) -> onnx.ModelProto:
        node = helper.make_node("Identity", ["w"], ["y"])
        output = helper.make_tensor_value_info("y", tensor.data_type, [2])
        return helper.make_model(helper.make_graph([node], "g", [], [output], [tensor]))

    def texts(*of_it: bytes) -> onnx.ModelProto:
        return held(helper.make_tensor("w", onnx.TensorProto.STRING, [2], list(of_it)))

    def nibbles(*of_it: int) -> onnx.ModelProto:
        return held(helper.make_tensor("w", onnx.TensorProto.INT4, [2], list(of_it)))

    assert of(texts(b"a", b"bc")) == of(texts(b"a", b"bc"))
    assert of(texts(b"a", b"bc")) != of(texts(b"ab", b"c"))
    assert of(nibbles(1, 2)) == of(nibbles(1, 2))
    assert of(nibbles(1, 2)) != of(nibbles(1, 3))


def test_the_checker_is_known_by_its_sources(tmp_path: Path) -> None:
    """The same from a copy, an archive and with other ends of lines; another if one changes."""
    source = ROOT / "converter" / "certificate"
    program = "from converter.certificate.identity import checker_sha256 as c; print(c())"

    def told_by(place: Path) -> str:
        command = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(place)!r})\n"]
        command[-1] += program
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        return done.stdout.strip()

    copied = tmp_path / "copied"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "converter", copied / "converter", ignore=ignore)
    shutil.copytree(ROOT / "service", copied / "service", ignore=ignore)
    assert told_by(copied) == checker_sha256()

    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in copied.rglob("*.py"):
            file.write(path, path.relative_to(copied))
    assert told_by(archive) == checker_sha256()

    mine = copied / "converter" / "certificate" / "forms.py"
    content = (source / "forms.py").read_bytes()
    mine.write_bytes(content.replace(b"\n", b"\r\n"))
    assert told_by(copied) == checker_sha256()
    mine.write_bytes(content + b"\n")
    assert told_by(copied) != checker_sha256()

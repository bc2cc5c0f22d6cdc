"""What is called published is served, and answers as the original does.

Each graph here says something of itself that is not so, or nothing: it is folded, proven,
published, loaded by the service, and asked there by several clients at a time.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.errors import UserError
from converter.pipeline import fold
from converter.publishing import versions as publishing
from converter.publishing.versions import publish
from converter.sources import LoadOptions, load
from converter.sources.loaded import InputShape
from service import device
from service.errors import BatchMismatch
from service.models import model as models
from service.models.bundle import Rejected
from service.models.model import ServedModel
from service.models.registry import Registry

Arrays = dict[str, np.ndarray]
RNG = np.random.default_rng(0)
CONV = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
LOADER = partial(models.load, choice=device.choose("cpu"), threads=1, capacity_samples=1000)


def tensor(name: str, shape: list[Any] | None, kind: int = TensorProto.FLOAT) -> Any:
    """A value; sizes of any kind, -1 and "" included, None for no shape at all."""
    value = helper.make_tensor_value_info(name, kind, [] if shape is not None else None)
    for dim in shape or ():
        place = value.type.tensor_type.shape.dim.add()
        if isinstance(dim, int):
            place.dim_value = dim
        elif dim is not None:
            place.dim_param = dim
    return value


def conv_bn(
    batch: Any = "N",
    out: list[Any] | None = None,
    *,
    more: list[onnx.NodeProto] | None = None,
    size: Any = 8,
    constants: Arrays | None = None,
    others: list[Any] | None = None,
) -> onnx.ModelProto:
    """Conv and batch-norm of x (batch, 3, size, size) to `c`; `more` makes y of it.

    `out`: what the file says of y; `others`: further outputs.
    """
    weights = {
        "W": CONV,
        "gamma": np.array([1.5, -0.5, 2.0, 0.7], np.float32),
        "beta": np.array([0.1, 0.2, -0.3, 0.4], np.float32),
        "mean": np.array([0.0, 0.1, -0.1, 0.2], np.float32),
        "var": np.array([1.0, 2.0, 0.5, 1.5], np.float32),
        **(constants or {}),
    }
    names = ["a", "gamma", "beta", "mean", "var"]
    nodes = [
        helper.make_node("Conv", ["x", "W"], ["a"]),
        helper.make_node("BatchNormalization", names, ["c"]),
        *(more or [helper.make_node("Identity", ["c"], ["y"])]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [tensor("x", [batch, 3, size, size])],
        [tensor("y", out), *(others or [])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def published(model: onnx.ModelProto, folder: Path, name: str = "m") -> Path:
    path = folder / "file.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    open_axes = any(d.dim_value <= 0 for d in model.graph.input[0].type.tensor_type.shape.dim[1:])
    shapes = (InputShape((3, 8, 8)),) if open_axes else ()
    result = fold(load(path, LoadOptions(input_shapes=shapes)))
    assert result.proof.passed, result.proof
    return Path(publish(result, folder / "models" / name).path)


def original(model: onnx.ModelProto) -> Callable[[Arrays], Arrays]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


def together(served: ServedModel, requests: list[Arrays]) -> list[Arrays]:
    """What each of several clients gets that ask at the same time."""

    async def ask() -> list[Arrays]:
        until = time.monotonic() + 60
        return await asyncio.gather(
            *(
                served.batcher.submit(feeds, served.signature.check(feeds), until)
                for feeds in requests
            )
        )

    return asyncio.run(ask())


def check_answers(model: onnx.ModelProto, served: ServedModel, requests: list[Arrays]) -> None:
    truth = original(model)
    for feeds, got in zip(requests, together(served, requests), strict=True):
        expected = truth(feeds)
        for name in served.signature.outputs:
            assert got[name].shape == expected[name].shape
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-3, atol=1e-4)


def x(batch: int, *size: int) -> Arrays:
    return {"x": RNG.standard_normal((batch, 3, *(size or (8, 8)))).astype(np.float32)}


def mean_of(axes: list[int] | None, keep: int) -> list[onnx.NodeProto]:
    return [
        helper.make_node("ReduceMean", ["c", *(["axes"] if axes else [])], ["y"], keepdims=keep)
    ]


AXES = {"axes": np.array([0], np.int64)}
NMS = [
    helper.make_node("Flatten", ["c"], ["f"]),
    helper.make_node("Greater", ["f", "zero"], ["above"]),
    helper.make_node("NonZero", ["above"], ["places"]),
    helper.make_node("Transpose", ["places"], ["found"]),
    helper.make_node("Cast", ["found"], ["y"], to=TensorProto.FLOAT),
]
ZERO = {"zero": np.array(1.0, np.float32)}
BOXES = [
    helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]),
    helper.make_node("Reshape", ["t", "rows"], ["y"]),
]
ROWS = {"rows": np.array([-1, 4], np.int64)}
MAP = [4, 6, 6]
TURNED = [helper.make_node("Transpose", ["c"], ["y"], perm=[1, 0, 2, 3])]
WHOLE = partial(conv_bn, more=mean_of(None, 0))
FIRST = partial(conv_bn, constants=AXES)
ALSO = partial(conv_bn, out=["N", *MAP])

# What the file says and does; the shape in model.json, and whether requests may be joined.
CASES: dict[str, tuple[onnx.ModelProto, list[Any], bool]] = {
    "right": (conv_bn("N", ["N", *MAP]), ["N", *MAP], True),
    "no shape": (conv_bn("N", None), ["N", *MAP], True),
    "claims a scalar": (conv_bn("N", []), ["N", *MAP], True),
    "claims one row": (conv_bn("N", [1, *MAP]), ["N", *MAP], True),
    "stale": (conv_bn("N", ["N", 4, 8, 8]), ["N", *MAP], True),
    "stale rank": (conv_bn("N", ["N", 4]), ["N", *MAP], True),
    "another name": (conv_bn("N", ["M", *MAP]), ["N", *MAP], True),
    "-1": (conv_bn(-1, [-1, *MAP]), ["batch", *MAP], True),
    "0": (conv_bn(0, [0, *MAP]), ["batch", *MAP], True),
    "empty": (conv_bn("", ["", *MAP]), ["batch", *MAP], True),
    "nothing": (conv_bn(None, [None, 4, None, None]), ["batch", *MAP], True),
    "?": (conv_bn("?", ["?", 4, "?", "?"]), ["batch", *MAP], True),
    "None": (conv_bn("None", ["None"] * 4), ["batch", *MAP], True),
    "scalar": (WHOLE("N", []), [], False),
    "scalar that claims a batch": (WHOLE("N", ["N"]), [], False),
    "one row": (FIRST("N", ["N", *MAP], more=mean_of([0], 1)), [1, *MAP], False),
    "no batch axis": (FIRST("N", ["N", 6, 6], more=mean_of([0], 0)), MAP, False),
    "rows of values": (conv_bn("N", ["N", 2], more=NMS, constants=ZERO), ["y.0", 2], False),
    "36 rows a sample": (conv_bn("N", ["N", 4], more=BOXES, constants=ROWS), ["y.0", 4], False),
    "batch axis is second": (conv_bn("N", ["N", *MAP], more=TURNED), [4, "N", 6, 6], False),
    "a weight as well": (ALSO(others=[tensor("W", [4, 3, 3, 3])]), ["N", *MAP], False),
    "the input as well": (ALSO(others=[tensor("x", ["N", 3, 8, 8])]), ["N", *MAP], True),
    "twice": (ALSO(others=[tensor("y", ["N", *MAP])]), ["N", *MAP], True),
    "fixed": (conv_bn(2, [2, *MAP]), [2, *MAP], False),
    "fixed, no shape": (conv_bn(2, None), [2, *MAP], False),
}


def requests(name: str) -> list[Arrays]:
    return [x(2 if name.startswith("fixed") else rows) for rows in (1, 2, 1, 3, 1, 5)]


@pytest.mark.parametrize("name", CASES)
def test_published_is_served(tmp_path: Path, name: str) -> None:
    model, shape, joined = CASES[name]
    folder = published(model, tmp_path)
    (output,) = [
        spec for spec in json.loads((folder / "model.json").read_text())["outputs"]
        if spec["name"] == "y"
    ]  # fmt: skip
    assert output["shape"] == shape
    registry = Registry(tmp_path / "models", LOADER)
    registry.load()
    served = registry.find("m")
    assert served.signature.batched == joined
    assert (
        bool(served.batcher.max_batch_rows > 1 or "no faster" in str(served.running.why)) == joined
    )
    check_answers(conv_bn("N") if name == "0" else model, served, requests(name))
    assert registry.close(60)


@pytest.mark.parametrize("name", [n for n in CASES if n != "0"])
def test_a_bare_model_is_served_likewise(tmp_path: Path, name: str) -> None:
    model, shape, _ = CASES[name]
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    served = LOADER(folder, "m", 1)
    assert served.signature.outputs["y"].shape == shape
    check_answers(model, served, requests(name))
    assert served.batcher.close(60)


@pytest.mark.parametrize("mark", ["?", "None", -1, "", "unk", "*", None])
@pytest.mark.parametrize("how", ["published", "bare"])
def test_a_placeholder_is_no_size_that_two_axes_share(tmp_path: Path, mark: Any, how: str) -> None:
    model = conv_bn("N", ["N", 4, mark, mark], size=mark)
    if how == "published":
        folder = published(model, tmp_path)
    else:
        folder = tmp_path / "m" / "1"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
    served = LOADER(folder, "m", 1)
    check_answers(model, served, [x(1, 8, 12), x(2, 9, 5), x(1, 8, 12), x(1, 16, 8)])
    assert served.batcher.close(60)


@pytest.mark.parametrize("mark", ["?", "None", -1, 0])
def test_each_placeholder_takes_the_size_that_the_user_says(tmp_path: Path, mark: Any) -> None:
    model = conv_bn(mark, [mark, 4, mark, mark], size=mark)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    loaded = load(tmp_path / "m.onnx", LoadOptions(input_shapes=(InputShape((3, 8, 12)),)))
    assert loaded.inputs[0].example == (1, 3, 8, 12)
    result = fold(loaded)
    assert result.proof.passed
    names = [dim for value in result.model.graph.inputs for dim in value.shape]
    assert len({str(dim) for dim in names}) == 4


def test_a_name_is_a_size_that_two_axes_share(tmp_path: Path) -> None:
    served = LOADER(published(conv_bn("N", ["N", 4, "h", "h"], size="side"), tmp_path), "m", 1)
    with pytest.raises(BatchMismatch, match="side"):
        served.signature.check(x(1, 8, 12))
    assert served.signature.check(x(1, 12, 12)) == 1
    assert served.batcher.close(60)


def test_an_input_with_a_default_value_keeps_it(tmp_path: Path) -> None:
    model = conv_bn("N", ["N", *MAP])
    model.graph.input.append(tensor("W", [4, 3, 3, 3]))
    served = LOADER(published(model, tmp_path), "m", 1)
    assert list(served.signature.inputs) == ["x"]
    check_answers(model, served, [x(1), x(2)])
    assert served.batcher.close(60)


def test_a_tie_that_rounding_decides_is_not_tested_for(tmp_path: Path) -> None:
    """The largest of two sums that are equal in float64, and not in float32."""
    nodes = [
        helper.make_node("Mul", ["c", "third"], ["t"]),
        helper.make_node("Sum", ["t", "t", "t"], ["s"]),
        helper.make_node("Concat", ["c", "s"], ["both"], axis=3),
        helper.make_node("Flatten", ["both"], ["f"]),
        helper.make_node("ArgMax", ["f"], ["y"], axis=1, keepdims=0),
    ]
    third = {"third": np.array(1 / 3, np.float32)}
    model = conv_bn("N", ["N"], more=nodes, constants=third)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    folder = published(model, tmp_path)
    served = LOADER(folder, "m", 1)
    assert served.signature.outputs["y"].dtype == "int64"
    assert served.batcher.close(60)


def test_an_infinite_number_among_others_is_no_obstacle(tmp_path: Path) -> None:
    masked = [helper.make_node("Where", ["mask", "c", "low"], ["y"])]
    low = {"mask": np.eye(6, dtype=bool), "low": np.array(-np.inf, np.float32)}
    model = conv_bn("N", ["N", *MAP], more=masked, constants=low)
    served = LOADER(published(model, tmp_path), "m", 1)
    check_answers(model, served, [x(1), x(2)])
    assert served.batcher.close(60)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_an_output_without_a_finite_number_is_not_tested_for(tmp_path: Path, number: float) -> None:
    """A pitch where nobody sings; the proof has seen other inputs, on which there is one."""
    (tmp_path / "file.onnx").write_bytes(conv_bn("N", ["N", *MAP]).SerializeToString())
    result = fold(load(tmp_path / "file.onnx", LoadOptions()))
    silent = {name: np.full_like(y, number) for name, y in result.proof.truth.items()}
    result = replace(result, proof=replace(result.proof, truth=silent))
    folder = Path(publish(result, tmp_path / "models" / "m").path)
    assert not (folder / "selftest.npz").exists()
    served = LOADER(folder, "m", 1)
    assert served.self_test_errors is None
    assert served.batcher.close(60)


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("place", ["m", "models/m"])
def test_what_the_service_refuses_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file.onnx").write_bytes(conv_bn().SerializeToString())
    result = fold(load(tmp_path / "file.onnx", LoadOptions()))

    def refuse(*_: object) -> None:
        raise Rejected("self-test failed: output 'y' is off by 1")

    monkeypatch.setattr("service.models.selftest.compare", refuse)
    with pytest.raises(UserError, match="would not serve this model: self-test failed") as error:
        publish(result, tmp_path / "to" / place)
    assert "Nothing was published" in error.value.hint
    assert left(tmp_path) == ["file.onnx"]
    with pytest.raises(UserError, match="would not serve"):
        publish(result, f"file://{tmp_path}/to/{place}")
    with pytest.raises(UserError, match="would not serve"):
        publish(result, f"local://{tmp_path}/to/{place}")
    assert left(tmp_path) == ["file.onnx"]
    monkeypatch.undo()
    publish(result, tmp_path / "to" / place)
    before = left(tmp_path)
    monkeypatch.setattr("service.models.selftest.compare", refuse)
    with pytest.raises(UserError, match="would not serve"):
        publish(result, tmp_path / "to" / place)
    assert left(tmp_path) == before


STEPS = [
    "write_onnx",
    "look",
    "TellOutputsPass",
    "write_selftest",
    "manifest",
    "refuse_unservable",
    "_write",
]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    (tmp_path / "file.onnx").write_bytes(conv_bn().SerializeToString())
    result = fold(load(tmp_path / "file.onnx", LoadOptions()))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(publishing, step, fail)
    for address in (tmp_path / "models" / "m", f"local://{tmp_path}/models/m"):
        with pytest.raises(UserError if error is OSError else error):
            publish(result, address)
    assert left(tmp_path) == ["file.onnx"]

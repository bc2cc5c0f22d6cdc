"""Shapes that the manifest names are run before the version is served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from repository import elementwise, graph, linear, publish, value

from service import device
from service.batching.choose import RunSettings
from service.manifest import Manifest
from service.models import model, warm_up
from service.models.bundle import Rejected
from service.models.runtime import Runtime
from service.signature import Tensors


def load(folder: Path) -> None:
    served = model.load(folder, "m", 1, device.choose("cpu"), 1, 64, RunSettings())
    assert served.batcher.close(60)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, tuple[int, ...]]]:
    """The shapes of every run."""
    shapes: list[dict[str, tuple[int, ...]]] = []
    run = Runtime.run

    def spy(self: Runtime, inputs: Tensors) -> Tensors:
        shapes.append({name: array.shape for name, array in inputs.items()})
        return run(self, inputs)

    monkeypatch.setattr(Runtime, "run", spy)
    return shapes


def two_axes():
    """y = a + b over (batch, time, channel), channel and time open."""
    shape = ["batch", "time", "channel"]
    return graph(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        [value("a", TensorProto.FLOAT, shape), value("b", TensorProto.FLOAT, shape)],
        [value("y", TensorProto.FLOAT, shape)],
    )


def test_every_combination_is_run(tmp_path: Path, ran: list):
    sizes = {"time": [64, 128], "channel": [3, 5]}
    load(publish(tmp_path, "m", two_axes(), serving={"warm_up_sizes": sizes}))
    for shape in ((1, 64, 3), (1, 64, 5), (1, 128, 3), (1, 128, 5)):
        assert {"a": shape, "b": shape} in ran


def test_the_batch_axis_has_a_name_too(tmp_path: Path, ran: list):
    load(publish(tmp_path, "m", linear(), serving={"warm_up_sizes": {"batch": [7, 9]}}))
    assert {"x": (7, 4)} in ran
    assert {"x": (9, 4)} in ran


def test_the_values_are_those_of_the_example(tmp_path: Path, ran: list):
    """An embedding takes no index beyond its table, so the example's own are repeated."""
    folder = publish(tmp_path, "m", elementwise("Neg", TensorProto.INT64, ("batch", "time")))
    manifest = Manifest.model_validate_json((folder / "model.json").read_bytes())
    manifest = manifest.model_copy(
        update={"serving": manifest.serving.model_copy(update={"warm_up_sizes": {"time": [5]}})}
    )
    signature = model.Signature.of(manifest)
    (name,) = signature.inputs
    seen: list[np.ndarray] = []

    def run(inputs: Tensors) -> Tensors:
        seen.append(inputs[name])
        return {}

    assert warm_up.sizes(run, manifest, signature, {name: np.array([[3, 8]])}) == 1
    np.testing.assert_array_equal(seen[0], [[3, 8, 3, 8, 3]])
    assert seen[0].dtype == np.int64


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"size": [3]}, "'size', no open axis"),
        ({"time": []}, "at least 1 item"),
        ({"time": [0]}, "greater than or equal to 1"),
        ({"time": list(range(1, 66))}, "more than 64 combinations"),
    ],
)
def test_sizes_that_make_no_sense(tmp_path: Path, sizes: dict, reason: str):
    folder = publish(tmp_path, "m", two_axes(), serving={"warm_up_sizes": sizes})
    with pytest.raises(Rejected, match=reason):
        load(folder)


def test_a_size_that_the_model_cannot_run_is_a_reason_not_to_serve_it(tmp_path: Path):
    wide = graph(
        [
            helper.make_node("Reshape", ["x", "to"], ["y"]),
        ],
        [value("x", TensorProto.FLOAT, ["batch", "time"])],
        [value("y", TensorProto.FLOAT, ["batch", "rest", 4])],
        {"to": np.array([0, -1, 4])},
    )
    x = np.ones((1, 8), np.float32)
    good = publish(
        tmp_path / "good", "m", wide, test={"x": x}, serving={"warm_up_sizes": {"time": [4, 12]}}
    )
    load(good)
    bad = publish(
        tmp_path / "bad", "m", wide, test={"x": x}, serving={"warm_up_sizes": {"time": [4, 6]}}
    )
    with pytest.raises(Rejected, match="warm-up with time=6 failed"):
        load(bad)

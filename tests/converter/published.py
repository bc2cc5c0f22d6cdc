"""A small proven fold, and a close look at a folder of published versions."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from converter.certificate.identity import graph_sha256
from converter.pipeline import FoldResult, fold
from converter.sources import onnx_
from converter.sources.inputs import describe, dynamic_batch
from converter.sources.loaded import Loaded
from patterns.graphs import Graph
from service.manifest import MANIFEST_FILE, MODEL_FILE, SELFTEST_FILE, Classification, Manifest


def graph(dtype: str = "float32", batch: int | str = "N", seed: int = 0) -> Graph:
    """Conv, batch-norm, Relu, a batch-norm that stays, GlobalAveragePool, Flatten."""
    g = Graph(dtype, opset=22, seed=seed)
    y = g.op("Conv", g.input("image", batch, 3, 6, 6), g.weight(4, 3, 3, 3, name="conv.weight"))
    y = g.bn(g.op("Relu", g.bn(y, 4, name="bn1")), 4, name="bn2")
    y = g.op("Flatten", g.op("GlobalAveragePool", y))
    g.rename(y, "logits")
    g.output("logits", shape=[batch, 4])
    return g


def loaded(g: Graph | None = None, **more: object) -> Loaded:
    model = (g or graph()).model()
    details = {"path": Path("/home/someone/net.pt"), "kind": "a test", **more}
    return Loaded(model, describe(model), dynamic_batch=dynamic_batch(model), **details)  # type: ignore[arg-type]


def result(seed: int = 0) -> FoldResult:
    return fold(
        loaded(
            graph(seed=seed),
            description="four numbers of an image",
            classification=Classification(output="logits", labels=["a", "b", "c", "d"]),
            metrics={"test_accuracy": 0.5},
        )
    )


def versions(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def check_version(path: Path) -> Manifest:
    """Everything that a reader relies on: the manifest, the hashes, the model, the self-test."""
    manifest = Manifest.model_validate_json((path / MANIFEST_FILE).read_bytes())
    assert manifest.version == int(path.name)
    assert manifest.name == path.parent.name
    listed = {*manifest.files, MANIFEST_FILE}
    assert {file.name for file in path.iterdir()} == listed
    for name, entry in manifest.files.items():
        content = (path / name).read_bytes()
        assert len(content) == entry.bytes
        assert hashlib.sha256(content).hexdigest() == entry.sha256
    onnx.checker.check_model(path / MODEL_FILE)
    with np.load(path / SELFTEST_FILE) as arrays:
        assert {name.split(":")[0] for name in arrays.files} == {"input", "output"}
    check_certificate(path, manifest)
    return manifest


def check_certificate(path: Path, manifest: Manifest) -> None:
    """It speaks of the very files of the version, and of the graph in them."""
    certificate = manifest.certificate
    assert certificate is not None
    assert certificate.folded is not None
    listed = {name: entry.sha256 for name, entry in manifest.files.items()}
    assert {**certificate.folded.files, SELFTEST_FILE: listed[SELFTEST_FILE]} == listed
    assert certificate.folded.graph == graph_sha256(onnx_.read(path / MODEL_FILE)[0])


def check_self_test(path: Path) -> None:
    """The stored inputs give the stored outputs, within the tolerance that the manifest states."""
    manifest = check_version(path)
    session = ort.InferenceSession(path / MODEL_FILE, providers=["CPUExecutionProvider"])
    assert manifest.self_test is not None
    with np.load(path / SELFTEST_FILE) as arrays:
        inputs = {spec.name: arrays[f"input:{spec.name}"] for spec in manifest.inputs}
        names = [spec.name for spec in manifest.outputs]
        for name, found in zip(names, session.run(names, inputs), strict=True):
            stored = arrays[f"output:{name}"]
            assert stored.dtype == found.dtype
            assert np.abs(found - stored).max() <= manifest.self_test.atol[name]
            assert manifest.self_test.atol[name] < 0.02 * np.abs(stored).max()

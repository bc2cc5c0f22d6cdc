"""Engines on real sessions: what is measured, what serves, what is remembered."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from service import assembly, device
from service.device import Choice
from service.engines import memory, openvino, pick, table
from service.engines.budget import Budget
from service.engines.choice import Trial
from service.engines.pick import Wish
from service.engines.trial import accuracy
from service.listen import CannotStart
from service.manifest import SelfTest
from service.models import model
from service.models.bundle import Rejected
from service.models.model import ServedModel
from service.models.selftest import SelfTestData
from service.settings_read import SettingsError, parse
from service.signature import Tensors
from tests.service.repository import elementwise, graph, linear, publish, reference, value
from tests.serving import serving

CPU = device.choose("cpu")
WIDE = Budget(most=0.05, whose="--max-error")
plugin = pytest.mark.skipif(bool(openvino.obstacle()), reason=f"OpenVINO: {openvino.obstacle()}")


def convolutions(channels: int = 16, seed: int = 0) -> onnx.ModelProto:
    """Two convolutions and a mean over each channel, (batch, 3, 24, 24) to (batch, channels)."""
    random = np.random.default_rng(seed)
    nodes, weights, width = [], {}, 3
    for i in range(2):
        w = random.standard_normal((channels, width, 3, 3)) * math.sqrt(2 / (9 * width))
        weights[f"w{i}"] = w.astype(np.float32)
        weights[f"b{i}"] = random.standard_normal(channels).astype(np.float32)
        before = f"r{i - 1}" if i else "x"
        nodes.append(
            helper.make_node("Conv", [before, f"w{i}", f"b{i}"], [f"c{i}"], pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        width = channels
    nodes.append(helper.make_node("GlobalAveragePool", ["r1"], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["scores"]))
    x = value("x", TensorProto.FLOAT, ["batch", 3, 24, 24])
    return graph(nodes, [x], [value("scores", TensorProto.FLOAT, ["batch", channels])], weights)


X = np.random.default_rng(1).standard_normal((3, 3, 24, 24)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return publish(tmp_path / "models", "conv", convolutions(), test={"x": X}, batch_invariant=True)


@pytest.fixture
def load(tmp_path: Path) -> object:
    """`model.load` with engines, and the models that it gave are closed in the end."""
    made: list[ServedModel] = []

    def loads(folder: Path, provider: str, allowed: Budget | None = None) -> ServedModel:
        wish = Wish(provider, allowed, tmp_path / "choices")
        name, version = folder.parent.name, int(folder.name)
        served = model.load(folder, name, version, CPU, 2, 256, engines=wish)
        made.append(served)
        return served

    yield loads
    for served in made:
        served.batcher.close(5)


Load = Callable[..., ServedModel]


def long_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the models of these tests took long enough to be worth a choice."""
    monkeypatch.setattr(pick, "_SHORT_MS", 0.0)


@plugin
def test_openvino_serves_single_rows_and_batches(folder: Path, load: Load) -> None:
    served = load(folder, "openvino", WIDE)
    assert served.provider == "OpenVINOExecutionProvider"
    running = served.running.describe()
    assert (running["runners"], running["threads_per_run"]) == (1, 2)

    async def ask(sizes: list[int]) -> list[Tensors]:
        rows = [np.random.default_rng(n).standard_normal((n, 3, 24, 24)) for n in sizes]
        return await asyncio.gather(*(
            served.batcher.submit({"x": x.astype(np.float32)}, len(x), time.monotonic() + 60)
            for x in rows
        ))  # fmt: skip

    sizes = [1, 2, 3, 1, 5, 1, 8]
    for size, got in zip(sizes, asyncio.run(ask(sizes)), strict=True):
        x = np.random.default_rng(size).standard_normal((size, 3, 24, 24)).astype(np.float32)
        expected = reference(convolutions(), {"x": x})["scores"]
        assert got["scores"].shape == expected.shape
        assert np.abs(got["scores"] - expected).max() <= 0.05 * np.abs(expected).max()


@plugin
def test_each_precision_is_what_it_says(folder: Path, load: Load) -> None:
    rows = {row.trial.engine: row for row in load(folder, "openvino", WIDE).engines}
    assert list(rows) == [each.name for each in table.tried("openvino")]
    errors = {name: row.trial.error for name, row in rows.items() if not row.trial.obstacle}
    assert errors["openvino float32"] < 2e-6
    # bfloat16 has 8 bits, float16 has 11; a processor may compute either in float32.
    assert errors["openvino bfloat16"] < 0.05
    assert errors["openvino float16"] < 0.01


@plugin
def test_auto_shows_each_engine_and_keeps_within_the_budget(
    folder: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_runs(monkeypatch)
    served = load(folder, "auto")
    shown = served.describe()["engines"]
    assert [row["engine"] for row in shown] == [each.name for each in table.ENGINES]
    assert all(row["lone_ms"] > 0 and row["row_ms"] > 0 for row in shown)
    (chosen,) = [row for row in shown if row["chosen"]]
    assert chosen["error"] <= 2.0**-19
    json.dumps(shown)


@plugin
def test_none_within_the_budget_is_a_reason_not_to_serve(folder: Path, load: Load) -> None:
    with pytest.raises(Rejected, match=r"no engine can serve it \(openvino float32: error .*"):
        load(folder, "openvino", Budget(most=1e-12, whose="--max-error"))


@plugin
def test_what_a_plugin_leaves_to_onnxruntime_is_told(tmp_path: Path, load: Load) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Det", ["r"], ["y"]),
    ]
    x = value("x", TensorProto.FLOAT, ["batch", 3, 3])
    made = graph(nodes, [x], [value("y", TensorProto.FLOAT, ["batch"])])
    test = {"x": np.random.default_rng(0).standard_normal((2, 3, 3)).astype(np.float32)}
    folder = publish(tmp_path, "det", made, test=test, batch_invariant=True)
    row = load(folder, "openvino", WIDE).engines[1]
    assert row.trial.note == "1 of 2 nodes stay with onnxruntime: Det"


@plugin
def test_a_restart_does_not_measure_again(
    folder: Path, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load(folder, "openvino", WIDE)
    monkeypatch.setattr(pick._Measuring, "trials", lambda _: pytest.fail("measured again"))
    again = load(folder, "openvino", WIDE)
    assert again.engines == before.engines
    assert again.provider == before.provider
    # Another budget is another choice from the same measurements.
    with pytest.raises(Rejected):
        load(folder, "openvino", Budget(most=1e-12))
    assert len(list((tmp_path / "choices").glob("*.json"))) == 1


@plugin
def test_another_file_is_measured_anew(tmp_path: Path, load: Load) -> None:
    for version in (1, 2):
        made = convolutions(seed=version)
        load(publish(tmp_path, "conv", made, version, test={"x": X}), "openvino", WIDE)
    assert len(list((tmp_path / "choices").glob("*.json"))) == 2


@plugin
def test_an_engine_that_was_good_once_passes_the_self_test_again_or_is_not_used(
    folder: Path, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_runs(monkeypatch)

    def fast(self: pick._Measuring) -> list[Trial]:
        return [
            Trial(e.name, e.precision, "", 0.0, True, None, *4 * [0.5 if "bf" in e.name else 1.0])
            for e in table.tried("auto")
        ]

    monkeypatch.setattr(pick._Measuring, "trials", fast)
    served = load(folder, "auto", WIDE)
    assert served.provider == "OpenVINOExecutionProvider"
    monkeypatch.setattr(
        pick, "accuracy", lambda *_, **__: pick.Accuracy(0.5, within_atol=False, changed=None)
    )
    served = load(folder, "auto", WIDE)
    assert served.provider == "CPUExecutionProvider"
    row = next(row for row in served.engines if "bf" in row.trial.engine)
    assert row.why == "not now: error 5.0e-01, allowed 5.0e-02 (--max-error)"
    assert [row.chosen for row in served.engines].count(True) == 1


@plugin
def test_a_server_tells_which_engine_serves(folder: Path, tmp_path: Path) -> None:
    """In its metadata, and through a reload; it drains as ever."""
    command = [
        sys.executable, "-m", "service", "--models", str(folder.parents[1]), "--port", "0",
        "--provider", "openvino", "--max-error", "0.05", "--watch-interval-ms", "100",
        "--provider-cache", str(tmp_path / "choices"),
    ]  # fmt: skip
    x = np.ones((2, 3, 24, 24), np.float32)
    with serving(command) as url:

        def told(path: str, body: object = None) -> dict[str, object]:
            data = None if body is None else json.dumps(body).encode()
            head = {"content-type": "application/json"}
            asked = urllib.request.Request(f"{url}/{path}", data, head)
            with urllib.request.urlopen(asked, timeout=60) as answer:
                found = json.load(answer)
            assert isinstance(found, dict)
            return found

        for version in (1, 2):
            if version == 2:
                made = convolutions(seed=2)
                publish(folder.parents[1], "conv", made, 2, test={"x": X}, batch_invariant=True)
            end = time.monotonic() + 120
            while (about := told("models/conv"))["version"] != version:
                assert time.monotonic() < end, about
                time.sleep(0.1)
            assert about["provider"] == "OpenVINOExecutionProvider"
            assert sum(row["chosen"] for row in about["engines"]) == 1
            outputs = told("models/conv/predict", {"inputs": {"x": x.tolist()}})["outputs"]
            expected = reference(convolutions(seed=0 if version == 1 else 2), {"x": x})["scores"]
            off = np.abs(np.array(outputs["scores"]) - expected).max()
            assert off <= 0.05 * np.abs(expected).max()


def test_a_short_run_is_left_to_onnxruntime(tmp_path: Path, load: Load) -> None:
    x = {"x": np.ones((2, 4), np.float32)}
    served = load(publish(tmp_path, "m", linear(), test=x, batch_invariant=True), "auto")
    (row,) = served.engines
    assert (row.trial.engine, row.chosen) == ("onnxruntime", True)
    assert row.why == "a run is shorter than the way to a thread and back"


def test_without_a_self_test_there_is_no_choice(tmp_path: Path, load: Load) -> None:
    folder = publish(tmp_path, "m", linear())
    assert load(folder, "auto").engines[0].why.startswith("no self-test")
    with pytest.raises(Rejected, match="--provider openvino: no self-test tells how far off"):
        load(folder, "openvino")


def test_without_being_asked_nothing_is_tried(folder: Path) -> None:
    served = model.load(folder, "conv", 1, CPU, 2, 256)
    served.batcher.close(5)
    assert served.engines == ()
    assert served.describe()["engines"] == []
    assert served.provider == "CPUExecutionProvider"


def test_an_engine_that_is_not_installed_is_told(
    folder: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_runs(monkeypatch)
    monkeypatch.setattr(openvino, "find_spec", lambda _: None)
    served = load(folder, "auto", WIDE)
    whys = [row.why for row in served.engines if row.trial.engine.startswith("openvino")]
    assert whys == 3 * ["not installed (pip install 'foldserve[openvino]')"]
    with pytest.raises(CannotStart, match="--provider openvino: not installed"):
        assembly.engines(parse(["--provider", "openvino"], {}), CPU)


def test_what_cannot_be_asked_for_is_a_sentence() -> None:
    cuda = Choice("cuda", [(device.CUDA, {})])
    with pytest.raises(CannotStart, match="--provider auto is for CPUs"):
        assembly.engines(parse(["--provider", "auto"], {}), cuda)
    with pytest.raises(CannotStart, match="add --provider auto"):
        assembly.engines(parse(["--max-error", "0.01"], {}), CPU)
    with pytest.raises(SettingsError, match=r"--max-error='2' cannot be used: it must be 'labels'"):
        parse(["--max-error", "2"], {})
    asked = assembly.engines(parse(["--provider", "auto", "--max-error", "labels"], {}), CPU)
    assert asked is not None
    assert asked.allowed == Budget(labels=True, whose="--max-error")
    assert assembly.engines(parse([], {}), CPU) is None


def test_the_manifest_states_a_budget_or_does_not_mention_it() -> None:
    assert SelfTest(atol={}).model_dump() == {"file": "selftest.npz", "atol": {}}
    for stated in (0.01, "labels"):
        written = SelfTest(atol={}, max_error=stated).model_dump_json()
        assert SelfTest.model_validate_json(written).max_error == stated
    with pytest.raises(ValueError, match="max_error"):
        SelfTest.model_validate({"atol": {}, "max_error": "label"})


# How far off an engine is.

TRUTH = np.array([[1.0, -4.0], [2.0, 3.0]])
DATA = SelfTestData({"x": np.zeros((2, 1), np.float32)}, {"y": TRUTH}, {"y": 0.1})


def answers(y: np.ndarray) -> Callable[[Tensors], Tensors]:
    return lambda inputs: {"y": y[: len(inputs["x"])]}


def test_the_error_is_relative_to_the_largest_output() -> None:
    how = accuracy(answers(TRUTH + np.array([[0.0, 0.02], [0.0, 0.0]])), DATA, "y", by_rows=True)
    assert how.error == pytest.approx(0.02 / 4)
    assert how.each == {"y": pytest.approx(0.02)}
    assert (how.within_atol, how.changed) == (True, 0)


def test_a_row_alone_is_looked_at_as_well() -> None:
    """Another number of rows is another kernel."""

    def odd(inputs: Tensors) -> Tensors:
        return {"y": TRUTH if len(inputs["x"]) == 2 else TRUTH[:1] + 1}

    assert accuracy(odd, DATA, None, by_rows=False).error == 0
    assert accuracy(odd, DATA, None, by_rows=True).error == pytest.approx(0.25)


@pytest.mark.parametrize(
    "y", [TRUTH[:, :1], np.full((2, 2), np.nan), np.array([[1, -4], [2, np.inf]])]
)
def test_what_is_no_answer_is_infinitely_far_off(y: np.ndarray) -> None:
    assert accuracy(answers(y), DATA, None, by_rows=False).error == math.inf


def test_labels_that_change_are_counted() -> None:
    assert accuracy(answers(TRUTH[:, ::-1]), DATA, "y", by_rows=False).changed == 2
    assert accuracy(answers(TRUTH), DATA, None, by_rows=False).changed is None


def test_outputs_that_are_not_floats_must_be_equal() -> None:
    data = SelfTestData({"x": np.zeros((2, 1))}, {"y": np.array([1, 2])}, {})
    assert accuracy(answers(np.array([1, 2])), data, None, by_rows=False).error == 0
    assert accuracy(answers(np.array([1, 3])), data, None, by_rows=False).error == math.inf


# What is remembered.

TRIALS = [Trial("onnxruntime", "as the file", "", 1e-7, True, 0, 2.0, 1.0, 1.0, 1.0)]
TRIALS.append(Trial("other", "float32", "not installed"))


def test_what_is_kept_is_recalled(tmp_path: Path) -> None:
    memory.keep(tmp_path / "new" / "folder", "k", TRIALS)
    assert memory.recall(tmp_path / "new" / "folder", "k") == TRIALS
    assert memory.recall(tmp_path, "k") is None
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["k.json"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"trials": []}', '{"trials": [{"engine": 1, "precision": "x"}]}',
     '{"trials": [{"engine": "a", "precision": "x", "new": 1}]}', '{"trials": 5}', "[" * 60_000,
     '{"trials": [{"engine": "a", "precision": "x", "error": "0"}]}'],
)  # fmt: skip
def test_what_cannot_be_read_is_as_good_as_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "k.json").write_text(text)
    assert memory.recall(tmp_path, "k") is None


def test_a_folder_that_cannot_be_written_is_not_missed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    memory.keep(tmp_path / "file", "k", TRIALS)
    with memory.alone(tmp_path / "file"):
        assert memory.recall(tmp_path / "file", "k") is None


def test_there_is_an_end_to_what_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_MOST_FILES", 3)
    for i in range(5):
        memory.keep(tmp_path, str(i), TRIALS)
        os.utime(tmp_path / f"{i}.json", (i, i))
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["2", "3", "4"]


def test_the_key_is_of_all_that_the_choice_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [
        memory.key({"model.onnx": "a"}, {"cpus": 2}),
        memory.key({"model.onnx": "b"}, {"cpus": 2}),
    ]
    keys.append(memory.key({"model.onnx": "a"}, {"cpus": 4}))
    monkeypatch.setattr(memory, "_machine", lambda: ["another"])
    keys.append(memory.key({"model.onnx": "a"}, {"cpus": 2}))
    monkeypatch.setattr(memory, "_versions", lambda: {"onnxruntime": "0"})
    keys.append(memory.key({"model.onnx": "a"}, {"cpus": 2}))
    assert len(set(keys)) == 5


def test_who_measures_is_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one waits for the first, and not for ever."""
    monkeypatch.setattr(memory, "_LONGEST_WAIT_S", 0.0)
    fcntl = pytest.importorskip("fcntl")
    with memory.alone(tmp_path), memory.alone(tmp_path):
        assert (tmp_path / "lock").is_file()
    monkeypatch.setattr(memory, "_LONGEST_WAIT_S", 60.0)
    with (
        memory.alone(tmp_path),
        (tmp_path / "lock").open() as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_strings_need_no_engine(tmp_path: Path, load: Load) -> None:
    """What no engine but onnxruntime takes goes on being served by it."""
    made = elementwise("Identity", TensorProto.STRING)
    folder = publish(tmp_path, "text", made, test={"x": np.array([["a", "b"]], object)})
    assert load(folder, "auto").provider == "CPUExecutionProvider"

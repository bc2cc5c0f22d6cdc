"""The command line: what it writes, what it prints, and its exit codes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.cli import main
from converter.folding.ops import conv
from service.manifest import Manifest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
CHECKPOINT = ROOT / "models" / "mnist" / "checkpoint.pt"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """x (batch, 3, 8, 8) -> conv1 -> bn1 -> Relu -> bn2 -> y: one folds, one stays."""
    rng = np.random.default_rng(7)
    weights = {
        "conv1.weight": rng.normal(size=(4, 3, 3, 3)),
        **{
            f"{name}.{part}": values
            for name in ("bn1", "bn2")
            for part, values in {
                "weight": rng.uniform(-1.5, 1.5, 4),
                "bias": rng.normal(size=4),
                "running_mean": rng.normal(size=4),
                "running_var": rng.uniform(0.3, 2, 4),
            }.items()
        },
    }
    parts = ("weight", "bias", "running_mean", "running_var")
    nodes = [
        helper.make_node("Conv", ["x", "conv1.weight"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", *(f"bn1.{p}" for p in parts)], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *(f"bn2.{p}" for p in parts)], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, 8, 8])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "net.onnx"
    onnx.save(proto, path)
    return path


def names(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_fold_writes_beside_the_input_and_says_what_it_did(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fold", str(model)]) == 0
    assert names(model.with_name("net.folded.onnx")) == ["Conv", "Relu", "BatchNormalization"]
    out = capsys.readouterr().out
    assert "backward into Conv conv1" in out
    assert "Relu" in out
    assert "1 of 2 batch-norms folded" in out
    assert "Proven" in out
    assert sorted(path.name for path in model.parent.iterdir()) == ["net.folded.onnx", "net.onnx"]


def test_the_report_for_programs(model: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    assert (
        main(["fold", str(model), "--output", str(tmp_path / "o.onnx"), "--json", str(report)]) == 0
    )
    found = json.loads(report.read_text())
    assert found["format"] == "foldserve.report/1"
    first, second = found["plan"]["decisions"]
    assert (first["name"], first["folded"], first["into"]) == ("bn1", True, ["Conv conv1"])
    assert (second["name"], second["folded"], second["code"]) == ("bn2", False, "not-linear")
    assert found["proof"]["passed"]
    assert {m["inputs"] for m in found["proof"]["measurements"]} == {
        "batch 1",
        "batch 2",
        "batch 5",
    }
    assert all(m["error_folded"] <= m["allowed"] for m in found["proof"]["measurements"])
    assert found["proof"]["batch_invariance"]["holds"]
    assert found["before"]["batchnorms"] == 2
    assert found["after"]["batchnorms"] == 1
    assert found["before"]["bytes"] == pytest.approx(model.stat().st_size, abs=2000)
    assert found["after"]["bytes"] == (tmp_path / "o.onnx").stat().st_size
    assert found["written"] == [str(tmp_path / "o.onnx")]


def test_a_wrong_fold_is_not_written(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = conv.AFTER

    def wrong(constants, affine):  # type: ignore[no-untyped-def]
        right.apply(constants, affine)
        constants[1] = constants[1] * 1.001

    monkeypatch.setattr(conv, "AFTER", replace(right, apply=wrong))
    target = model.parent / "models" / "net"
    assert main(["fold", str(model), "--publish", str(target), "--output", f"{model}.out"]) == 1
    assert "Nothing was written" in capsys.readouterr().out
    assert [path.name for path in model.parent.iterdir()] == ["net.onnx"]


def test_inspect_changes_nothing(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(model)]) == 0
    assert "backward into Conv conv1" in capsys.readouterr().out
    assert [path.name for path in model.parent.iterdir()] == ["net.onnx"]


def test_only_and_skip(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fold", str(model), "--skip", "bn1"]) == 0
    assert "0 of 2 batch-norms folded" in capsys.readouterr().out
    assert main(["inspect", str(model), "--only", "nothing*"]) == 2
    assert "no batch-norm is named like 'nothing*'" in capsys.readouterr().err


def test_through_relu(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """bn2 stands behind a Relu: told that it would fold, and folded when asked to."""
    assert main(["inspect", str(model)]) == 0
    assert "--through-relu" in " ".join(capsys.readouterr().out.split())
    assert main(["inspect", str(model), "--through-relu"]) == 0
    assert main(["fold", str(model), "--through-relu"]) == 0
    assert "2 of 2 batch-norms folded" in capsys.readouterr().out


def test_verify(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folded = tmp_path / "net.folded.onnx"
    data = tmp_path / "data.npz"
    np.savez(data, x=np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32))
    assert main(["fold", str(model)]) == 0
    assert main(["verify", str(model), str(folded), "--data", str(data)]) == 0
    assert "your data, 3 rows" in capsys.readouterr().out
    proto = onnx.load(folded)
    bias = next(t for t in proto.graph.initializer if t.name == "conv1.bias")
    bias.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1e-3), bias.name)
    )
    onnx.save(proto, folded)
    assert main(["verify", str(model), str(folded)]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_bench(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fold", str(model)]) == 0
    folded, report = str(tmp_path / "net.folded.onnx"), tmp_path / "bench.json"
    options = ["--rounds", "4", "--batch", "1", "--batch", "3", "--json", str(report)]
    assert main(["bench", str(model), folded, *options]) == 0
    assert "times as fast" in capsys.readouterr().out
    first, second = json.loads(report.read_text())["comparisons"]
    assert (first["batch"], second["batch"]) == (1, 3)
    assert len(first["a_seconds"]) == len(first["b_seconds"]) == 4
    pairs = zip(second["a_seconds"], second["b_seconds"], strict=True)
    assert second["ratio"] == pytest.approx(np.median([a / b for a, b in pairs]))


def test_publish_counts_versions(model: Path) -> None:
    target = model.parent / "models" / "net"
    for version in (1, 2):
        assert main(["fold", str(model), "--publish", str(target)]) == 0
        manifest = Manifest.model_validate_json((target / str(version) / "model.json").read_bytes())
        assert (manifest.name, manifest.version) == ("net", version)
        assert manifest.batch_invariant
    assert main(["fold", str(model), "--publish", str(target), "--if-changed"]) == 0
    assert sorted(path.name for path in target.iterdir()) == ["1", "2"]
    assert not model.with_name("net.folded.onnx").exists()


@pytest.mark.slow
def test_labels_make_a_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"digit {i}" for i in range(10)))
    target = tmp_path / "models" / "digits"
    arguments = ["fold", str(CHECKPOINT), "--labels", str(labels), "--publish", str(target)]
    assert main(arguments) == 0
    manifest = Manifest.model_validate_json((target / "1" / "model.json").read_bytes())
    assert manifest.classification is not None
    assert manifest.classification.labels[3] == "digit 3"
    labels.write_text("only one\n")
    assert main(arguments) == 2
    assert "has 1 labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fold", "{tmp}/missing.pt"], "missing.pt"),
        (["fold", "{model}", "--output", "{model}"], "is the input"),
        (["fold", "{model}", "--output", "{tmp}/no/such/folder.onnx"], "does not exist"),
        (["fold", "{model}", "--if-changed"], "--if-changed goes with --publish"),
        (["fold", "{model}", "--data", "{model}"], "cannot be read as arrays"),
        (["fold", "{model}", "--publish", "{tmp}/models/bad name"], "is not a name for a model"),
        (["fold", "{model}", "--publish", "{model}/x"], "cannot publish"),
        (["fold", "{model}", "--input-shape", "3,x,8"], "3,x,8"),
        (["fold", "{model}", "--arch-arg", "novalue"], "novalue"),
        (["verify", "{model}", str(CHECKPOINT)], "verify compares two ONNX files"),
        (["bench", "{model}", str(CHECKPOINT)], "bench compares two ONNX files"),
        (["bench", "{model}", "{model}", "--rounds", "1"], 'invalid value "1" for --rounds'),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_get_a_sentence_and_exit_code_2(
    model: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [text.format(model=model, tmp=model.parent) for text in arguments]
    assert main(filled) == 2
    err = capsys.readouterr().err
    assert any(line.startswith("error: ") for line in err.splitlines())
    assert message in err
    assert "Traceback" not in err
    assert {path.name for path in model.parent.iterdir()} <= {"net.onnx", "models"}


def test_as_a_program(model: Path) -> None:
    def converter(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "converter", *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )

    assert converter().returncode == 2
    unknown = converter("fold", str(model), "--no-such-option")
    assert unknown.returncode == 2
    assert "--no-such-option" in unknown.stderr
    folded = converter("fold", str(model))
    assert folded.returncode == 0, folded.stderr
    assert "Proven" in folded.stdout


def test_not_enough_memory(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input may claim any size: a sentence, not a traceback."""

    def draw(*_: object) -> None:
        raise MemoryError("Unable to allocate 7.28 TiB")

    monkeypatch.setattr("converter.proof.examples.random_feeds", draw)
    assert main(["fold", str(model)]) == 2
    said = capsys.readouterr().err
    assert "there is not enough memory: Unable to allocate 7.28 TiB" in said
    assert "--input-shape" in said


@pytest.mark.parametrize("when", ["converter.cli.import_module", "converter.commands.fold.run"])
def test_an_interrupt_is_a_word(
    when: str, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At work, and before, while torch is imported."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(when, interrupt)
    assert main(["fold", str(model)]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_console_that_cannot_be_written_to(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fold model.pt > /full/disk/log.txt`: a sentence, not a traceback."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("converter.commands.fold.show_source", full)
    assert main(["fold", str(model)]) == 2
    assert "error: the system refused: No space left on device." in capsys.readouterr().err


def test_a_folder_of_models_is_no_place_for_a_version(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Known before the work: `--publish models` in place of `--publish models/net`."""
    models = tmp_path / "models"
    assert main(["fold", str(model), "--publish", str(models / "net")]) == 0
    assert main(["fold", str(model), "--publish", str(models / "net")]) == 0
    assert (models / "net" / "2").is_dir()
    capsys.readouterr()
    for folder, said in (
        (models, "holds models, such as net"),
        (tmp_path / "a b", "'a b' is not a name for a model"),
    ):
        assert main(["fold", str(model), "--publish", str(folder)]) == 2
        told = capsys.readouterr()
        assert said in told.err
        assert told.out == ""
    assert [path.name for path in models.iterdir()] == ["net"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data", "none.npz"], "there is no file none.npz"),
        (["--labels", "none.txt"], "there is no file none.txt"),
        (["--json", "."], ". is a folder"),
    ],
)
def test_mistakes_are_known_before_the_work(
    flags: list[str],
    said: str,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(model.parent)
    assert main(["fold", str(model), *flags]) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""


def test_an_architecture_that_is_not_used_is_said(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(model), "--arch", "timm:resnet18"]) == 0
    assert "--arch timm:resnet18 is not used" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("Foldserve ")


def test_help_names_the_program_that_was_called(capsys: pytest.CaptureFixture[str]) -> None:
    for program in ("python -m converter", "foldserve"):
        assert main(["fold", "--help"], prog=program) == 0
        assert f"{program} fold" in capsys.readouterr().out


def test_a_report_says_the_command_that_was_typed(model: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    words = ["inspect", str(model), "--json", str(report)]
    assert main(words, prog="foldserve") == 0
    assert (
        json.loads(report.read_text())["provenance"]["command"] == f"foldserve {shlex.join(words)}"
    )


def test_a_reader_that_leaves(model: Path) -> None:
    """`fold ... | head`: the work goes on, the file is there, and the exit code is the result's."""
    with subprocess.Popen(
        [sys.executable, "-m", "converter", "fold", str(model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read().decode()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "Error" not in said
    assert model.with_suffix(".folded.onnx").is_file()

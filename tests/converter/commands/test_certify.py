"""`verify --certify`: what it says, in which exit code it ends, and what it never imports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from converter.cli import main, parser
from converter.commands.options.verify import Verify
from converter.commands.parsing import parsed
from patterns.graphs import Graph

ROOT = Path(__file__).parents[3]
HEAVY = {"torch", "onnxruntime", "onnxscript", "keras", "converter.folding"}
Change = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two batch-norms, and the file that `fold` makes of them."""
    g = Graph("float32")
    x = g.input("x", "N", 3, 8, 8)
    y = g.op("Relu", g.bn(g.op("Conv", x, g.weight(4, 3, 3, 3), pads=[1, 1, 1, 1]), 4))
    y = g.bn(g.op("Conv", y, g.weight(4, 4, 3, 3), strides=[2, 2]), 4)
    g.output(g.op("Relu", y), shape=["N", 4, 3, 3])
    a = tmp_path_factory.mktemp("certify") / "a.onnx"
    b = a.with_name("b.onnx")
    onnx.save(g.proto(), a)
    assert main(["fold", str(a), "-o", str(b)]) == 0
    return a, b


def altered(path: Path, place: Path, change: Change) -> Path:
    proto = onnx.load(path)
    change(proto)
    onnx.save(proto, place)
    return place


def move_a_weight(proto: onnx.ModelProto) -> None:
    """One number of the second convolution, that of output channel 2."""
    name = [node.input[1] for node in proto.graph.node if node.op_type == "Conv"][1]
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    numbers = numpy_helper.to_array(tensor).copy()
    numbers[2, 1, 0, 0] *= np.float32(1 + 1e-3)
    tensor.CopyFrom(numpy_helper.from_array(numbers, name))


def other_strides(proto: onnx.ModelProto) -> None:
    """The result keeps its shape: of eight rows, three windows three apart fit as well."""
    conv = [node for node in proto.graph.node if node.op_type == "Conv"][1]
    del conv.attribute[:]
    conv.attribute.append(helper.make_attribute("strides", [3, 3]))
    conv.attribute.append(helper.make_attribute("pads", [1, 1, 1, 1]))


def report(code: int, *words: str | Path, place: Path) -> dict[str, Any]:
    assert main(["verify", *map(str, words), "--json", str(place / "r.json")]) == code
    found: dict[str, Any] = json.loads((place / "r.json").read_text(encoding="utf-8"))
    return found


def test_a_folded_pair_is_measured_and_certified(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = report(0, *pair, "--certify", place=tmp_path)
    assert found["proof"]["verdict"] == "equal"
    certificate = found["certificate"]
    assert certificate["certified"]
    assert certificate["where"] is None
    figures = certificate["figures"]
    assert (
        figures["weights"] == 4 * 3 * 9 + 4 * 4 * 9
    )  # and no biases: they are moved once, at Relu
    assert 0 < figures["largest_move"] <= figures["roundings"] == 3
    assert len({sizes["N"] for sizes in figures["sizes"]}) >= 2
    out = capsys.readouterr().out
    assert "Proven: B equals A, for every input and as measured." in out
    assert f"{certificate['sentence'][:-1]}; {certificate['seconds']:.1f} s.\n" in out
    words = "Certified for every input: 2 of 2 batch-norms; 252 weights, none moved by more than "
    assert certificate["sentence"].startswith(words)


def test_without_the_option_nothing_is_said_of_it(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "certificate" not in report(0, *pair, place=tmp_path)
    assert "ertified" not in capsys.readouterr().out


def test_certify_only_does_not_measure(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = report(0, *pair, "--certify=only", place=tmp_path)
    assert set(found) == {"format", "original", "candidate", "certificate"}
    out = capsys.readouterr().out
    assert out.startswith("Certified for every input: ")
    assert "float64" not in out


def test_a_published_certificate_can_be_checked_again(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """The hashes of the graphs are those that model.json has; another weight gives another one."""
    a, b = pair
    target = tmp_path / "models" / "net"
    assert main(["fold", str(a), "--publish", str(target)]) == 0
    manifest = json.loads((target / "1" / "model.json").read_text(encoding="utf-8"))
    held = manifest["provenance"]["certificate"]
    published = {"original": held["original"]["graph"], "candidate": held["folded"]["graph"]}
    for how in ("--certify=only", "--certify"):
        found = report(0, a, target / "1" / "model.onnx", how, place=tmp_path)["certificate"]
        assert found["graphs"] == published
        assert found["sentence"] == held["sentence"]
    wrong = altered(b, tmp_path / "wrong.onnx", move_a_weight)
    graphs = report(3, a, wrong, "--certify=only", place=tmp_path)["certificate"]["graphs"]
    assert graphs["original"] == published["original"]
    assert graphs["candidate"] != published["candidate"]


def test_a_moved_weight_is_named(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = pair
    wrong = altered(b, tmp_path / "wrong.onnx", move_a_weight)
    certificate = report(3, a, wrong, "--certify=only", place=tmp_path)["certificate"]
    assert not certificate["certified"]
    assert certificate["figures"] is None
    where = certificate["where"]
    conv = [node for node in onnx.load(wrong).graph.node if node.op_type == "Conv"][1]
    assert (where["value"], where["op"], where["channel"]) == (conv.output[0], "Conv", 2)
    assert where["found"] / where["expected"] == pytest.approx(1 + 1e-3, rel=1e-5)
    out = capsys.readouterr().out
    assert out.startswith(f"Not certified: {conv.output[0]!r}, a Conv, has no equal")
    assert "in channel 2" in out
    assert out == f"{certificate['sentence']}\n"  # one line, however long, in a log
    # Measured, the verdict is that of the measurement, as without a certificate.
    found = report(1, a, wrong, "--certify", place=tmp_path)
    assert found["proof"]["verdict"] == "differs"
    assert not found["certificate"]["certified"]
    assert "Not proven: B differs." in capsys.readouterr().out


def test_other_strides_are_not_certified(pair: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = pair
    wrong = altered(b, tmp_path / "wrong.onnx", other_strides)
    certificate = report(3, a, wrong, "--certify=only", place=tmp_path)["certificate"]
    assert certificate["where"]["op"] == "Conv"


def test_what_cannot_be_certified_does_not_fail_what_is_measured(tmp_path: Path) -> None:
    """The same numbers by another op, of which nothing is known here."""
    paths = []
    for name in ("a", "b"):
        g = Graph("float32")
        y = g.input("x", "N", 4)
        y = g.op("Tanh", y) if name == "a" else g.op("Neg", g.op("Tanh", g.op("Neg", y)))
        g.output(y, shape=["N", 4])
        paths.append(tmp_path / f"{name}.onnx")
        onnx.save(g.proto(), paths[-1])
    _rename_the_output(*paths)
    found = report(0, *paths, "--certify", place=tmp_path)
    assert found["proof"]["verdict"] == "equal"
    assert not found["certificate"]["certified"]
    report(3, *paths, "--certify=only", place=tmp_path)


def _rename_the_output(a: Path, b: Path) -> None:
    name = onnx.load(a).graph.output[0].name
    proto = onnx.load(b)
    old = proto.graph.output[0].name
    proto.graph.output[0].name = name
    for node in proto.graph.node:
        for index, output in enumerate(node.output):
            if output == old:
                node.output[index] = name
    onnx.save(proto, b)


def test_a_file_and_itself(pair: tuple[Path, Path], tmp_path: Path) -> None:
    figures = report(0, pair[0], pair[0], "--certify=only", place=tmp_path)["certificate"][
        "figures"
    ]
    assert figures["largest_move"] < 1e-5  # what the checker's own arithmetic rounds


def test_what_onnxruntimes_optimizer_made(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """No plan of a fold is needed: its optimizer fuses the batch-norms into the convolutions."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(pair[0]), options, providers=["CPUExecutionProvider"])
    optimized = tmp_path / "optimized.onnx"
    assert "BatchNormalization" not in {n.op_type for n in onnx.load(optimized).graph.node}
    report(0, pair[0], optimized, "--certify=only", place=tmp_path)
    wrong = altered(optimized, tmp_path / "wrong.onnx", move_a_weight)
    report(3, pair[0], wrong, "--certify=only", place=tmp_path)


def test_large_weights_beside_the_file(tmp_path: Path) -> None:
    """They are found, and one that moved is, too."""
    g = Graph("float32")
    y = g.bn(g.op("Conv", g.input("x", "N", 64, 4, 4), g.weight(64, 64, 3, 3)), 64)
    g.output(y, shape=["N", 64, 2, 2])
    a, b, outside = (tmp_path / f"{name}.onnx" for name in ("a", "b", "outside"))
    onnx.save(g.proto(), a)
    assert main(["fold", str(a), "-o", str(b)]) == 0
    onnx.save(onnx.load(b), outside, save_as_external_data=True, location="outside.bin")
    assert (tmp_path / "outside.bin").stat().st_size >= 64 * 64 * 9 * 4
    report(0, a, outside, "--certify=only", place=tmp_path)
    with (tmp_path / "outside.bin").open("r+b") as file:
        numbers = np.frombuffer(file.read(64 * 64 * 9 * 4), np.float32).copy()
        numbers[7 * 64 * 9] += np.float32(0.1)
        file.seek(0)
        file.write(numbers.tobytes())
    where = report(3, a, outside, "--certify=only", place=tmp_path)["certificate"]["where"]
    assert where["channel"] == 7


def test_certify_only_imports_neither_torch_nor_a_runtime(pair: tuple[Path, Path]) -> None:
    program = (
        "import sys; from converter.cli import main; code = main(sys.argv[1:]);"
        f"heavy = {HEAVY!r} & sys.modules.keys(); assert not heavy, heavy; sys.exit(code)"
    )
    words = ["verify", *map(str, pair), "--certify=only"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Certified for every input: ")


def _truncated(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def _claims_too_much(content: bytes) -> bytes:
    proto = onnx.ModelProto.FromString(content)
    proto.graph.initializer[0].dims[0] = 1 << 40
    return proto.SerializeToString()


def _reads_elsewhere(content: bytes) -> bytes:
    proto = onnx.ModelProto.FromString(content)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../../etc/passwd"
    return proto.SerializeToString()


@pytest.mark.parametrize(
    "damage",
    [
        _truncated,
        _claims_too_much,
        _reads_elsewhere,
        lambda _: b"",
        lambda _: b"<html>not found</html>",
        lambda _: bytes(range(256)),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("option", ["--certify", "--certify=only"])
def test_a_damaged_file_ends_in_a_sentence(
    damage: Callable[[bytes], bytes],
    place: int,
    option: str,
    pair: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = list(pair)
    files[place] = tmp_path / "damaged.onnx"
    files[place].write_bytes(damage(pair[place].read_bytes()))
    json = tmp_path / "r.json"
    assert main(["verify", *map(str, files), option, "--json", str(json)]) == 2
    err = capsys.readouterr().err
    assert "\nerror: " in err
    assert str(files[place]) in err
    assert "Traceback" not in err
    assert not json.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{a}", "{a}.missing", "--certify=only"], "there is no file"),
        (["{a}", "{npz}", "--certify=only"], "verify compares two ONNX files"),
        (["{a}", "{b}", "--certify=only", "--data", "{npz}"], "measures nothing"),
        (["{a}", "{b}", "--certify=only", "--input-shape", "3,8,8"], "measures nothing"),
        (["{a}", "{b}", "--certify=only", "--seed", "3"], "measures nothing"),
        (["{a}", "{b}", "--certify=onyl"], 'invalid value "onyl" for --certify'),
    ],
)
def test_mistakes(
    words: list[str],
    message: str,
    pair: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    npz = tmp_path / "x.npz"
    np.savez(npz, x=np.zeros((2, 3, 8, 8), np.float32))
    filled = [word.format(a=pair[0], b=pair[1], npz=npz) for word in words]
    assert main(["verify", *filled]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "certify"),
    [
        (["a", "b"], False),
        (["a", "b", "--certify"], True),
        (["--certify", "a", "b"], True),
        (["a", "--certify", "b"], True),
        (["--certify=only", "a", "b"], "only"),
        (["a", "b", "--certify=only", "--seed", "3"], "only"),
    ],
)
def test_where_the_option_may_stand(words: list[str], certify: bool | str) -> None:
    asked = parsed(parser(), ["verify", *words])
    assert isinstance(asked, Verify)
    assert (asked.certify, asked.original, asked.candidate) == (certify, Path("a"), Path("b"))


def test_outputs_that_are_left_out_are_not_certified(tmp_path: Path) -> None:
    """A sequence beside a tensor: what is measured leaves it out, and a certificate would not be
    one for every output."""
    g = Graph("float32")
    x = g.input("x", "N", 4)
    g.output(g.op("Relu", x), shape=["N", 4])
    proto = g.proto()
    proto.graph.node.append(helper.make_node("SequenceConstruct", ["x"], ["many"]))
    proto.graph.output.append(
        helper.make_tensor_sequence_value_info("many", onnx.TensorProto.FLOAT, ["N", 4])
    )
    path = tmp_path / "a.onnx"
    onnx.save(proto, path)
    sentence = report(3, path, path, "--certify=only", place=tmp_path)["certificate"]["sentence"]
    assert "nothing is known of the output 'many'" in sentence


def test_more_roundings_may_be_allowed(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A weight that is six roundings off is not certified with 3, and is with 8."""

    def move(proto: onnx.ModelProto) -> None:
        name = [node.input[1] for node in proto.graph.node if node.op_type == "Conv"][1]
        tensor = next(t for t in proto.graph.initializer if t.name == name)
        numbers = numpy_helper.to_array(tensor).copy()
        numbers[2, 1, 0, 0] *= np.float32(1 + 6 * 2.0**-24)
        tensor.CopyFrom(numpy_helper.from_array(numbers, name))

    a, b = pair
    moved = altered(b, tmp_path / "moved.onnx", move)
    words = ["verify", str(a), str(moved), "--certify=only"]
    assert main(words) == 3
    assert "3 are allowed" in capsys.readouterr().out
    assert main([*words, "--roundings", "8", "--json", str(tmp_path / "r.json")]) == 0
    figures = json.loads((tmp_path / "r.json").read_text())["certificate"]["figures"]
    assert figures["roundings"] == 8
    assert 3 < figures["largest_move"] <= 8


@pytest.mark.parametrize("given", [["--roundings", "8"], ["--certify", "--roundings", "1e9"]])
def test_roundings_that_cannot_be_meant(
    pair: tuple[Path, Path], given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", *map(str, pair), *given]) == 2
    assert "roundings" in capsys.readouterr().err

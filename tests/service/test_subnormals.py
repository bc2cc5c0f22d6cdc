"""What a server computes with numbers too small to be normal is zero; elsewhere it is left alone.

The mode belongs to threads and has no way back, so each of these runs in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.service.repository import graph, publish, value
from tests.serving import serving

# Its square is 1e-40, of which float32 has only the subnormal neighbours.
SMALL = 1e-20


def squares(*, product: bool = False) -> onnx.ModelProto:
    """y = x * x of shape (batch, 4); with `product`, by a matrix product with 1 as well."""
    nodes = [helper.make_node("Mul", ["x", "x"], ["square" if product else "y"])]
    if product:
        nodes.append(helper.make_node("MatMul", ["square", "I"], ["y"]))
    x, y = (value(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy")
    return graph(nodes, [x], [y], {"I": np.eye(4, dtype=np.float32)} if product else {})


def says(code: str, *words: str) -> list[object]:
    """What a new process prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *words],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


PRELUDE = """
import json, sys, threading
from pathlib import Path
import numpy as np
from service.device import choose
from service.models import subnormals
from service.models.runtime import Runtime

def answer(threads=1, rows=1):
    made = Runtime(Path(sys.argv[1]), choose("cpu"), threads)
    return float(made.run({"x": np.full((rows, 4), 1e-20, np.float32)})["y"].max())

def of_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]
"""


def test_all_threads_that_come_after_compute_them_as_zero(tmp_path: Path) -> None:
    file = publish(tmp_path, "m", squares()) / "model.onnx"
    many = publish(tmp_path, "many", squares(product=True)) / "model.onnx"
    code = PRELUDE + (
        "print(json.dumps([subnormals.flush(), answer(), of_thread(answer),"
        " answer(2, 4096), of_thread(lambda: answer(2, 4096)), of_thread(subnormals.flushed)]))"
    )
    for path in (file, many):
        assert says(code, str(path)) == [True, 0.0, 0.0, 0.0, 0.0, True]


def test_without_being_asked_they_are_kept(tmp_path: Path) -> None:
    file = publish(tmp_path, "m", squares()) / "model.onnx"
    code = PRELUDE + "print(json.dumps([answer(), of_thread(answer), subnormals.flushed()]))"
    kept, in_thread, flushed = says(code, str(file))
    assert kept == in_thread == pytest.approx(SMALL**2, rel=1e-4)
    assert flushed is False


def test_it_is_told_when_another_session_was_first(tmp_path: Path) -> None:
    """onnxruntime looks at the option once: `flush` must not say what does not hold."""
    file = publish(tmp_path, "m", squares()) / "model.onnx"
    code = PRELUDE + "print(json.dumps([answer() > 0, subnormals.flush(), answer() > 0]))"
    assert says(code, str(file)) == [True, False, True]


def test_a_predictor_leaves_the_arithmetic_of_its_program_alone(tmp_path: Path) -> None:
    publish(tmp_path, "m", squares())
    code = (
        "import json, sys\nfrom foldserve import Predictor\nimport numpy as np\n"
        "with Predictor(sys.argv[1]) as model:\n"
        "    y = model.predict(np.full((1, 4), 1e-20, np.float32))\n"
        "print(json.dumps([float(y.max()) > 0, sys.float_info.min / 2 > 0]))"
    )
    assert says(code, str(tmp_path / "m")) == [True, True]


@pytest.mark.parametrize("flags", [[], ["--runners", "1"], ["--threads", "2"]])
def test_a_server_answers_zero(tmp_path: Path, flags: list[str]) -> None:
    """On the event loop, in a runner, and with threads of a run; its self-test holds."""
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    publish(tmp_path, "m", squares(), test={"x": x}, batch_invariant=True)
    command = [sys.executable, "-m", "service", "--models", str(tmp_path), "--port", "0", *flags]
    with serving(command) as url:
        body = json.dumps({"inputs": {"x": [[SMALL, 2.0, 1e-19, 3.0]]}}).encode()
        head = {"content-type": "application/json"}
        request = urllib.request.Request(f"{url}/predict", body, head)
        with urllib.request.urlopen(request, timeout=30) as answer:
            (row,) = json.load(answer)["outputs"]["y"]
    np.testing.assert_allclose(row, [0.0, 4.0, 0.0, 9.0])


def test_bench_runs_both_files_so_and_only_them(tmp_path: Path) -> None:
    file = publish(tmp_path, "m", squares()) / "model.onnx"
    code = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from converter.commands.latency import compare\n"
        "from converter.sources import LoadOptions, load\n"
        "from service.models.subnormals import flushed\n"
        "path, seen = Path(sys.argv[1]), []\n"
        "inputs = load(path, LoadOptions()).inputs\n"
        "compare(path, path, inputs, [1], rounds=2, progress=lambda _: seen.append(flushed()))\n"
        "print(json.dumps([seen, flushed()]))"
    )
    assert says(code, str(file)) == [[True], False]

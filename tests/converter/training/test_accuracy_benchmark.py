"""benchmarks/accuracy.py against a stand-in that speaks the protocol of `POST /predict`."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from converter.sources import checkpoint

ROOT = Path(__file__).parents[3]
Answer = Callable[[list[list[float]]], Any]  # logits of the batch -> the response's body


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.accuracy")


def right(outputs: list[list[float]]) -> Any:
    found = [row.index(max(row)) for row in outputs]
    predictions = [{"label": str(place), "probability": 0.9, "index": place} for place in found]
    return {"outputs": {"output": outputs}, "predictions": predictions}


def wrong_for_the_first_of_a_batch(outputs: list[list[float]]) -> Any:
    answer = right(outputs)
    answer["predictions"][0]["label"] = str(9 - int(answer["predictions"][0]["label"]))
    return answer


def one_too_few(outputs: list[list[float]]) -> Any:
    answer = right(outputs)
    return answer | {"predictions": answer["predictions"][1:]}


@contextmanager
def serving(weights: Path, answer: Answer) -> Iterator[str]:
    module = checkpoint.read(weights).module()

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with torch.inference_mode():
                outputs = module(torch.tensor(body["inputs"])).tolist()
            reply = json.dumps(answer(outputs)).encode()
            self.send_response(200 if self.path == "/predict" else 404)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Silence."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def words(shipped: Path, subset: Path) -> Iterator[Callable[[Answer], list[str]]]:
    with ExitStack() as servers:

        def start(answer: Answer) -> list[str]:
            url = servers.enter_context(serving(shipped, answer))
            return ["--url", url, "--data-dir", str(subset), "--checkpoint", str(shipped)]

        yield start


def test_equal_answers_are_a_success(
    benchmark: ModuleType,
    words: Callable[[Answer], list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = tmp_path / "figures.json"
    assert benchmark.main([*words(right), "--json", str(report)]) == 0
    figures = json.loads(report.read_text())
    assert figures["images"] == 500
    assert figures["differing"] == 0
    assert figures["service_accuracy"] == figures["torch_accuracy"] >= 0.98
    assert figures["largest_logit_difference"] < 1e-4
    assert "differing predictions      0\n" in capsys.readouterr().out


def test_a_single_difference_in_a_batch_is_a_failure(
    benchmark: ModuleType,
    words: Callable[[Answer], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert benchmark.main([*words(wrong_for_the_first_of_a_batch), "--batch", "250"]) == 1
    assert "differing predictions      2\n" in capsys.readouterr().out


def test_an_answer_that_leaves_an_image_out_is_an_error(
    benchmark: ModuleType,
    words: Callable[[Answer], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert benchmark.main(words(one_too_few)) == 2
    assert "99 predictions of 100 images" in capsys.readouterr().err


def test_nobody_listening_is_an_error(benchmark: ModuleType, shipped: Path, subset: Path) -> None:
    with serving(shipped, right) as gone:
        pass
    words = ["--url", gone, "--data-dir", str(subset), "--checkpoint", str(shipped)]
    assert benchmark.main(words) == 2

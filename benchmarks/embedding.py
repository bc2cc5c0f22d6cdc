"""What it costs to call a model by foldserve and not by onnxruntime itself, in one process.

    python -m benchmarks.embedding                  # the shipped model, 1 and 32 rows
    python -m benchmarks.embedding net.onnx --rows 1 8 --rounds 5000

    raw          session.run with an array that is there, on one thread, without spinning
    predictor    foldserve.Predictor(...).predict of the same array, on one thread as well
    mounted      POST /ml/predict of foldserve.app(...) in a FastAPI application, with the same
                 array as raw bytes in both directions, and as JSON: ASGI calls, without a socket

They take turns, so that whatever else the machine does hits each of them: a round takes each way
twice in a row, of which the second counts (the first finds the processor's caches as another way
left them), in an order that is drawn anew. What is told are the medians, and the median of the
differences of a round, which is what the second costs over the first; all in microseconds. On a
busy machine --clock processor shows the time in which the process was computing, in all of its
threads.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson
from fastapi import FastAPI

import foldserve
from foldserve import Predictor

ROOT = Path(__file__).parents[1]
RAW = "raw"
_WARM_UP = 20

Clock = Callable[[], int]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter_ns, "processor": time.process_time_ns}
Call = Callable[[], object]  # or what it gives is awaited


@dataclass(frozen=True)
class Cost:
    """Of one way: its median, and the quartiles of what it took over the raw call; microseconds."""

    name: str
    median_us: float
    over_us: tuple[float, float, float]

    def line(self) -> str:
        low, middle, high = self.over_us
        return (
            f"{self.name:10} {self.median_us:10.1f} {middle:+10.1f}   ({low:+.1f} to {high:+.1f})"
        )


async def interleaved(
    calls: Mapping[str, Call], rounds: int, clock: Clock = time.perf_counter_ns
) -> dict[str, list[float]]:
    """Microseconds of each call in each round, in the order of the rounds.

    Args:
        calls: what is compared, by name.
        rounds: how often each is called.
        clock: nanoseconds.
    """
    took: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls.items())
    draw = random.Random(0)
    for _ in range(_WARM_UP):
        for call in calls.values():
            await _done(call())
    for _ in range(rounds):
        draw.shuffle(order)
        for name, call in order:
            await _done(call())
            began = clock()
            await _done(call())
            took[name].append((clock() - began) / 1000)
    return took


async def _done(given: Any) -> None:
    if inspect.isawaitable(given):
        await given


def costs(took: Mapping[str, Sequence[float]]) -> list[Cost]:
    """What each way costs, and over the one called `raw`."""
    found = []
    for name, times in took.items():
        over = [one - base for one, base in zip(times, took[RAW], strict=True)]
        low, middle, high = quantiles(over, n=4)
        found.append(Cost(name, median(times), (low, middle, high)))
    return found


def example(predictor: Predictor, rows: int) -> np.ndarray:
    """Random numbers for the only input of a model; open sizes besides the rows are 1."""
    (spec,) = predictor.inputs.values()
    sizes = [dim if isinstance(dim, int) else 1 for dim in spec.shape[1:]]
    return np.random.default_rng(0).standard_normal((rows, *sizes)).astype(spec.dtype)


def session(file: Path) -> ort.InferenceSession:
    """onnxruntime itself, with the threads that the others have."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


async def measure(
    model: Path, rows: int, rounds: int, clock: Clock = time.perf_counter_ns
) -> list[Cost]:
    """What each way costs for so many rows.

    Args:
        model: a model folder, a version folder or an ONNX file.
        rows: of the array.
        rounds: how often each way is taken.
        clock: nanoseconds.
    """
    with tempfile.TemporaryDirectory() as folder, Predictor(model, threads=1) as predictor:
        x = example(predictor, rows)
        (name,) = predictor.inputs
        target = Path(folder) / predictor.name / str(predictor.version)
        file = model if model.is_file() else newest(model) / "model.onnx"
        if model.is_file():
            target.mkdir(parents=True)
            shutil.copy(model, target / "model.onnx")
        else:
            shutil.copytree(file.parent, target)
        raw = session(file)
        ml = foldserve.app(
            folder, threads=1, watch_interval_ms=0, queue_capacity_samples=max(rows, 256)
        )
        application = FastAPI()
        application.mount("/ml", ml)
        text = orjson.dumps({"inputs": x}, option=orjson.OPT_SERIALIZE_NUMPY)
        calls: dict[str, Call] = {
            RAW: lambda: raw.run(None, {name: x}),
            "predictor": lambda: predictor.predict(x),
            "mounted, bytes": lambda: posted(application, x.tobytes(), b"application/octet-stream"),
            "mounted, JSON": lambda: posted(application, text, b"application/json"),
        }
        async with ml.lifespan():
            return costs(await interleaved(calls, rounds, clock))


async def posted(application: Any, body: bytes, kind: bytes) -> bytes:
    """The answer to POST /ml/predict, asked as a server asks an application.

    Raises:
        RuntimeError: it is an error.
    """
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": "/ml/predict", "raw_path": b"/ml/predict", "root_path": "",
        "query_string": b"", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
        "headers": [
            (b"host", b"127.0.0.1"), (b"content-type", kind), (b"accept", kind),
            (b"content-length", str(len(body)).encode()),
        ],
    }  # fmt: skip
    left = [{"type": "http.request", "body": body, "more_body": False}]
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return left.pop() if left else await asyncio.get_running_loop().create_future()

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    await application(scope, receive, send)
    answer: bytes = b"".join(message.get("body", b"") for message in said)
    if said[0]["status"] != 200:
        raise RuntimeError(answer.decode())
    return answer


def newest(model: Path) -> Path:
    """The version folder of a model folder that has the highest number."""
    if (model / "model.onnx").exists():
        return model
    return max(model.glob("[1-9]*"), key=lambda path: int(path.name))


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", type=Path, default=ROOT / "models" / "mnist")
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    args = parser.parse_args(words)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    for rows in args.rows:
        print(f"{args.model.name}, {rows} rows: median, over raw (middle half), microseconds")
        for cost in asyncio.run(measure(args.model, rows, args.rounds, CLOCKS[args.clock])):
            print("  " + cost.line(), flush=True)


if __name__ == "__main__":
    main()

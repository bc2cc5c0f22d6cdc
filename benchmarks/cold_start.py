"""From starting the service to its first correct prediction, and the memory it then holds.

    python -m benchmarks.cold_start [--runs 9] [--models models]

A run starts `python -m service` on a free port of 127.0.0.1 and sends models/mnist/example.json
until the answer is the seven that it shows. In turn with it runs the baseline, a process that
only imports what any such service needs and ends. Medians, and the ratio. Memory is the
proportional set size. Goals: at most 0.8 s and 120 MB.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.serving.target import usage

BASELINE = "import fastapi, numpy, onnxruntime, orjson, uvicorn, uvloop, httptools"
EXAMPLE = Path("models/mnist/example.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--models", type=Path, default=Path("models"))
    args = parser.parse_args()
    service, baseline, memory = [], [], []
    for run in range(args.runs + 1):
        seconds, held = cold_start(args.models)
        imports = import_only()
        if run:  # the first of each reads the disk
            service.append(seconds)
            baseline.append(imports)
            memory.append(held)
    ratio = statistics.median(a / b for a, b in zip(service, baseline, strict=True))
    print(f"median of {args.runs} runs each, in turn")
    print(f"  start to first correct prediction  {statistics.median(service):.3f} s "
          f"({min(service):.3f} to {max(service):.3f})")  # fmt: skip
    print(f"  a process that only imports         {statistics.median(baseline):.3f} s")
    print(f"  ratio                               {ratio:.2f}")
    print(f"  memory after it (PSS)               {statistics.median(memory) / 1e6:.0f} MB")


def cold_start(models: Path) -> tuple[float, int]:
    """Seconds to the first correct prediction, and the bytes held after it (PSS)."""
    port = free_port()
    body = EXAMPLE.read_bytes()
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "--models", str(models), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            label = predict(port, body)
            seconds = time.perf_counter() - start
            if label is not None:
                break
            if process.poll() is not None or seconds > 30:
                raise SystemExit("the service did not start: try python -m service --models models")
            time.sleep(0.002)
        if label != "7":
            raise SystemExit(f"the service says {label!r} where 7 is right")
        return seconds, held_bytes(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=20)


def predict(port: int, body: bytes) -> str | None:
    """The predicted label, or None while nobody listens or the model is not ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(
            "POST", "/models/mnist/predict", body, {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        answer = json.loads(response.read())
        return str(answer["predictions"][0]["label"]) if response.status == 200 else None
    except OSError:
        return None
    finally:
        connection.close()


def import_only() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", BASELINE], check=True)
    return time.perf_counter() - start


def held_bytes(pid: int) -> int:
    """The proportional set size: pages that several processes share count in parts."""
    try:
        return usage(pid).memory_bytes
    except OSError:
        raise SystemExit("no smaps_rollup in /proc; this benchmark needs Linux") from None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()

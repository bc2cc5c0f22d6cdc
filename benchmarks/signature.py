"""What it costs that a version must be signed: the check of its signature, and the whole loading.

    python -m benchmarks.signature [--megabytes 100 1000] [--rounds 9]

The version is one Gemm with its weights beside model.onnx, or inside it (--inside, below 2 GB). In
each round every case runs once, in turn, with the files in the page cache; medians over the rounds,
of the time by the clock and of the time of the processor, and the median of the ratios within a
round, of the processor's time. Each loading is a process of its own, for its peak of memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from cryptography.hazmat.primitives.asymmetric import ec
from onnx import TensorProto, helper, numpy_helper

from service import device
from service.models import bundle, signed
from service.models.model import load
from service.signing.keys import Trust
from service.signing.signing import SigningKey

KEY = SigningKey(ec.derive_private_key(7, ec.SECP256R1()))
TRUST = Trust(keys=(KEY.key.public_key(),))
WIDTH = 4096


class Cost(NamedTuple):
    """Seconds by the clock and of the processor, and the peak of memory if it was measured."""

    clock_s: float
    cpu_s: float
    peak_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--inside", action="store_true", help="weights inside model.onnx")
    parser.add_argument("--load", help=argparse.SUPPRESS)  # the folder, for a process of its own
    parser.add_argument("--signed", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        _load(Path(args.load), TRUST if args.signed else None)
        return
    for megabytes in args.megabytes:
        with tempfile.TemporaryDirectory(prefix="foldserve-signature-") as name:
            _measure(_version(Path(name), megabytes, inside=args.inside), args.rounds)


def _version(root: Path, megabytes: int, *, inside: bool) -> Path:
    """models/m/1 of about so many bytes, signed."""
    folder = root / "m" / "1"
    folder.mkdir(parents=True)
    rows = max(1, megabytes * 10**6 // (4 * WIDTH))
    weights = np.random.default_rng(0).standard_normal((rows, WIDTH)).astype(np.float32)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", rows])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", WIDTH])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["y"])], "g", [x], [y],
        [numpy_helper.from_array(weights, "W")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if inside:
        onnx.save_model(model, folder / "model.onnx")
    else:
        onnx.save_model(
            model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data"
        )
    files = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[path.name] = {"sha256": digest, "bytes": path.stat().st_size}
    specs = [
        {"name": "x", "dtype": "float32", "shape": ["batch", rows]},
        {"name": "y", "dtype": "float32", "shape": ["batch", WIDTH]},
    ]
    manifest = {"name": "m", "version": 1, "files": files, "inputs": specs[:1]}
    text = json.dumps({**manifest, "outputs": specs[1:]}).encode()
    (folder / "model.json").write_bytes(text)
    (folder / "model.sig").write_bytes(KEY.sign_version(text))
    return folder


def _measure(folder: Path, rounds: int) -> None:
    small = (folder / "model.json").read_bytes(), (folder / "model.sig").read_bytes()
    cases: dict[str, Callable[[], Cost]] = {
        "hashes alone, as without a signature": lambda: _timed(lambda: bundle.read(folder, "m", 1)),
        "hashes and signature (verify-signature)": lambda: _timed(
            lambda: signed.read(folder, "m", 1, TRUST, hold=False)
        ),
        "the same, files kept (--require-signature)": lambda: _timed(
            lambda: signed.read(folder, "m", 1, TRUST, hold=True)
        ),
        "the signature alone": lambda: _timed(lambda: signed.agree(*small, "m", 1, TRUST)),
        "loading": lambda: _loaded(folder),
        "loading, signature required": lambda: _loaded(folder, "--signed"),
    }
    found: dict[str, list[Cost]] = {case: [] for case in cases}
    for turn in range(rounds + 1):
        for case, run in cases.items():
            result = run()
            if turn:  # the first reads the disk
                found[case].append(result)
    size = bundle.size_bytes(folder)
    print(f"{size / 1e6:,.0f} MB in {len(list(folder.iterdir()))} files, {rounds} rounds, in turn")
    for case, results in found.items():
        base = found["loading" if case.startswith("loading") else next(iter(cases))]
        ratio = statistics.median(a.cpu_s / b.cpu_s for a, b in zip(results, base, strict=True))
        clock, cpu, peak = (statistics.median(values) for values in zip(*results, strict=True))
        memory = f", peak {peak / 1e6:,.0f} MB" if peak else ""
        print(
            f"  {case:44} {clock * 1e3:9.2f} ms, processor {cpu * 1e3:9.2f} ms, "
            f"ratio {ratio:.3f}{memory}"
        )


def _timed(what: Callable[[], object]) -> Cost:
    clock, cpu = time.perf_counter(), time.process_time()
    what()
    return Cost(time.perf_counter() - clock, time.process_time() - cpu, 0)


def _loaded(folder: Path, *flags: str) -> Cost:
    words = [sys.executable, "-m", "benchmarks.signature", "--load", str(folder), *flags]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    clock, cpu, peak = done.stdout.split()
    return Cost(float(clock), float(cpu), int(peak))


def _load(folder: Path, trust: Trust | None) -> None:
    """Print the cost of a loading."""
    clock, cpu = time.perf_counter(), time.process_time()
    served = load(folder, "m", 1, device.choose("cpu"), 1, 8, trust=trust)
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    print(clock, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    served.batcher.close(30)


if __name__ == "__main__":
    main()

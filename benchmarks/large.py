"""A model beyond protobuf's 2 GB: fold it by the command line, run the result, watch the memory.

    python -m benchmarks.large [--gigabytes 2.2] [--kind onnx|torch]

The model is a chain of convolutions and batch-norms, written without ever being in memory: as
an .onnx with its weights beside it, or as a state_dict of torch. Takes minutes, three times its
size on the disk, and for `torch` several times its size in memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHANNELS, SIDE = 1024, 4

# Loaded in a process of its own, so that the peak is that of the fold alone.
RUN = """
import sys, numpy as np, onnxruntime as ort
session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
(given,) = session.get_inputs()
y = session.run(None, {given.name: np.ones((1, 1024, 4, 4), np.float32)})[0]
print(y.shape, bool(np.isfinite(y).all()))
"""

NET = """
from torch import nn
def net(layers):
    return nn.Sequential(*[
        part for _ in range(layers)
        for part in (nn.Conv2d(1024, 1024, 3, padding=1, bias=False), nn.BatchNorm2d(1024))
    ])
"""

STATE_DICT = """
import sys, torch
from large_net import net
with torch.device("meta"):
    module = net(int(sys.argv[2]))
torch.manual_seed(0)
state = {}
for name, tensor in module.state_dict().items():
    if name.endswith("num_batches_tracked"):
        state[name] = torch.tensor(1)
    elif tensor.ndim == 4:
        state[name] = torch.randn(tensor.shape) / 96
    else:
        state[name] = torch.rand(tensor.shape) + 0.5
torch.save(state, sys.argv[1])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gigabytes", type=float, default=2.2)
    parser.add_argument("--kind", choices=("onnx", "torch"), default="onnx")
    args = parser.parse_args()
    layers = round(args.gigabytes * 1e9 / (36 * 1024**2))
    with tempfile.TemporaryDirectory(prefix="foldserve-large-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "converter", "fold"]
        if args.kind == "onnx":
            from benchmarks.fold import chain

            chain(folder / "large.onnx", layers, CHANNELS, SIDE)
            command += [str(folder / "large.onnx")]
        else:
            (folder / "large_net.py").write_text(NET)
            subprocess.run(
                [sys.executable, "-c", STATE_DICT, str(folder / "large.pt"), str(layers)],
                check=True,
                env=_environment(folder),
            )
            command += [str(folder / "large.pt"), "--arch", "large_net:net",
                        "--arch-arg", f"layers={layers}", "--input-shape", "1024,4,4"]  # fmt: skip
        size = sum(file.stat().st_size for file in folder.iterdir())
        start = time.perf_counter()
        report = folder / "report.json"
        out = folder / "folded.onnx"
        done = subprocess.run(
            [*command, "--output", str(out), "--json", str(report)],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path.cwd(),
            env=_environment(folder),
        )
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        print(done.stdout[-1500:], done.stderr[-1500:], sep="\n")
        found = json.loads(report.read_text()) if report.exists() else {}
        print(f"{args.kind}: {size / 1e9:.2f} GB, exit code {done.returncode}, {seconds:.0f} s")
        print(f"peak memory {peak / 1e9:.2f} GB = {peak / size:.2f} times the file")
        if found:
            print(f"folded {found['plan']['folded']}, proof passed: {found['proof']['passed']}")
            for file in sorted(folder.glob("folded.onnx*")):
                print(f"  {file.name}: {file.stat().st_size:,} bytes")
            subprocess.run([sys.executable, "-c", RUN, str(out)], check=True)


def _environment(folder: Path) -> dict[str, str]:
    import os

    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


if __name__ == "__main__":
    main()

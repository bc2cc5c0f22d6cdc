"""Peak memory of a fold with its proof, beside one float32 forward pass at the same batch.

    python -m benchmarks.memory [NET ..] [--write]

Each figure is of a process of its own: its peak of resident memory, less what it held when all was
imported and a small net had passed through. The forward pass is onnxruntime's, with its
optimisations, at a batch of 5, the largest of the proof; the fold reads the same file, folds,
proves at batches of 1, 2 and 5, and keeps what it made. `--write` puts the table into
docs/performance.md. Linux only. Goal: at most 3 times the forward pass.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import child
from benchmarks.document import table, write

MEMORY = """
import ctypes, json, sys
def rest():  # what is held now; from here on a new peak is counted
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return status("VmRSS")
def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024
"""

FORWARD = (
    MEMORY
    + """
import numpy as np, onnxruntime as ort
def run(path):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {}
    for given in session.get_inputs():
        shape = [size if isinstance(size, int) else 5 for size in given.shape]
        feeds[given.name] = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return session.run(None, feeds)
run(sys.argv[2])
held = rest()
run(sys.argv[1])
print(json.dumps({"peak": status("VmHWM") - held}))
"""
)

PROOF = (
    MEMORY
    + """
import time
from pathlib import Path
import converter
def run(path):
    return converter.fold(converter.load(Path(path)))
run(sys.argv[2])
held = rest()
start = time.perf_counter()
result = run(sys.argv[1])
print(json.dumps({"peak": status("VmHWM") - held, "passed": result.proof.passed,
                  "failure": result.proof.failure, "seconds": time.perf_counter() - start}))
"""
)


def volume() -> tuple[Any, tuple[int, ...]]:
    """29,000 parameters, three dimensions."""
    from torch import nn

    return nn.Sequential(
        nn.Conv3d(1, 32, 3, padding=1), nn.BatchNorm3d(32), nn.ReLU(),
        nn.Conv3d(32, 32, 3, padding=1), nn.BatchNorm3d(32), nn.ReLU(), nn.Conv3d(32, 2, 1),
    ), (1, 48, 48, 48)  # fmt: skip


def window() -> tuple[Any, tuple[int, ...]]:
    """A pooling window far larger than its map."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.AvgPool2d(640, ceil_mode=True),
        nn.Flatten(), nn.Linear(64, 10),
    ), (3, 8, 8)  # fmt: skip


def unet() -> tuple[Any, tuple[int, ...]]:
    """Ronneberger et al. (2015) at a quarter of its width."""
    import torch
    from torch import nn

    def double(inputs: int, outputs: int) -> nn.Sequential:
        parts: list[nn.Module] = []
        for width in (inputs, outputs):
            parts += [nn.Conv2d(width, outputs, 3, padding=1, bias=False),
                      nn.BatchNorm2d(outputs), nn.ReLU()]  # fmt: skip
        return nn.Sequential(*parts)

    class UNet(nn.Module):
        def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 128)) -> None:
            super().__init__()
            ends = list(zip((3, *widths), widths, strict=False))
            self.down = nn.ModuleList(double(*pair) for pair in ends)
            steps = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
            self.wider = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in steps)
            self.up = nn.ModuleList(double(2 * b, b) for _, b in steps)
            self.head = nn.Conv2d(widths[0], 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kept = []
            for index, block in enumerate(self.down):
                x = block(nn.functional.max_pool2d(x, 2) if index else x)
                kept.append(x)
            for wider, block, skip in zip(self.wider, self.up, kept[-2::-1], strict=True):
                x = block(torch.cat([skip, wider(x)], dim=1))
            out: torch.Tensor = self.head(x)
            return out

    return UNet(), (3, 512, 512)


def recurrent() -> tuple[Any, tuple[int, ...]]:
    """A convolution over time, and two LSTMs of which each reads the other's output."""
    import torch
    from torch import nn

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv1d(40, 256, 5, padding=2), nn.BatchNorm1d(256))
            self.lstm = nn.LSTM(256, 256, num_layers=2, batch_first=True, bidirectional=True)
            self.head = nn.Linear(512, 40)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y, _ = self.lstm(self.stem(x).transpose(1, 2))
            out: torch.Tensor = self.head(y)
            return out

    return Recurrent(), (40, 500)


def zoo(name: str, side: int) -> Callable[[], tuple[Any, tuple[int, ...]]]:
    def make() -> tuple[Any, tuple[int, ...]]:
        from patterns.networks import torchvision_model

        return torchvision_model(name), (3, side, side)

    return make


NETS: dict[str, Callable[[], tuple[Any, tuple[int, ...]]]] = {
    "volume, 48^3": volume,
    "pooling window of 640": window,
    "U-Net, 512x512": unet,
    "two LSTMs, 500 steps": recurrent,
    "resnet18, 224x224": zoo("resnet18", 224),
    "resnet50, 224x224": zoo("resnet50", 224),
    "mobilenet_v2, 224x224": zoo("mobilenet_v2", 224),
    "efficientnet_b0, 224x224": zoo("efficientnet_b0", 224),
    "densenet121, 224x224": zoo("densenet121", 224),
}
TINY = "tiny"


def export(name: str, path: Path) -> None:
    """Write a net with batch-norms as training leaves them; its batch is free."""
    from torch import nn

    from benchmarks.exporting import export as dynamo
    from patterns.networks import randomize_batchnorms

    if name == TINY:
        made: tuple[Any, tuple[int, ...]] = (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
            (3, 8, 8),
        )
    else:
        made = NETS[name]()
    module, shape = randomize_batchnorms(made[0].eval(), 0), made[1]
    dynamo(module, shape, path)


def measure(names: list[str]) -> list[list[object]]:
    """A row for each net: bytes of the forward pass, of the fold with its proof, the ratio."""
    rows: list[list[object]] = []
    make = "import sys; from benchmarks.memory import *; export(sys.argv[1], Path(sys.argv[2]));"
    with tempfile.TemporaryDirectory(prefix="foldserve-bench-") as folder:
        tiny, path = Path(folder) / "tiny.onnx", Path(folder) / "net.onnx"
        child.run(make + "print('{}')", TINY, str(tiny))
        for name in names:
            child.run(make + "print('{}')", name, str(path))
            forward = child.run(FORWARD, str(path), str(tiny))["peak"]
            proof = child.run(PROOF, str(path), str(tiny))
            verdict = "proven" if proof["passed"] else f"not proven {proof['failure']}"
            rows.append(
                [name, f"{forward / 1e6:.0f} MB", f"{proof['peak'] / 1e6:.0f} MB",
                 f"{proof['peak'] / forward:.1f}", verdict]
            )  # fmt: skip
            print(*rows[-1], f"{proof['seconds']:.1f} s", sep=" | ", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("nets", nargs="*", metavar="NET", help=f"of {', '.join(NETS)}")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    args = parser.parse_args()
    names = [name for name in NETS if not args.nets or any(n in name for n in args.nets)]
    rows = measure(names)
    if args.write:
        heads = ["net", "forward pass, float32", "fold with proof", "ratio", "verdict"]
        made = table(heads, rows, "lrrrl")
        write(Path("docs/performance.md"), "python -m benchmarks.memory", made, "")


if __name__ == "__main__":
    main()

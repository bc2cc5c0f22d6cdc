"""Time and peak memory of a certificate, beside reading and hashing the same two files.

    python -m benchmarks.certificate_cost [NET ..] [--runs 5] [--gigabytes 1.0] [--write]

Each net is exported, folded and written once. Then, in turn and each in a process of its own:

    command  `python -m converter verify A B --certify=only`, from its start to its end
    certify  of it the check alone, both graphs read, as its sentence says it
    hash     both files, read in pieces, and their SHA-256, in one process that does no more

Medians are told, and the ratio of the times of a core that "certify" and "hash" took, which a busy
machine does not change much. Memory is the peak of the resident memory of the whole command
(VmHWM), its libraries among it, beside the larger of the two files; weights are read, not mapped,
so no page of a file counts as evictable. `--write` puts the table into docs/performance.md. Linux
only. Goals: the check of ResNet-50 in 3 s, of MobileNetV2 in 0.6 s, 1.3 times the file for a model
of 1 GB.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import child
from benchmarks.document import table, write

CERTIFY = """
import json, sys, time
from pathlib import Path
from converter.commands.verify import certify
from converter.sources import onnx_
def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024
imported = status("VmHWM")
one, other = (onnx_.read(Path(name))[0] for name in sys.argv[1:])
start, busy = time.perf_counter(), time.process_time()
found = certify(one, other)
print(json.dumps({"seconds": time.perf_counter() - start,
                  "busy": time.process_time() - busy, "peak": status("VmHWM"),
                  "imported": imported, "certified": bool(found), "told": str(found),
                  "weights": getattr(found, "weights", 0)}))
"""

HASH = """
import hashlib, json, sys, time
start, busy = time.perf_counter(), time.process_time()
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        hashlib.file_digest(file, "sha256")
print(json.dumps({"seconds": time.perf_counter() - start, "busy": time.process_time() - busy}))
"""

PREPARE = "import sys; from benchmarks.certificate_cost import prepare; prepare(*sys.argv[1:]);"


def transformer(layers: int = 6, width: int = 1024) -> Any:
    """Blocks of Vaswani et al. (2017), with a batch-norm in each perceptron; 300 MB."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
            self.read, self.write = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.norm = nn.BatchNorm1d(4 * width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            batch, places, _ = x.shape
            heads = self.read(self.norms[0](x)).reshape(batch, places, 3, 16, width // 16)
            q, k, v = heads.permute(2, 0, 3, 1, 4)
            y = (q @ k.transpose(-1, -2) / (width // 16) ** 0.5).softmax(-1) @ v
            x = x + self.write(y.transpose(1, 2).reshape(batch, places, width))
            y = self.norm(self.wide(self.norms[1](x)).transpose(1, 2)).transpose(1, 2)
            return x + self.narrow(nn.functional.gelu(y))

    return nn.Sequential(*(Block() for _ in range(layers)))


def vision(name: str) -> Callable[[], tuple[Any, tuple[int, ...]]]:
    def make() -> tuple[Any, tuple[int, ...]]:
        from patterns.networks import declare_torchvision_operators, torchvision_model

        if name.startswith("timm:"):
            declare_torchvision_operators()
            import timm

            return timm.create_model(name.removeprefix("timm:")), (3, 224, 224)
        return torchvision_model(name), (3, 224, 224)

    return make


NETS: dict[str, Callable[[], tuple[Any, tuple[int, ...]]]] = {
    "resnet50": vision("resnet50"),
    "mobilenet_v2": vision("mobilenet_v2"),
    "repvgg_a0, branches merged": vision("timm:repvgg_a0"),
    "transformer, 128 places": lambda: (transformer(), (128, 1024)),
}
CHAIN = "chain of convolutions"


def prepare(name: str, folder: str, gigabytes: str) -> None:
    """Write a net as it is and folded: a.onnx and b.onnx."""
    from benchmarks.exporting import export
    from benchmarks.fold import chain
    from converter.evaluation.normalize import normalize
    from converter.files.on_disk import store_for
    from converter.files.onnx_file import weight_bytes, write_onnx
    from converter.folding import fold_graph
    from converter.sources import load
    from patterns.networks import randomize_batchnorms

    path = Path(folder) / "a.onnx"
    if name == CHAIN:
        chain(path, convolutions=round(float(gigabytes) * 1e9 / (36 * 1024**2)), channels=1024)
    else:
        module, shape = NETS[name]()
        export(randomize_batchnorms(module.eval(), 0), shape, path)
    graph = normalize(load(path).model)
    done = fold_graph(graph, store=store_for(weight_bytes(graph)))
    write_onnx(done.model, path.with_name("b.onnx"))
    print("{}")


def measure(folder: Path, runs: int) -> dict[str, list[dict[str, Any]]]:
    """What each round of each program printed."""
    files = [str(folder / "a.onnx"), str(folder / "b.onnx")]
    found: dict[str, list[dict[str, Any]]] = {"hash": [], "certify": [], "command": []}
    for _ in range(runs):
        found["hash"].append(child.run(HASH, *files))
        found["certify"].append(child.run(CERTIFY, *files))
        start = time.perf_counter()
        command = [sys.executable, "-m", "converter", "verify", *files, "--certify=only"]
        done = subprocess.run(command, capture_output=True, check=False)
        seconds = time.perf_counter() - start
        found["command"].append({"seconds": seconds, "code": done.returncode})
    return found


def row(name: str, folder: Path, runs: int) -> list[object]:
    found = measure(folder, runs)
    size = max((folder / file).stat().st_size for file in ("a.onnx", "b.onnx"))
    checks = found["certify"]
    check, command, hashed = (
        statistics.median(run["seconds"] for run in found[what])
        for what in ("certify", "command", "hash")
    )
    busy, hashing = (
        statistics.median(run["busy"] for run in found[what]) for what in ("certify", "hash")
    )
    peak, imported = (
        statistics.median(run[what] for run in checks) for what in ("peak", "imported")
    )
    if not checks[0]["certified"]:
        print(checks[0]["told"])
    return [
        name, f"{size / 1e6:.0f} MB", f"{checks[0]['weights']:,}",
        "yes" if all(run["certified"] for run in checks) else "no",
        f"{check:.2f} s", f"{command:.2f} s", f"{hashed:.2f} s", f"{busy:.2f} s",
        f"{busy / hashing:.1f}",
        f"{peak / 1e6:.0f} MB", f"{(peak - imported) / 1e6:.0f} MB", f"{peak / size:.2f}",
    ]  # fmt: skip


HEADS = ["net", "file", "weights", "certified", "certify", "command", "read and hash",
         "certify, of a core", "ratio of cores' time", "peak memory", "without libraries",
         "peak / file"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    names = [*NETS, CHAIN]
    parser.add_argument("nets", nargs="*", metavar="NET", help=f"of {'; '.join(names)}")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the chain")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    args = parser.parse_args()
    rows: list[list[object]] = []
    for name in names:
        if args.nets and not any(asked in name for asked in args.nets):
            continue
        with tempfile.TemporaryDirectory(prefix="foldserve-bench-") as folder:
            child.run(PREPARE, name, folder, str(args.gigabytes))
            rows.append(row(name, Path(folder), args.runs))
        print(*rows[-1], sep=" | ", flush=True)
    load = os.getloadavg()[0]
    print(f"the load of the machine at the end: {load:.1f} of {os.cpu_count()} cores")
    if args.write:
        made = table(HEADS, rows, "lrrlrrrrrrrr")
        write(Path("docs/performance.md"), "python -m benchmarks.certificate_cost", made, "")


if __name__ == "__main__":
    main()

"""How much faster a folded network runs than the un-folded one, in onnxruntime at its best.

    python -m benchmarks.latency                         # what is missing, into docs/latency.md
    python -m benchmarks.latency --redo timm:repvgg_a0   # this one again

Each network has random weights and statistics and scales of both signs. It is exported and
folded; then both graphs run in turn, onnxruntime's own optimisations on for both (it fuses
conv+bn by itself), one pair after the other, so that whatever else the machine does hits both.
Two figures for each batch size: the ratio of the best runs, which other processes disturb
least, and the median of the pairs' ratios with its quartiles.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

from benchmarks import document
from benchmarks.peers import PEERS, batchnorms_in
from benchmarks.zoo.networks import Network, network, randomize, settle
from converter.commands.latency import Comparison, compare
from converter.evaluation.normalize import normalize
from converter.files.onnx_file import write_onnx
from converter.folding import FoldOptions, fold_graph
from converter.graph.tidy import TidyPass
from converter.proof.examples import random_feeds
from converter.sources import InputShape, LoadOptions
from converter.sources.module import from_module

COMMAND = "python -m benchmarks.latency"
DOCUMENT = Path(__file__).parents[1] / "docs" / "latency.md"
RESULTS = Path(__file__).with_name("latency.jsonl")
BATCHES = (1, 8)
SIDE = 224
# Beside other work, two threads wait for each other longer than they compute.
THREADS = 1
NETWORKS = (
    "own:mlp",
    "own:conv-relu-bn-pool",
    "torchvision:resnet18",
    "timm:mobilenetv3_small_100",
    "timm:repvgg_a0",
    "timm:mobileone_s0",
    "torchvision:shufflenet_v2_x1_0",
    "timm:inception_next_atto",
    "timm:regnetx_002",
    "timm:efficientnet_b0",
    "timm:levit_128s",
    "timm:repvit_m1",
    "timm:densenet121",
    "timm:efficientvit_m0",
    "timm:resnetv2_50",
    "timm:fastvit_t8",
    "timm:dpn68",
)
# Closer to 1 than this is noise: the same file against itself differs by as much.
NOISE = 0.03
PREFACE = """# Is a folded network faster?

Where parallel branches are merged, much; where onnxruntime leaves batch-norms, somewhat; where
every batch-norm follows a convolution, no: onnxruntime fuses that itself when it loads the file.
"""


@dataclass(frozen=True)
class Timing:
    """One network: its graph before and after, and how both run for each of `BATCHES`."""

    name: str
    batchnorms: int
    left: int
    left_by_onnxruntime: int
    merges: int
    nodes: tuple[int, int]
    difference: float
    comparisons: tuple[Comparison, ...]

    @property
    def group(self) -> str:
        if self.merges:
            return "parallel branches"
        return "batch-norms that onnxruntime leaves" if self.left_by_onnxruntime else "plain"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", help="timm:NAME, torchvision:NAME, own:NAME")
    parser.add_argument("--rounds", type=int, default=400, help="pairs at most (default: 400)")
    parser.add_argument("--seconds", type=float, default=10.0, help="for a batch size, about")
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--redo", action="store_true", help="also what is in the results")
    args = parser.parse_args(words)
    for name in args.networks or NETWORKS:
        if args.redo or not any(t.name.split()[0] == name for t in read(args.results)):
            try:
                new = [measure(name, args.rounds, args.seconds)]
            except ValueError as error:
                print(f"{name}: {error}", flush=True)
                continue
            if new[0].left:
                other = measure(name, args.rounds, args.seconds, through_relu=True)
                new += [other] if other.left < new[0].left else []
            keep(args.results, name, new)
            print(*map(line, new), sep="\n", flush=True)
            # As they come: a run that is stopped leaves what it has.
            document.write(args.document, COMMAND, text(read(args.results)), PREFACE)


def read(path: Path) -> list[Timing]:
    """The networks that were measured, in the order in which they were."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [_timing(json.loads(text)) for text in lines]


def _timing(row: dict[str, Any]) -> Timing:
    pairs = [
        Comparison(batch, tuple(t * 1e-6 for t in a), tuple(t * 1e-6 for t in b))
        for batch, a, b in row.pop("microseconds")
    ]
    return Timing(**row | {"nodes": tuple(row["nodes"]), "comparisons": tuple(pairs)})


def keep(path: Path, name: str, new: Sequence[Timing]) -> None:
    """Put what was measured of a network into the results, in place of what was there."""
    lines = []
    for timing in [t for t in read(path) if t.name.split()[0] != name] + list(new):
        row = {key: getattr(timing, key) for key in timing.__dataclass_fields__}
        row["microseconds"] = [
            [c.batch, *([round(t * 1e6, 1) for t in times] for times in (c.a, c.b))]
            for c in row.pop("comparisons")
        ]
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def measure(name: str, rounds: int, seconds: float, *, through_relu: bool = False) -> Timing:
    """Export, fold, and run both graphs in turn."""
    library, _, own = name.partition(":")
    made = _OWN[own]() if library == "own" else network(name, (SIDE,))
    loaded = from_module(
        made.module, path=Path(name), kind="", options=LoadOptions(input_shapes=made.shapes)
    )
    original = normalize(loaded.model)
    folded = fold_graph(original, FoldOptions(through_relu=through_relu))
    TidyPass(folded=len(folded.plan.folded), kept=len(folded.plan.kept))(folded.model)
    with tempfile.TemporaryDirectory(prefix="foldserve-bench-") as folder:
        a, b, c = (Path(folder) / f"{which}.onnx" for which in "abc")
        write_onnx(original, a)
        write_onnx(folded.model, b)
        error = PEERS["onnxruntime"].run(a, c).error
        if error:
            raise SystemExit(f"{name}: onnxruntime cannot optimise it: {error}")
        comparisons = []
        for batch in BATCHES if loaded.dynamic_batch else (None,):
            (probe,) = compare(a, b, loaded.inputs, [batch], rounds=2, threads=THREADS)
            pair = min(probe.a) + min(probe.b)
            pairs = max(8, min(rounds, round(seconds / pair)))
            comparisons += compare(a, b, loaded.inputs, [batch], rounds=pairs, threads=THREADS)
        feeds = random_feeds(loaded.inputs, 2 if loaded.dynamic_batch else None, 1)
        return Timing(
            f"{name} --through-relu" if through_relu else name,
            batchnorms_in(a),
            batchnorms_in(b),
            batchnorms_in(c),
            len(folded.plan.merges),
            (original.graph.num_nodes(), folded.model.graph.num_nodes()),
            _difference(a, b, feeds),
            tuple(comparisons),
        )


def _difference(a: Path, b: Path, feeds: dict[str, np.ndarray]) -> float:
    """Of the outputs, relative to the largest: timing something else would be no comparison."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    found = [
        ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, feeds)
        for path in (a, b)
    ]
    worst = max(
        float(np.abs(x - y).max() / np.abs(x).max()) for x, y in zip(*found, strict=True)
    )  # fmt: skip
    if not worst < 1e-3:
        raise ValueError(f"the outputs differ by {worst:.2g} of the largest: nothing to compare")
    return worst


def best(comparison: Comparison) -> float:
    """How many times as fast the folded graph is, by the fastest run of each."""
    return min(comparison.a) / min(comparison.b)


def slower(timing: Timing) -> bool:
    """Whether the folded graph is slower beyond noise by both figures, at some batch size."""
    return any(
        best(c) < 1 - NOISE and quantiles([x / y for x, y in zip(c.a, c.b, strict=True)])[2] < 1
        for c in timing.comparisons
    )


def line(timing: Timing) -> str:
    cells = ", ".join(f"batch {c.batch}: {cell(c)}" for c in timing.comparisons)
    return f"{timing.name:42} {timing.left:3} of {timing.batchnorms:3} left   {cells}"


def cell(comparison: Comparison) -> str:
    low, high = comparison.spread
    return f"{best(comparison):.2f}; {comparison.ratio:.2f} ({low:.2f} to {high:.2f})"


def text(found: Sequence[Timing]) -> str:
    """The generated part of the document."""
    heads = ["network", "batch-norms", "left", "left by onnxruntime", "nodes", "merged sums"]
    for batch in BATCHES:
        heads += [f"batch {batch}: best", "median (quartiles)", "ms, folded"]
    rows: list[list[object]] = []
    for t in sorted(found, key=lambda t: (-bool(t.merges), -t.left_by_onnxruntime)):
        row: list[object] = [
            t.name, t.batchnorms, t.left, t.left_by_onnxruntime,
            f"{t.nodes[0]} to {t.nodes[1]}", t.merges,
        ]  # fmt: skip
        for c in t.comparisons:
            low, high = c.spread
            row += [f"{best(c):.2f}", f"{c.ratio:.2f} ({low:.2f} to {high:.2f})"]
            row.append(f"{1000 * min(c.b):.1f}")
        rows.append(row)
    late = [t.name for t in found if slower(t)]
    parts = [
        document.table(heads, rows, " rrrrr" + "rrr" * len(BATCHES)),
        _explanation(found),
        _by_group(found),
        "Slower by both figures, beyond 3%: " + (", ".join(late) if late else "none") + ".",
    ]
    return "\n\n".join(parts)


def _explanation(found: Sequence[Timing]) -> str:
    pairs = [len(c.a) for t in found for c in t.comparisons]
    return (
        "How many times as fast the folded graph runs as the un-folded one: above 1 it is "
        f"faster. Images of {SIDE}x{SIDE}, or what the network takes; float32; onnxruntime "
        f"{ort.__version__} with all its optimisations for both, {THREADS} thread, on a "
        f"shared {platform.machine()} virtual machine on which other work was running. *Best* "
        "compares the fastest run of each. The median is of the ratios of pairs that ran one "
        f"after the other ({min(pairs)} to {max(pairs)} of them), with the middle half in "
        "brackets: wide brackets mean that the machine was disturbed. Left by onnxruntime: "
        "batch-norms in the graph that it makes of the un-folded file at level EXTENDED."
    )


def _by_group(found: Sequence[Timing]) -> str:
    groups: dict[str, list[Timing]] = {}
    for timing in found:
        groups.setdefault(timing.group, []).append(timing)
    rows: list[list[object]] = []
    for group, members in groups.items():
        row: list[object] = [group, len(members)]
        for index in range(len(BATCHES)):
            ratios = [best(t.comparisons[index]) for t in members if index < len(t.comparisons)]
            row.append(f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else "")
        rows.append(row)
    heads = ["what there is to gain", "networks", *(f"best, batch {batch}" for batch in BATCHES)]
    return document.table(heads, rows, " rrr")


def _settled(module: nn.Module, shape: InputShape) -> Network:
    module = module.eval().requires_grad_(False)
    randomize(module)
    return Network(module, (shape,), settle(module, (shape,)))


def _conv_relu_bn_pool() -> Network:
    """Conv, relu, batch-norm, max-pooling, twice; then a linear layer: a tutorial's network."""
    torch.manual_seed(0)
    block: Callable[[int, int], list[nn.Module]] = lambda i, o: [  # noqa: E731
        nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(o), nn.MaxPool2d(2),
    ]  # fmt: skip
    layers = [*block(3, 32), *block(32, 64), *block(64, 128), nn.Flatten()]
    return _settled(nn.Sequential(*layers, nn.Linear(128 * 16, 10)), InputShape((3, 32, 32)))


def _mlp() -> Network:
    """784-256-128-10 with a batch-norm before each relu."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((784, 256), (256, 128)):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return _settled(nn.Sequential(*layers, nn.Linear(128, 10)), InputShape((784,)))


_OWN = {"conv-relu-bn-pool": _conv_relu_bn_pool, "mlp": _mlp}


if __name__ == "__main__":
    main()

"""Time and peak memory of the fold step, without export and proof.

    python -m benchmarks.fold [--runs 5] [--gigabytes 1.0]

The step is what `converter fold model.onnx` does before and after its proof: read the file,
normalize, plan, fold, write. It runs in a process of its own, once for each run; medians are
printed. Goals: 1 s for ResNet-50, peak memory at most 2.5 times the file.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import child

CHILD = """
import json, sys, time
from pathlib import Path
import onnx_ir
from converter.folding import fold_graph
from converter.evaluation.normalize import normalize
from converter.files.on_disk import store_for
from converter.files.onnx_file import weight_bytes, write_onnx
from converter.sources import load
from converter.graph.tidy import TidyPass

def peak():  # not ru_maxrss, which a process takes over from the one that started it
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024

imported = peak()
times = {}
def step(name, function):
    start = time.perf_counter()
    result = function()
    times[name] = time.perf_counter() - start
    return result

source, target = map(Path, sys.argv[1:])
load(target.parent / "tiny.onnx")  # whatever is imported on first use is not the fold
loaded = step("read", lambda: load(source))
graph = step("normalize", lambda: normalize(loaded.model))
folded = step("plan and fold", lambda: fold_graph(graph, store=store_for(weight_bytes(graph))))
tidy = TidyPass(folded=len(folded.plan.folded), kept=len(folded.plan.kept))
step("tidy", lambda: tidy(folded.model))
step("write", lambda: write_onnx(folded.model, target))
print(json.dumps({"times": times, "imported": imported, "peak": peak(),
                  "folded": len(folded.plan.folded), "kept": len(folded.plan.kept)}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the large model")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="foldserve-bench-") as name:
        folder = Path(name)
        chain(folder / "tiny.onnx", convolutions=1, channels=8)
        models = {
            "resnet50": resnet50(folder / "resnet50.onnx"),
            f"{args.gigabytes:g} GB chain": chain(
                folder / "large.onnx", convolutions=round(args.gigabytes * 1e9 / (36 * 1024**2)),
                channels=1024,
            ),
        }  # fmt: skip
        for title, path in models.items():
            report(title, path, [measure(path, folder / "out.onnx") for _ in range(args.runs)])


def measure(source: Path, target: Path) -> dict[str, Any]:
    """One run in a fresh process."""
    return child.run(CHILD, str(source), str(target))


def report(title: str, path: Path, runs: list[dict[str, Any]]) -> None:
    size = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
    peak = statistics.median(run["peak"] for run in runs)
    imported = statistics.median(run["imported"] for run in runs)
    total = statistics.median(sum(run["times"].values()) for run in runs)
    print(f"\n{title}: {size / 1e6:.1f} MB, {runs[0]['folded']} batch-norms folded, "
          f"{runs[0]['kept']} kept, median of {len(runs)} runs")  # fmt: skip
    for step in runs[0]["times"]:
        print(f"  {step:14} {statistics.median(run['times'][step] for run in runs):7.3f} s")
    print(f"  {'total':14} {total:7.3f} s")
    print(f"  peak memory    {peak / 1e6:7.0f} MB = {peak / size:.2f} times the file "
          f"(of it {imported / 1e6:.0f} MB before the file is read)")  # fmt: skip


def resnet50(path: Path) -> Path:
    """torchvision's ResNet-50, random weights, batch-norms with statistics of both signs."""
    from benchmarks.exporting import export
    from patterns.networks import randomize_batchnorms, torchvision_model

    module = torchvision_model("resnet50").eval()
    randomize_batchnorms(module, 0)
    return export(module, (3, 224, 224), path)


def chain(path: Path, convolutions: int, channels: int, side: int = 8) -> Path:
    """`convolutions` times 3x3 conv and batch-norm, 36 MB each at 1,024 channels, on images of
    `side` x `side`. Each kernel is drawn when it is written."""
    import numpy as np
    import onnx_ir as ir

    from converter.files.onnx_file import write_onnx

    rng = np.random.default_rng(0)
    value = ir.Value(
        name="x",
        shape=ir.Shape(["batch", channels, side, side]),
        type=ir.TensorType(ir.DataType.FLOAT),
    )
    inputs, nodes, weights = [value], [], []

    def constant(name: str, array: Any) -> ir.Value:
        return initializer(name, ir.tensor(array.astype(np.float32), name=name))

    def kernel_of(name: str, seed: int) -> ir.Value:
        shape = (channels, channels, 3, 3)

        def draw() -> ir.TensorProtocol:
            normal = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
            return ir.tensor(normal / np.float32(96), name=name)

        return initializer(name, ir.LazyTensor(draw, ir.DataType.FLOAT, ir.Shape(shape), name=name))

    def initializer(name: str, tensor: Any) -> ir.Value:
        weights.append(
            ir.Value(
                name=name,
                shape=tensor.shape,
                type=ir.TensorType(ir.DataType.FLOAT),
                const_value=tensor,
            )
        )
        return weights[-1]

    for index in range(convolutions):
        kernel = kernel_of(f"conv{index}.weight", index)
        conv = ir.node("Conv", [value, kernel], attributes={"pads": [1, 1, 1, 1]})
        statistics_ = [
            constant(f"bn{index}.weight", rng.uniform(-1, 1, channels)),
            constant(f"bn{index}.bias", rng.normal(size=channels)),
            constant(f"bn{index}.running_mean", rng.normal(size=channels)),
            constant(f"bn{index}.running_var", rng.uniform(0.5, 2, channels)),
        ]
        norm = ir.node("BatchNormalization", [conv.outputs[0], *statistics_])
        nodes += [conv, norm]
        value = norm.outputs[0]
    value.name, value.shape, value.type = (
        "y",
        ir.Shape(["batch", channels, side, side]),
        ir.TensorType(ir.DataType.FLOAT),
    )
    graph = ir.Graph(
        inputs, [value], nodes=nodes, initializers=weights, opset_imports={"": 20}, name="chain"
    )
    write_onnx(ir.Model(graph, ir_version=10), path)
    return path


if __name__ == "__main__":
    main()

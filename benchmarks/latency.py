"""How much faster a folded network runs than the un-folded one, in onnxruntime at its best.

    python -m benchmarks.latency [timm:repvgg_a0 torchvision:resnet18 ...] [--rounds 30]

Each network has random weights and batch-norm statistics; it is exported, folded and proven,
then both graphs run in turn, onnxruntime's own optimisations on for both (it fuses conv+bn by
itself). Printed is how many times as fast the folded one is, as the median over the pairs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from converter.latency import compare
from converter.normalize import normalize
from converter.onnx_file import write_onnx
from converter.pipeline import fold
from converter.sources import InputShape, LoadOptions, load
from tests.zoo import randomize_batchnorms, timm_model, torchvision_model

NETWORKS = (
    "timm:repvgg_a0",
    "timm:mobileone_s0",
    "timm:efficientvit_m0",
    "timm:inception_next_atto",
    "torchvision:resnet18",
    "torchvision:mobilenet_v2",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    print("network                       batch-norms left   nodes           "
          "times as fast, batch 1   batch 8")  # fmt: skip
    for name in args.networks:
        print(measure(name, args.rounds), flush=True)


def measure(name: str, rounds: int) -> str:
    zoo, _, network = name.partition(":")
    module = (torchvision_model if zoo == "torchvision" else timm_model)(network)
    randomize_batchnorms(module, 0)
    with tempfile.TemporaryDirectory(prefix="foldserve-bench-") as folder:
        weights = Path(folder) / "weights.pt"
        torch.save(module.state_dict(), weights)
        loaded = load(weights, LoadOptions(arch=name, input_shapes=(InputShape((3, 224, 224)),)))
        result = fold(loaded)
        if not result.proof.passed:
            return f"{name:30} not proven: {result.proof.failure}"
        paths = Path(folder) / "a.onnx", Path(folder) / "b.onnx"
        write_onnx(normalize(loaded.model), paths[0])
        write_onnx(result.model, paths[1])
        found = compare(*paths, loaded.inputs, [1, 8], rounds=rounds)
    left = f"{result.after.batchnorms} of {result.before.batchnorms}"
    nodes = f"{result.before.nodes} to {result.after.nodes}"
    one, eight = (
        f"{c.ratio:.2f} ({c.spread[0]:.2f} to {c.spread[1]:.2f})" for c in found
    )  # fmt: skip
    return f"{name:30}{left:>16}   {nodes:14}  {one:>22}   {eight}"


if __name__ == "__main__":
    main()

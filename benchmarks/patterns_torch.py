"""torch's own helpers that fold batch-norms, on the patterns that are torch modules.

    python -m benchmarks.patterns_torch torch.fx < cases

A case is a line, [source, target]: the source is named for the pattern and its variant, and the
target is an ONNX file of the module that the helper made, exported with its batch-norms kept.
"""

from __future__ import annotations

import copy
import json
import sys
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import onnx_ir as ir
import torch
from torch import nn

from converter.evaluation.normalize import normalize
from converter.sources import InputShape, examples
from converter.sources.export import export
from converter.sources.exporters import script
from patterns.registry import Module
from patterns.suite import REGISTRY


def by_fx(module: nn.Module) -> nn.Module:
    """torch.fx.experimental.optimization.fuse: traces the module, fuses conv+bn, linear+bn."""
    from torch.fx.experimental.optimization import fuse

    fused: nn.Module = fuse(module)
    return fused


def by_pairs(module: nn.Module) -> nn.Module:
    """torch.nn.utils.fusion: it fuses a pair that one hands it; here each pair of neighbours in
    an nn.Sequential, as its users' scripts do."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

    module = copy.deepcopy(module)
    for sequence in [m for m in module.modules() if isinstance(m, nn.Sequential)]:
        parts = list(sequence)
        for index, (one, norm) in enumerate(pairwise(parts)):
            if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
                continue
            if isinstance(one, nn.modules.conv._ConvNd):
                transposed = isinstance(one, nn.modules.conv._ConvTransposeNd)
                sequence[index] = fuse_conv_bn_eval(one, norm, transpose=transposed)
            elif isinstance(one, nn.Linear):
                sequence[index] = fuse_linear_bn_eval(one, norm)
            else:
                continue
            sequence[index + 1] = nn.Identity()
    return module


TORCH_TOOLS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "torch.fx": by_fx,
    "torch.nn.utils.fusion": by_pairs,
}


class Plain(nn.Module):
    """The exporter takes a module that has a `graph`, as torch.fx's have, for TorchScript."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.inner(*tensors)
        return result


def main() -> None:
    warnings.simplefilter("ignore")
    fold = TORCH_TOOLS[sys.argv[1]]
    for line in sys.stdin:
        source, target = json.loads(line)
        name, _, variant = Path(source).stem.partition("-")
        try:
            error = ""
            run(fold, REGISTRY[name], variant, Path(target))
        except Exception as problem:  # noqa: BLE001  counted as a crash
            error = f"{type(problem).__name__}: {problem}"
        print("@" + json.dumps([source, error]), flush=True)


def run(
    fold: Callable[[nn.Module], nn.Module], pattern: object, variant: str, target: Path
) -> None:
    assert isinstance(pattern, Module)
    module = pattern.module(variant, torch.float32)
    names = examples.parameters_of(module.forward)[0]
    folded = fold(module).eval()
    shapes = tuple(InputShape(s, n) for s, n in zip(pattern.shapes, names, strict=False))
    call = examples.resolve(folded, shapes, None, None, "float32")
    exported = export(folded, call) if pattern.exporter == "dynamo" else script(Plain(folded), call)
    ir.save(normalize(exported.model), target)


if __name__ == "__main__":
    main()

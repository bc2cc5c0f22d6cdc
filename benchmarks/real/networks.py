"""A network of a library with random weights that computes something, saved as users save it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.real.case import Case
from benchmarks.zoo.networks import randomize, settle_on
from converter.sources import InputShape, parse_arch_arg, parse_input_shape
from converter.sources.arch import build

SEED = 0
SETTLING = 8  # samples that the statistics are those of


def write(case: Case, file: Path) -> dict[str, Any]:
    """Build, randomise and save; returns how many parameters and whether all statistics are of
    what reaches the batch-norms."""
    torch.manual_seed(SEED)
    arguments = dict(parse_arch_arg(text) for text in case.said("--arch-arg"))
    module = build(case.said("--arch")[0], arguments).module.eval().requires_grad_(False)
    randomize(module)
    shapes = tuple(parse_input_shape(text) for text in case.said("--input-shape"))
    settled = settle_on(module, examples(shapes, SETTLING))
    torch.save(module.state_dict(), file)
    count = sum(parameter.numel() for parameter in module.parameters())
    return {"million_parameters": round(count / 1e6, 3), "settled": settled}


def examples(shapes: tuple[InputShape, ...], batch: int) -> list[torch.Tensor]:
    """Normal numbers, and zeros and ones for whole numbers."""
    generator = torch.Generator().manual_seed(SEED)
    found = []
    for shape in shapes:
        sizes = (batch, *shape.sizes)
        if shape.dtype is None or shape.dtype.startswith("float"):
            found.append(torch.randn(sizes, generator=generator))
        else:
            dtype = getattr(torch, shape.dtype)
            found.append(torch.randint(0, 2, sizes, generator=generator).to(dtype))
    return found

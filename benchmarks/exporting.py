"""A network of torch to an un-folded ONNX file whose batch is free."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def export(module: Any, shape: tuple[int, ...], path: Path) -> Path:
    """Write the network with its batch-norms as they are, by torch.export.

    Args:
        module: in evaluation mode.
        shape: of its one input, without the batch axis.
        path: of the file, which is returned.
    """
    import torch

    program = torch.onnx.export(
        module,
        (torch.randn(2, *shape),),
        dynamo=True,
        optimize=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    program.save(str(path), external_data=False)
    return path

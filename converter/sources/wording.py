"""Shapes of inputs as the command line writes them."""

from __future__ import annotations

from converter.sources.loaded import InputShape


def words(shape: InputShape) -> str:
    """`3,224,224`, `128:int64`, `(64,64)`."""
    sizes = ",".join(
        str(size) if not axis else f"{axis}={size}" if size else axis
        for size, axis in zip(shape.sizes, shape.axes or ("",) * len(shape.sizes), strict=True)
    )
    sizes = sizes if shape.batched else f"({sizes})"
    dtype = "" if shape.dtype in {None, "float32"} else f":{shape.dtype}"
    return (sizes or ("()" if not dtype else "")) + dtype

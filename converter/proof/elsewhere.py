"""Other batches and sizes, for models that do not run on the usual ones.

A model that groups its batch by four, or whose last pooling needs 48 rows, does not run on 1, 2 or
5 samples of the smallest picture. That says nothing about a fold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from converter.proof.settings import NOTHING, Setting, variables
from converter.sources.loaded import Input

BATCHES = (4, 8, 3, 16)
FACTORS = (2, 4, 8, 16)


def others(inputs: Sequence[Input], setting: Setting, dynamic: bool) -> Iterator[
    tuple[Setting, Sequence[int | None]]
]:  # fmt: skip
    """Settings and batches to try, those nearest to the usual ones first."""
    usual: Sequence[int | None] = (1, 2, 5) if dynamic else (None,)
    axes = [v for v in variables(inputs) if v.what == "size"]
    sizes = {
        str(name): size
        for item in inputs
        for name, size in zip(item.shape, item.example, strict=True)
        if isinstance(name, str)
    }
    larger = [NOTHING]
    for factor in FACTORS:
        grown = setting
        for axis in axes:
            if axis.fits(sizes[axis.name] * factor):
                grown = grown.but(axis, sizes[axis.name] * factor)
        if grown != setting and grown not in larger:
            larger.append(grown)
    for grown in larger[1:]:
        yield grown, usual
    if dynamic:
        for grown in (setting, *larger[1:]):
            yield grown, BATCHES

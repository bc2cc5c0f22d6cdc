"""Which sizes are tried where a graph leaves them open.

Twice, with other numbers for each name: an op that holds for one size only does not hold for the
other. Two sizes determine what is made of them by adding and by multiplying with numbers
(`evaluating.py` refuses the rest).
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from converter.certificate.arrays import Shape
from converter.certificate.verdict import Doubt

# For the names of first axes, and of others (divisible, as pyramids need them; large enough for
# windows): the sizes of the first and of the second run, one pair for each name.
_BATCH = ((2, 3), (5, 7), (11, 13))
_OTHERS = (
    ((64, 96), (96, 160), (32, 64)),
    ((224, 256), (256, 224), (160, 224)),
    ((6, 10), (10, 14), (14, 18)),
)
# What is tried last: a batch that is cut into fours, and sizes of sounds and of genomes.
_FOURS = ((4, 8), (8, 12), (12, 16))
_LONG = (
    ((576, 704), (704, 832), (832, 960)),
    ((2048, 2304), (2304, 2560), (2560, 2816)),
    ((12288, 12800), (12800, 13312), (13312, 13824)),
)


def given(model: ir.Model) -> list[ir.Value]:
    """The inputs. Before version 4 of the format every constant stands among them, and is one."""
    inputs = list(model.graph.inputs)
    if model.ir_version < 4:
        inputs = [value for value in inputs if value.const_value is None]
    return inputs


def attempts(model: ir.Model) -> Iterator[tuple[dict[str, int], ...]]:
    """Choices of sizes, by the names of `named`; the first that a graph can be walked with counts.

    Raises:
        Doubt: an input has no known rank, or there are too many names.
    """
    first: list[str] = []
    others: list[str] = []
    for value in given(model):
        for axis, name in enumerate(named(value)):
            if isinstance(name, str) and name not in first and name not in others:
                (others if axis else first).append(name)
    if not first and not others:
        yield ({},)
        return
    usual = [
        (_BATCH, pairs, apart)
        for pairs in (_OTHERS if others else _OTHERS[:1])
        for apart in (True, False)
    ]
    given_out: list[tuple[dict[str, int], ...]] = []
    last = [(_BATCH, pairs, False) for pairs in (_LONG if others else ())]
    for batches, pairs, apart in (*usual, (_FOURS, _OTHERS[0], False), *last):
        runs: list[dict[str, int]] = []
        for run in (0, 1):
            sizes = {n: batches[i % 3 if apart else 0][run] for i, n in enumerate(first)}
            sizes |= {n: pairs[i % 3 if apart else 0][run] for i, n in enumerate(others)}
            runs.append(sizes)
        if tuple(runs) not in given_out:
            given_out.append(tuple(runs))
            yield tuple(runs)


def one_sample(model: ir.Model, sizes: dict[str, int]) -> dict[str, int] | None:
    """The same sizes with first axes of size 1, as most models are used; None if it has none.

    What is cut off at 1 is not always what is cut off at 2, and a 1 broadcasts.
    """
    first = {named(value)[0] for value in given(model) if value.shape is not None and value.shape}
    found = {name: 1 if name in first else size for name, size in sizes.items()}
    return None if found == sizes else found


def named(value: ir.Value) -> list[int | str]:
    """The axes of an input: a size, or a name; an axis without one is named for its place."""
    if value.shape is None:
        raise Doubt(f"the input {value.name!r} has no known number of axes")
    found: list[int | str] = []
    for axis, size in enumerate(value.shape):
        if isinstance(size, int):
            found.append(size)
        else:
            found.append(size.value or f"{value.name} axis {axis}")
    return found


def shapes_at(model: ir.Model, sizes: dict[str, int]) -> dict[str, Shape]:
    return {
        value.name or "": tuple(n if isinstance(n, int) else sizes[n] for n in named(value))
        for value in given(model)
    }

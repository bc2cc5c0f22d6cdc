"""The ops that a map y = a*x + b passes: one rule per op and direction, by families.

A backward rule gets the node and the affine that acts on the node's output y, y' = a*y + b, and
returns the affine on its input(s) that has the same effect, or a refusal. A forward rule is told
which input carries the affine, x' = a*x + b: the node reads x afterwards, and the affine acts on
its outputs. Nothing is taken up here: ops that have constants to change are in `ops/`.

To add an op: write its rules with their formula as the docstring, put them into the tables at
the end of the family's file, and add a case to `tests/converter/folding/test_moves.py` and
`test_forward.py`, which run every entry.
"""

from __future__ import annotations

from converter.folding.moves import (
    arithmetic,
    chains,
    channels,
    joins,
    layout,
    leveling,
    products,
    reductions,
    same_axis,
    slicing,
    space,
)
from converter.folding.step import ForwardRule, Rule

_FAMILIES = (
    same_axis,
    layout,
    chains,  # replaces the single ops of `layout`
    space,
    channels,
    slicing,
    reductions,
    arithmetic,
    products,
)

BACKWARD: dict[str, Rule] = {
    op: rule for family in _FAMILIES for op, rule in family.BACKWARD.items()
}
FORWARD: dict[str, ForwardRule] = {
    op: rule for family in _FAMILIES for op, rule in family.FORWARD.items()
}
# Ops with several outputs, one of which carries the map: the rule gets the index of the output.
PARTS: dict[str, ForwardRule] = dict(channels.PARTS)
# Ops that let a map pass if it is on all of their inputs.
JOINS = joins.JOINS
# Ops whose other inputs may take up the inverse of the map.
LEVELED = leveling.FORWARD
# Ops that read some channels of a value, and are not affected by changes of the others.
SELECTORS = frozenset({*channels.PARTS, *slicing.FORWARD, "Gather"})

__all__ = ["BACKWARD", "FORWARD", "JOINS", "LEVELED", "PARTS", "SELECTORS"]

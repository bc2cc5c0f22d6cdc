"""Move the scale one way and the shift the other: y = a*x + b = (a*x) + b = a*(x + b/a).

This is tried last, for maps that cannot go either way as a whole. Backward through a Relu only a
scale passes, forward through the sum of a residual block only a shift: the scale may go backward
and the shift forward, or the shift b/a backward and the scale forward. A chain of several nodes
(x - mean) / std may also lose only one half, and then one node is left of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from converter.folding.affine import Affine
from converter.folding.backward import backward
from converter.folding.forward import forward
from converter.folding.mode import Mode
from converter.folding.refusal import Refusal
from converter.folding.routes import Route
from converter.folding.sites import Site
from converter.folding.view import View


def parted(site: Site, view: View, mode: Mode) -> Route | Refusal:
    """The way of a map whose two halves go, or stay, apart."""
    last = Refusal("not-linear", "no half of it can go.")
    if isinstance(site.affine, Refusal) or site.source is None:
        return last
    if not (site.affine.shifts and site.affine.scales) or site.uniform:
        return last
    for first, second in _halves(site.affine):
        back = backward(site.source, first, site.nodes[0], view, mode)
        on = forward(site.result, second, view, mode)
        if isinstance(back, Route) and isinstance(on, Route):
            return replace(back.joined(on), direction="both ways")
        if len(site.nodes) < 2:
            continue
        # Half of a chain: what stays is one node instead of two or more.
        if isinstance(back, Route) and isinstance(on, Refusal):
            if _takes_its_own_bias(back, site, view):
                continue
            return replace(back, remainder=second, because=on)
        if isinstance(on, Route) and isinstance(back, Refusal):
            return replace(on, remainder=first, because=back)
    return last


def _takes_its_own_bias(back: Route, site: Site, view: View) -> bool:
    """Whether the shift would go into an Add of the chain itself, which is removed with it."""
    return any(view.bias_behind(edit.node) in site.nodes for edit in back.edits)


def _halves(affine: Affine) -> Iterator[tuple[Affine, Affine]]:
    """(first, second) with second(first(x)) = a*x + b."""
    yield affine.scale_only(), affine.shift_only()
    if np.all(affine.scale != 0.0):
        with np.errstate(over="ignore"):
            shift = affine.shift / affine.scale
        if np.isfinite(shift).all():
            yield Affine(np.ones_like(shift), shift, affine.axis), affine.scale_only()

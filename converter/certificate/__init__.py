"""A certificate: the second graph computes what the first one computes, for every input.

What a certificate means. Let A and B be two graphs with the same inputs and outputs, and u one
rounding of a type (float32: 2^-24). If `certify(A, B)` returns `Certified`, then

    in real arithmetic, for every value of the inputs, B computes what A computes with each use of
    each of its weights, and each value that enters a non-linear op or is an output, moved by at
    most k*u: relative to the weight, or to the sum of magnitudes of what was added up in B.

That is a backward error (Wilkinson; Higham, "Accuracy and Stability of Numerical Algorithms",
ch. 1 and 3): folding rounds each weight once, and this is all that it does.

That is of real numbers: inputs and values are finite, 0 times a value is 0, and A can be computed.
Near zero a weight may be moved by k times half of the smallest number of its type. The type is that
of the weight, but no coarser than the coarsest of A's constants; casts of constants to a narrower
type round them, casts of values between types of floats are no roundings here, and B may have no
more of these to a narrower type than A. Magnitudes in B count no more than a few times as much as
the largest in A (`closeness.excused`; in sums of kernels, as what is left of a row), so large terms
that B adds and takes away again excuse nothing. The checker computes in float64: 2^-50 of a
magnitude is its own, and weights of that type may be moved by 64*k of its roundings.

Axes of open size that have one name are equally long. They are tried at two sizes and, where A can
be computed with it, with a single sample (`Certified.sizes`); names that A needs equal are taken as
equal, and no others. What B computes with sizes, A must compute, too (`origins.py`), as two sizes
do not tell 1 from N/2; and nothing that may have another size has one size at both, as what is
the same by chance (all that is left behind a large stride) must not be taken for what stays
(`telling.py`). That B can be computed at all is known of the sizes that are tried. What constant
bounds cut out of an axis is taken to lie within it.

What it does not mean. Nothing is said of how a runtime rounds while it computes, of its kernels, of
overflow, or of whether A is the right graph. Nothing is said of how far the outputs are apart: a
network may enlarge what its weights are moved by. Refused are ops that draw random numbers, ops of
another domain than ONNX's, and opsets other than 7 to the latest that is known. `NotCertified` does
not mean that the graphs differ: it is a sentence about the first value of B that is not found in A.

How it is done. As translation validation (Pnueli, Siegel and Singerman, TACAS 1998): the tool that
made B is not trusted, and none of its code is used. Every value is an affine map of atoms
(`forms.py`), an atom is an op on forms (`atoms.py`). A is walked and makes the atoms; B is walked
by the same rules and must find them. At the end the outputs must have the same forms.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from converter.certificate import signature
from converter.certificate.atoms import Space
from converter.certificate.budget import SECONDS, Budget, TooLongError
from converter.certificate.functions import inlined
from converter.certificate.sizes import attempts, equal_names, further, shapes_at
from converter.certificate.telling import Told, must_not_mix, must_tell
from converter.certificate.verdict import Certified, Doubt, NotCertified
from converter.certificate.walk import Walk, unlike_output
from converter.errors import UserError
from converter.files import slim

__all__ = ["ROUNDINGS", "Certified", "NotCertified", "certify"]

# k: weights that a fold rounds once, and rounded ones that are multiplied, stay below this.
ROUNDINGS = 3.0


def certify(
    original: ir.Model | Path, folded: ir.Model | Path, roundings: float = ROUNDINGS
) -> Certified | NotCertified:
    """Whether `folded` computes what `original` computes, for every input.

    Args:
        original, folded: graphs, or files of graphs. Neither is changed.
        roundings: k, by how many roundings a weight may be moved.

    Every exception is a `NotCertified`: this function raises none.
    """
    start = time.perf_counter()
    try:
        found = _certify(_read(original), _read(folded), roundings)
    except Doubt as why:
        found = NotCertified(f"{why}.")
    except TooLongError:
        found = NotCertified(
            f"following both graphs takes more than {SECONDS:g} seconds of processor time."
        )
    except MemoryError:
        found = NotCertified("there is not enough memory to follow both graphs.")
    except (UserError, OSError) as error:
        found = NotCertified(f"a file could not be read: {str(error).rstrip('.')}.")
    except Exception as error:  # noqa: BLE001 - whatever happens, nothing was shown
        words = str(error).strip().splitlines()
        found = NotCertified(
            f"the check failed: {type(error).__name__}{': ' + words[0] if words else ''}."
        )
    return replace(found, seconds=time.perf_counter() - start)


def _read(model: ir.Model | Path) -> ir.Model:
    if isinstance(model, Path):
        model = slim.read(model)
        for value in model.graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                raise Doubt("a file has weights beside it, which are not looked for")
    return inlined(model)


@dataclass(frozen=True, eq=False)
class _Run:
    """Both graphs at one choice of sizes.

    Attributes:
        moved, weights: as in `Certified`.
        told: what depends on sizes, of either graph.
    """

    sizes: dict[str, int]
    moved: float
    weights: int
    told: tuple[Told, Told]


def _certify(first: ir.Model, second: ir.Model, k: float) -> Certified | NotCertified:
    signature.check(first, second)
    memory: dict[Any, Any] = {}
    budget = Budget()
    doubt: Doubt | None = None
    pairs: dict[tuple[int, ...], list[tuple[_Run, ...]]] = {}
    more: dict[tuple[int, ...], list[_Run]] = {}
    for sizes in attempts(first):
        runs: list[_Run] = []
        equal = equal_names(sizes[0])
        try:
            for chosen in sizes:
                found = _at(first, second, k, chosen, memory, budget)
                if isinstance(found, NotCertified):
                    return found
                runs.append(found)
        except _Unfit as why:
            doubt = doubt or why
        # What was tried before with the same names equal counts as well, and what is the same in
        # two runs may be another in a third.
        more.setdefault(equal, []).extend(runs)
        if len(runs) == len(sizes):
            pairs.setdefault(equal, []).append(tuple(runs))
        for pair in pairs.get(equal, [])[:1]:
            for tried in (runs, more[equal]):
                if len(tried) < len(pair):
                    continue
                try:
                    _must_tell(tried)
                except Doubt as why:
                    doubt = doubt or why
                    continue
                return _with_others(first, second, k, tried, memory, budget)
    assert doubt is not None
    raise doubt


def _with_others(
    first: ir.Model, second: ir.Model, k: float, runs: list[_Run], memory: dict[Any, Any],
    budget: Budget,
) -> Certified | NotCertified:  # fmt: skip
    """What these runs certify, with others where the first graph can be walked with them."""
    for sizes in further(first, runs[0].sizes):
        try:
            found = _at(first, second, k, sizes, memory, budget)
        except _Unfit:
            continue
        if isinstance(found, NotCertified):
            return found
        runs = [*runs, found]
    nodes = ir.traversal.RecursiveGraphIterator(first.graph)
    norms = sum(node.op_type == "BatchNormalization" for node in nodes)
    moved, weights = max(run.moved for run in runs), max(run.weights for run in runs)
    return Certified(norms, weights, moved, k, tuple(run.sizes for run in runs), 0.0)


class _Unfit(Doubt):
    """The first graph cannot be walked at these sizes."""


def _must_tell(runs: list[_Run]) -> None:
    if len(runs) < 2:  # no size is open
        return
    must_not_mix([run.told for run in runs])
    for whose, place in (("in the original, ", 0), ("", 1)):
        try:
            must_tell([run.told[place] for run in runs])
        except Doubt as why:
            raise Doubt(f"{whose}{why}") from why


def _at(
    first: ir.Model, second: ir.Model, k: float, sizes: dict[str, int], memory: dict[Any, Any],
    budget: Budget,
) -> _Run | NotCertified:  # fmt: skip
    """At one choice of sizes.

    Raises:
        _Unfit: the first graph cannot be walked at these.
        Doubt: the second graph computes with sizes what the first one does not.
    """
    space = Space(k, free=bool(sizes), budget=budget)
    one = Walk(first, space, shapes_at(first, sizes), memory)
    other = Walk(second, space, shapes_at(second, sizes), memory)
    try:
        found = _walked(one, other, space, second.graph.outputs)
        if isinstance(found, NotCertified):
            return found
        return _Run(sizes, *found, (one.told, other.told))
    finally:
        one.let_go()
        other.let_go()


def _walked(
    one: Walk, other: Walk, space: Space, outputs: Sequence[ir.Value]
) -> tuple[float, int] | NotCertified:
    with np.errstate(all="ignore"):  # what is not finite is refused where it would count
        try:
            expected = one.run()
        except Doubt as why:
            raise _Unfit(f"in the original, {why}") from why
        space.second = True
        try:
            found = other.run()
        except Doubt as why:
            return NotCertified(f"{why}.", *space.here)
        unlike = unlike_output(one.context, space, outputs, expected, found)
        if unlike is not None:
            return (space.misses[0] if space.misses else unlike).told(space.k)
    space.names.check()
    for op, count in other.context.narrowed.items():
        if op != "DOUBLE" and count > one.context.narrowed.get(op, 0):
            raise Doubt(f"the graph casts to {op} more often than the original")
    return space.largest, other.context.weights

"""Values as affine maps of atoms: sum of s_i * atom_i + t.

A constant Mul, Add, Sub, Div or batch-norm changes a form and makes no atom: so it does not matter
where in a graph a batch-norm stands, or into which weights it went. All numbers are float64.

Beside the numbers goes what they may be off by: `m` (for t, absolute) and `u` (for every s,
relative). In the second graph a constant c of its type's unit roundoff u may be moved by k
roundings, k*u*|c|, so m is k*u times the sum of magnitudes of what was added up in t. In the first
graph constants are exact. In both, 2^-50 of the magnitude is for the checker's own arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from converter.certificate.arrays import Array, Shape, aligned, count
from converter.certificate.atoms import Atom
from converter.certificate.origins import Sizes
from converter.certificate.stored import Stored
from converter.certificate.verdict import Doubt

# What the checker's own arithmetic may be off by, relative to magnitudes.
OWN = 2.0**-50
# Values that are added up and stay apart.
_TERMS = 512


@dataclass(frozen=True, eq=False)
class Form:
    """A computed value.

    Attributes:
        shape: of the value, at the sizes that are being tried.
        terms: atom -> s, broadcastable to `shape` and of its rank; no s is zero all over.
        t: broadcastable likewise.
        m: what t may be off by, absolute, of t's kind.
        u: what each s may be off by, relative.
        real: whether it is of a floating-point type; other values have one term, s = 1, t = 0.
    """

    shape: Shape
    terms: Mapping[Atom, Array]
    t: Array
    m: Array
    u: float = 0.0
    real: bool = True

    def __post_init__(self) -> None:
        assert np.all(self.m >= 0), "a bound is negative"
        assert self.u >= 0

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(sorted(atom.id for atom in self.terms))

    @property
    def single(self) -> tuple[Atom, Array]:
        """Its only atom and the scale."""
        ((atom, s),) = self.terms.items()
        return atom, s

    def scaled(self, c: Array, u: float = 0.0) -> Form:
        """c times it; c is off by u, relative."""
        c = aligned(c, self.rank)
        terms = {atom: s * c for atom, s in self.terms.items()}
        t = self.t * c
        # What is added to it later does not know of c, so t is off by what c is.
        m = self.m * np.abs(c) + u * np.abs(t)
        return checked(replace(self, terms=terms, t=t, m=m, u=max(self.u, u)))

    def shifted(self, c: Array, m: Array) -> Form:
        """It plus c, which is off by m."""
        c, m = aligned(c, self.rank), aligned(m, self.rank)
        t = self.t + c
        return checked(replace(self, t=t, m=self.m + m + own(self.t, c)))

    def plus(self, other: Form) -> Form:
        """The sum of two values of one shape."""
        assert self.shape == other.shape
        terms = dict(self.terms)
        if len(terms) + len(other.terms) > _TERMS:
            raise Doubt(f"more than {_TERMS:,} values are added up")
        for atom, s in other.terms.items():
            terms[atom] = terms[atom] + s if atom in terms else s
        return checked(
            Form(
                self.shape,
                terms,
                self.t + other.t,
                self.m + other.m + own(self.t, other.t),
                max(self.u, other.u),
            )
        )


def own(*parts: Array) -> Array:
    """What the checker's sum of these may be off by: nothing where one of two is zero."""
    first, second = parts
    both = (first != 0) & (second != 0)
    return np.where(both, OWN * (np.abs(first) + np.abs(second)), 0.0)


def checked(form: Form) -> Form:
    """Without terms that are zero.

    Raises:
        Doubt: a number overflows, or is none.
    """
    if not (np.isfinite(form.t).all() and np.isfinite(form.m).all()):
        raise Doubt("a constant is infinite or not a number")
    kept = {}
    for atom, s in form.terms.items():
        if not np.isfinite(s).all():
            raise Doubt("a scale is infinite or not a number")
        if s.any():
            kept[atom] = s
    return form if len(kept) == len(form.terms) else replace(form, terms=kept)


def of_atom(atom: Atom, shape: Shape, *, real: bool = True) -> Form:
    one, zero = np.ones((1,) * len(shape)), np.zeros((1,) * len(shape))
    return Form(shape, {atom: one}, zero, zero, real=real)


def constant(shape: Shape, t: Array, m: Array) -> Form:
    """A value without an atom."""
    return checked(Form(shape, {}, aligned(t, len(shape)), aligned(m, len(shape))))


@dataclass(frozen=True, eq=False)
class Known:
    """A constant.

    Attributes:
        numbers: float64, or of its own type where that is no float; or where to read floats from.
        unit: one rounding of its type, relative; 0 for whole numbers.
        tiny: half of the smallest number of its type: what a rounding may be off by near zero.
        sized: how it was computed from sizes of values; None if it was not.
        undefined: why a number of it is not finite, as 0 / 0 is; "" where all are, or where it is
            a constant of the graph. A Where may choose another number in its place.
    """

    numbers: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | Stored
    unit: float = 0.0
    tiny: float = 0.0
    sized: Sizes | None = None
    undefined: str = ""

    @property
    def array(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """The numbers; those of a large weight are read anew each time.

        Raises:
            Doubt: one of them is none.
        """
        if not isinstance(self.numbers, Stored):
            return self.numbers
        array = self.numbers.whole().astype(np.float64)
        if np.isnan(array).any():
            raise Doubt(f"the constant {self.numbers.name!r} has a number that is none")
        return array

    @property
    def shape(self) -> Shape:
        return self.numbers.shape

    @property
    def size(self) -> int:
        return count(self.shape)

    @property
    def real(self) -> bool:
        return isinstance(self.numbers, Stored) or self.numbers.dtype == np.float64


def transposed(value: Known, perm: tuple[int, ...]) -> Known:
    numbers = value.numbers
    moved = numbers.transposed(perm) if isinstance(numbers, Stored) else numbers.transpose(perm)
    return replace(value, numbers=moved)


def reshaped(value: Known, shape: Shape) -> Known:
    numbers = value.numbers
    moved = numbers.reshaped(shape) if isinstance(numbers, Stored) else numbers.reshape(shape)
    return replace(value, numbers=moved)


Value = Form | Known | None

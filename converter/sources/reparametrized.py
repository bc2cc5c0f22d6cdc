"""Weights that are stored in a form other than the architecture's: pruned, normalised, old, new.

For a weight w of a module, with the names that torch gives:

    plain                   w
    pruned                  w_orig * w_mask                               torch.nn.utils.prune
    weight norm, old        w_g * w_v / |w_v|                             arXiv:1602.07868, eq. 2
    weight norm, new        parametrizations.w.original0 (g), original1 (v)
    spectral norm, old      w_orig / s,  s = w_u' mat(w_orig) w_v         arXiv:1802.05957, sec. 2.1
    spectral norm, new      parametrizations.w.original, parametrizations.w.0._u, 0._v

|v| is taken over the axes where g has one entry; mat() has the output channels as its rows. Every
form becomes a plain weight, and the old and the new form of a norm become each other. A plain
weight becomes g = |w|, v = w. It has no spectral form: s would divide it once more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

Parts = dict[str, Tensor]

# The names of a form's parts; {0} is the module's path with its dot, {1} the name of the weight.
FORMS: dict[str, dict[str, str]] = {
    "plain": {"w": "{0}{1}"},
    "pruned": {"orig": "{0}{1}_orig", "mask": "{0}{1}_mask"},
    "old weight norm": {"g": "{0}{1}_g", "v": "{0}{1}_v"},
    "new weight norm": {
        "g": "{0}parametrizations.{1}.original0",
        "v": "{0}parametrizations.{1}.original1",
    },
    "old spectral norm": {"orig": "{0}{1}_orig", "u": "{0}{1}_u", "v": "{0}{1}_v"},
    "new spectral norm": {
        "orig": "{0}parametrizations.{1}.original",
        "u": "{0}parametrizations.{1}.0._u",
        "v": "{0}parametrizations.{1}.0._v",
    },
}
_ENDINGS = re.compile(r"(?:_orig|_mask|_[guv])$")
_NEW = re.compile(r"parametrizations\.([^.]+)\.(?:original[01]?|0\._[uv])$")


@dataclass(frozen=True)
class Site:
    """A weight of the architecture: the path of its module with the dot, its name, its form."""

    path: str
    name: str
    form: str

    def names(self, form: str) -> dict[str, str]:
        return {part: text.format(self.path, self.name) for part, text in FORMS[form].items()}


def site_of(name: str) -> str:
    """The name that the plain weight has, or would have."""
    return _ENDINGS.sub("", _NEW.sub(r"\1", name))


def adapt(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], module: nn.Module
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors in the forms that the architecture has, and a note for each kind of change.

    Args:
        wanted: the names and shapes of the architecture's state.
    """
    found = dict(tensors)
    changes: dict[str, int] = {}
    for site in _sites(wanted):
        have = _form(site, found)
        change = CHANGES.get((have, site.form)) if have else None
        if change is None:
            continue
        old, new = site.names(have), site.names(site.form)
        axis = _rows_axis(module, site.path)
        parts = change({part: found[name] for part, name in old.items()}, new, wanted, axis)
        if parts is None:
            continue
        for name in old.values():
            del found[name]
        found.update({new[part]: tensor for part, tensor in parts.items()})
        what = f"{have} to {site.form}" if site.form != "plain" else have
        changes[what] = changes.get(what, 0) + 1
    return found, [_note(what, count) for what, count in changes.items()]


def _sites(wanted: Mapping[str, Tensor]) -> list[Site]:
    """Every weight of the architecture that may be in another form in the file."""
    found: dict[str, Site] = {}
    for whole in wanted:
        plain = site_of(whole)
        if plain in found:
            continue
        path, dot, name = plain.rpartition(".")
        site = Site(path + dot, name, "plain")
        form = _form(site, wanted)
        # A name that only looks like a part of a form (bias_v of attention) is a plain weight.
        found[plain] = Site(site.path, name, form) if form else Site("", whole, "plain")
    return list(found.values())


def _form(site: Site, names: Collection[str]) -> str:
    """The form in which the names hold this weight; "" if there is none."""
    return next(
        (form for form in FORMS if all(n in names for n in site.names(form).values())),
        "",
    )


def _rows_axis(module: nn.Module, path: str) -> int:
    """The axis of the output channels, which become the rows of mat()."""
    try:
        layer = module.get_submodule(path.removesuffix("."))
    except AttributeError:
        return 0
    return 1 if isinstance(layer, _ConvTransposeNd) else 0


def _masked(parts: Parts, *_: object) -> Parts | None:
    return {"w": parts["orig"] * parts["mask"].to(parts["orig"].dtype)}


def _multiplied(parts: Parts, *_: object) -> Parts | None:
    g, v = parts["g"].double(), parts["v"].double()
    return {"w": (v * (g / _length(v, g))).to(parts["v"].dtype)}


def _split(
    parts: Parts, new: Mapping[str, str], wanted: Mapping[str, Tensor], _: int
) -> Parts | None:
    length = _length(parts["w"].double(), wanted[new["g"]])
    return {"g": length.to(parts["w"].dtype), "v": parts["w"]}


def _length(v: Tensor, g: Tensor) -> Tensor:
    """|v| in the shape of g: over the axes where g has one entry."""
    if g.ndim != v.ndim:
        return v.square().sum().sqrt().reshape(g.shape)
    axes = [axis for axis, size in enumerate(g.shape) if size == 1]
    return v.square().sum(axes, keepdim=True).sqrt() if axes else v.abs()


def _divided(
    parts: Parts, _new: Mapping[str, str], _wanted: Mapping[str, Tensor], axis: int
) -> Parts | None:
    weight = parts["orig"].double()
    rows = weight.movedim(axis, 0).flatten(1)
    if (len(parts["u"]), len(parts["v"])) != tuple(rows.shape):
        return None
    sigma = torch.dot(parts["u"].double(), rows @ parts["v"].double())
    return {"w": (weight / sigma).to(parts["orig"].dtype)}


def _renamed(parts: Parts, *_: object) -> Parts | None:
    return parts


# (form in the file, form of the architecture) -> the function that turns one into the other.
CHANGES: dict[tuple[str, str], Callable[..., Parts | None]] = {
    ("pruned", "plain"): _masked,
    ("old weight norm", "plain"): _multiplied,
    ("new weight norm", "plain"): _multiplied,
    ("old spectral norm", "plain"): _divided,
    ("new spectral norm", "plain"): _divided,
    ("old weight norm", "new weight norm"): _renamed,
    ("new weight norm", "old weight norm"): _renamed,
    ("old spectral norm", "new spectral norm"): _renamed,
    ("new spectral norm", "old spectral norm"): _renamed,
    ("plain", "old weight norm"): _split,
    ("plain", "new weight norm"): _split,
}
_WORDS = {
    "pruned": "pruned: their masks were applied",
    "old weight norm": "stored as a length and a direction (weight_norm), and multiplied out",
    "new weight norm": "stored as a length and a direction (weight_norm), and multiplied out",
    "old spectral norm": "stored with their spectral norm, and divided by it",
    "new spectral norm": "stored with their spectral norm, and divided by it",
}


def _note(what: str, count: int) -> str:
    are = f"{count} weight{'' if count == 1 else 's'} {'is' if count == 1 else 'are'}"
    return f"{are} {_WORDS[what]}" if what in _WORDS else f"{are} brought from {what}"

"""Which of a file's sets of weights is meant, in this order:

1. the one that the user names (`--weights`);
2. of those that fit the architecture, the averaged ones (EMA, SWA): they are what training scripts
   evaluate, and what authors publish. An average of zero steps does not count;
3. then the first of the usual names (`weight_sets.USUAL`);
4. sets that are the parts of one network, joined.

Where names do not decide ("student" and "teacher" of one size), the user has to choose. The notes
always name what is not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from converter.errors import UserError
from converter.sources import weight_sets
from converter.sources.fitting import COUNTER, Fit, fits
from converter.sources.mismatch import mismatch
from converter.sources.weight_sets import WeightSet, counted, listed


@dataclass(frozen=True)
class Chosen:
    """Weights under the architecture's names, and one sentence for each thing that was done."""

    tensors: dict[str, Tensor]
    notes: list[str]


def choose(
    sets: list[WeightSet], module: nn.Module, path: Path, arch: str, key: str | None
) -> Chosen:
    """The weights of `module` among the sets.

    Args:
        arch: how the user named the architecture, for messages.
        key: what `--weights` says.

    Raises:
        UserError: none fits, several do and no name tells which is meant, or `key` is not there.
    """
    every = sets
    if key is not None:
        sets = under(sets, key, path)
    found = [fit for weights in sets for fit in fits(weights, module)]
    wanted = {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}
    buffers = {name for name, _ in module.named_buffers()} & wanted.keys()
    whole = _distinct([fit for fit in found if fit.complete])
    halves = _distinct([fit for fit in found if _parameters_only(fit, buffers)])
    if not whole and not halves:
        whole = [f for s in weight_sets.joined(sets) for f in fits(s, module) if f.complete]
    averages = [fit for fit in (*whole, *halves) if _averaged(fit)]
    plain = [fit for fit in whole if fit not in averages]
    if halves and not plain and key is not None:  # their buffers lie elsewhere in the file
        plain = [f for s in every for f in fits(s, module) if f.complete and not _averaged(f)]
    usable = [fit for fit in averages if fit.complete or plain]
    if usable:
        fit = _first(usable, path, arch)
    elif whole:
        fit = _first(plain or whole, path, arch)
    elif halves and not wanted.keys() - halves[0].tensors.keys() - _counters(wanted):
        fit = _first(halves, path, arch)
    else:
        raise _none_fits(path, arch, every, sets, found, wanted)
    notes = [] if key is None else [f"the weights under {fit.label!r} were taken, as you said"]
    tensors = fit.tensors
    if not fit.complete:
        tensors, note = _completed(fit, _first(plain, path, arch), wanted)
        notes.append(note)
    unused = _unused(every, fit)
    if key is None and (fit.trail or unused):
        notes.append(_why(fit, averages, [*whole, *halves], unused, arch))
    if unused:
        notes.append(
            f"not used: {', '.join(unused)}"
            + ("" if all("(1 tensor)" in u for u in unused) else "; --weights NAME takes others")
        )
    return Chosen(tensors, notes + fit.notes)


def preferred(sets: list[WeightSet]) -> WeightSet | None:
    """The set that the names say is meant; None when they do not say."""
    averaged = [s for s in sets if weight_sets.is_averaged(s.trail) and s.tensors]
    ranked = sorted(averaged or sets, key=lambda s: weight_sets.rank(s.trail))
    if len(ranked) > 1 and weight_sets.rank(ranked[0].trail) == weight_sets.rank(ranked[1].trail):
        return None
    return ranked[0] if ranked else None


def under(sets: list[WeightSet], key: str, path: Path) -> list[WeightSet]:
    """The sets that lie under `key`, or the part of a set whose names begin with it.

    Raises:
        UserError: there is nothing under it.
    """
    below = [s for s in sets if s.label == key or s.label.startswith(f"{key}.")]
    exact = [s for s in below if s.label == key]
    if below:
        return exact or below
    found = []
    for weights in sets:
        start = f"{weights.label}." if weights.trail else ""
        prefix = f"{key.removeprefix(start)}."
        inner = {n: t for n, t in weights.tensors.items() if _unwrapped(n).startswith(prefix)}
        if key.startswith(start) and inner:
            counts = weights.counts
            found.append(WeightSet(weights.trail, inner, counts=counts))
    if not found:
        raise UserError(
            f"{path} holds no weights under {key!r}. It holds {_every_name(sets)}",
            "give one of these names to --weights",
        )
    return found


def _unwrapped(name: str) -> str:
    return name.replace("_orig_mod.", "").removeprefix("module.")


def _every_name(sets: list[WeightSet]) -> str:
    """The labels of the sets; of a single set, the first parts of its names, as subsets of it."""
    names = []
    for weights in sets:
        groups: dict[str, int] = {}
        for name in weights.tensors:
            first, dot, _ = _unwrapped(name).partition(".")
            groups[first] = groups.get(first, 0) + bool(dot)
        inner = [
            counted(".".join((*weights.trail, group)), count)
            for group, count in groups.items()
            if count
        ]
        names += [weights.described()] if weights.trail else []
        names += inner if len(inner) <= 8 and not weights.trail else []
    return ", ".join(names) or listed(sets) or "none at all"


def _distinct(whole: list[Fit]) -> list[Fit]:
    """Of fits with identical tensors, as in {"model": m, "best": m}, only the first by rank."""
    kept: list[Fit] = []
    for fit in sorted(whole, key=lambda fit: weight_sets.rank(fit.trail)):
        same = (
            other
            for other in kept
            if _averaged(other) == _averaged(fit) and _equal(other.tensors, fit.tensors)
        )
        if next(same, None) is None:
            kept.append(fit)
    return kept


def _equal(mine: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return mine.keys() == other.keys() and all(
        torch.equal(tensor, other[name]) for name, tensor in mine.items()
    )


def _parameters_only(fit: Fit, buffers: set[str]) -> bool:
    """Whether only buffers are missing: averages often cover the parameters alone."""
    return (
        bool(fit.missing)
        and not fit.unexpected
        and not fit.misshapen
        and set(fit.missing) <= buffers
    )


def _averaged(fit: Fit) -> bool:
    if fit.weights.exchanged and fit.trail:
        return fit.trail[0] == "state_dict"
    return weight_sets.is_averaged(fit.trail) and not _empty(fit)


def _empty(fit: Fit) -> bool:
    """Whether the file says that nothing has been averaged yet."""
    return any(not number for number in fit.counts().values()) and weight_sets.is_averaged(
        fit.trail
    )


def _first(found: list[Fit], path: Path, arch: str) -> Fit:
    """The fit with the smallest rank.

    Raises:
        UserError: several share the smallest rank.
    """
    least = min((_empty(fit), weight_sets.rank(fit.trail)) for fit in found)
    best = [fit for fit in found if (_empty(fit), weight_sets.rank(fit.trail)) == least]
    best = [fit for fit in best if fit.complete] or best
    if len(best) > 1:
        names = ", ".join(counted(fit.label, len(fit.tensors)) for fit in best)
        raise UserError(
            f"{path} holds several sets of weights that are those of {arch}: {names}. No name "
            "tells which is meant",
            f"say which: --weights {best[0].label}",
        )
    return best[0]


def _completed(fit: Fit, base: Fit, wanted: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Averaged parameters with the buffers of the plain weights, as training scripts apply them."""
    added = {k: base.tensors[k] for k in wanted if k not in fit.tensors and k in base.tensors}
    names = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in added))
    where = f"under {base.label!r}" if base.trail else "beside them"
    note = f"{fit.label!r} holds parameters alone: {names} are those of the weights {where}"
    return {**fit.tensors, **added}, note


def _counters(wanted: Mapping[str, Tensor]) -> set[str]:
    return {name for name in wanted if name.endswith(COUNTER)}


def _why(fit: Fit, averages: list[Fit], fitting: list[Fit], unused: list[str], arch: str) -> str:
    where = f"the weights under {fit.label!r}" if fit.trail else "the outermost weights"
    empty = [other.label for other in fitting if _empty(other)]
    if not unused and fit.complete:
        return f"{where} were taken"
    if fit in averages:
        return f"{where} were taken: averaged weights are the ones that are evaluated"
    if empty and not _empty(fit):
        return f"{where} were taken: those under {empty[0]!r} are an average of no steps yet"
    if len(fitting) > 1:
        return f"{where} were taken: of those that fit, the name is the usual one"
    return f"{where} were taken, which are those of {arch}"


def _unused(sets: list[WeightSet], fit: Fit) -> list[str]:
    """Everything with tensors that was not taken."""
    taken = fit.weights.parts or (fit.weights.trail,)
    if not fit.weights.parts:  # --weights may have taken a part of a set
        for weights in (s for s in sets if s.trail == fit.weights.trail):
            fit.beside += [n for n in weights.tensors if n not in fit.weights.tensors]
    others = [s.described() for s in sets if s.trail not in taken]
    return fit.described_beside() + others


def _none_fits(
    path: Path,
    arch: str,
    every: list[WeightSet],
    sets: list[WeightSet],
    found: list[Fit],
    wanted: Mapping[str, Tensor],
) -> UserError:
    """The refusal: what does not fit in the set that fits best."""
    if not found:
        return UserError(
            f"{path} holds {listed(sets)}: tensors without names, whose number and shapes are not "
            f"those of {arch}",
            "save the model's state_dict(), which has names",
        )
    best = min(
        found, key=lambda f: (-f.matching, f.problems * bool(f.matching), weight_sets.rank(f.trail))
    )
    return UserError(*mismatch(best, wanted, str(path), arch, every if len(every) > 1 else []))

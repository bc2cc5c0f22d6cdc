"""Which sets of weights a checkpoint holds: every mapping with tensors, however deep it lies.

A training script saves the last weights, averaged ones (EMA, SWA), those of several networks, and
the state of its optimizer. Here they are listed; `choosing` says which of them is meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

MOST = 100_000  # containers; a few that hold each other could be walked without end
DEEPEST = 16  # levels of containers; a pickle may hold itself

# Where training scripts keep weights, the most telling name first.
USUAL = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "params",
    "net",
    "network",
    "module",
    "weights",
)
# Averaged weights, as a part of a name: params_ema, ema_model, modelEMA, swa_state_dict.
AVERAGED = re.compile(
    r"(^|[^a-z])(ema|swa|swag|averaged?|averaging|avg|polyak|shadow)([^a-z]|$)", re.IGNORECASE
)
# Where an average keeps the weights that it follows (ema_pytorch: ema.online_model).
LIVE = re.compile(r"online(_model)?|current_model(_state)?|source_model", re.IGNORECASE)
_OPTIMIZER = re.compile(r"(\w+_)?(opt|optims?|optimi[sz]ers?)(_states?|_state_dict|_\w)?")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# How many steps went into an average: if none, it is a copy of the weights before training.
COUNTERS = ("n_averaged", "num_updates", "updates", "initted")
# What optimizers store for each weight (torch.optim).
MOMENTS = frozenset(
    {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "exp_avg_diff", "square_avg"}
    | {
        "sqr_avg",
        "neg_pre_grad",
        "momentum_buffer",
        "grad_avg",
        "acc_delta",
        "sum",
        "prev",
        "step_size",
    }
)


@dataclass(frozen=True)
class WeightSet:
    """Tensors that lie together in a file.

    Attributes:
        trail: the keys and places that lead to them, from the outermost.
        tensors: by name; empty when they have none.
        unnamed: the tensors of a list, in its order.
        module: the whole module that a trusted pickle holds here; `tensors` is its state then.
        counts: numbers beside them that say how many steps an average is made of.
        parts: for sets that are read as one, the trails of those.
        exchanged: whether the averaged weights are under the plain name, and the plain ones
            under the averaged: mmengine's EMAHook exchanges them when it saves.
    """

    trail: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    unnamed: tuple[Tensor, ...] = ()
    module: nn.Module | None = None
    counts: Mapping[str, float] = field(default_factory=dict)
    parts: tuple[tuple[str, ...], ...] = ()
    exchanged: bool = False

    @property
    def label(self) -> str:
        """The label that `--weights` takes."""
        return ".".join(self.trail)

    @property
    def size(self) -> int:
        return len(self.tensors) or len(self.unnamed)

    def described(self) -> str:
        """ "params_ema (12 tensors)"."""
        return counted(self.label or "the outermost level", self.size)


def counted(name: str, count: int) -> str:
    return f"{name} ({count} tensor{'' if count == 1 else 's'})"


def is_averaged(trail: Iterable[str]) -> bool:
    """Whether a key on the way says that the weights are averaged ones."""
    found = False
    for key in trail:
        found = not LIVE.fullmatch(key) and (found or bool(AVERAGED.search(_CAMEL.sub("_", key))))
    return found


def rank(trail: Iterable[str]) -> tuple[int, ...]:
    """The smaller, the more likely the weights are the ones meant; equal where no name decides."""
    places: list[int] = []
    for key in trail:
        places.append(USUAL.index(key) if key in USUAL else len(USUAL))
        if key not in USUAL:
            break
    return tuple(places)


def find(content: Any) -> list[WeightSet]:
    """Every set of weights in a file's content, in the file's order."""
    found = list(_walk(content, (), {}, _Left()))
    meta = content.get("meta") if isinstance(content, Mapping) else None
    exchanged = (
        isinstance(meta, Mapping) and "mmengine_version" in meta and "ema_state_dict" in content
    )
    return [replace(weights, exchanged=exchanged) for weights in found]


def joined(sets: list[WeightSet]) -> list[WeightSet]:
    """Sets that may be the parts of one network: {"encoder": ..., "decoder": ...}, one for each
    level of the file that has several, with the keys as prefixes of the names."""
    found = []
    levels = dict.fromkeys(s.trail[:depth] for s in sets for depth in range(len(s.trail)))
    for level in levels:
        below = [s for s in sets if s.trail[: len(level)] == level and s.tensors]
        if len(below) > 1:
            tensors = {
                ".".join((*s.trail[len(level) :], name)): tensor
                for s in below
                for name, tensor in s.tensors.items()
            }
            found.append(WeightSet(level, tensors, parts=tuple(s.trail for s in below)))
    return found


@dataclass
class _Left:
    """What is left to look at, and the containers that the walk is inside of."""

    count: int = MOST
    inside: set[int] = field(default_factory=set)


def _walk(
    value: Any, trail: tuple[str, ...], beside: Mapping[str, float], left: _Left
) -> Iterator[WeightSet]:
    if not isinstance(value, nn.Module | Mapping | list | tuple):
        # An object of a trusted pickle: an average with its own class keeps its weights like this.
        value = None if isinstance(value, type) else getattr(value, "__dict__", None)
        if type(value) is not dict:
            return
    if len(trail) > DEEPEST or id(value) in left.inside or not left.count:
        return
    left.count -= 1
    left.inside.add(id(value))
    yield from _walk_container(value, trail, beside, left)
    left.inside.discard(id(value))


def _walk_container(
    value: Any, trail: tuple[str, ...], beside: Mapping[str, float], left: _Left
) -> Iterator[WeightSet]:
    if isinstance(value, nn.Module):
        yield WeightSet(trail, _tensors(value.state_dict()), module=value, counts=beside)
    elif isinstance(value, Mapping):
        yield from _walk_mapping(value, trail, beside, left)
    elif isinstance(value, list | tuple):
        if value and all(isinstance(item, Tensor) for item in value):
            if _are_weights(value):
                yield WeightSet(trail, {}, unnamed=tuple(value), counts=beside)
            return
        for index, item in enumerate(value):
            yield from _walk(item, (*trail, str(index)), {}, left)


def _walk_mapping(
    value: Mapping[Any, Any],
    trail: tuple[str, ...],
    beside: Mapping[str, float],
    left: _Left,
) -> Iterator[WeightSet]:
    if "param_groups" in value:
        return  # an optimizer's state
    tensors = _tensors(value)
    counts = {**beside, **_counts(value)}
    if tensors.keys() <= MOMENTS:
        tensors = {}
    if _are_weights(tensors.values()):
        yield WeightSet(trail, tensors, counts=counts)
    for key, inner in value.items():
        if not isinstance(inner, Tensor) and not _OPTIMIZER.fullmatch(str(key)):
            yield from _walk(inner, (*trail, str(key)), counts, left)


def _tensors(value: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(key): inner for key, inner in value.items() if isinstance(inner, Tensor)}


def _are_weights(tensors: Iterable[Tensor]) -> bool:
    """Whether these are weights, not states of random generators or single measured numbers."""
    tensors = list(tensors)
    return any(t.is_floating_point() or t.is_complex() for t in tensors) and any(
        t.ndim for t in tensors
    )


def _counts(value: Mapping[Any, Any]) -> dict[str, float]:
    found = {}
    for key in COUNTERS:
        number = value.get(key)
        if isinstance(number, Tensor) and number.numel() == 1:
            number = number.item()
        if isinstance(number, int | float):
            found[key] = number
    return found


def listed(sets: list[WeightSet]) -> str:
    return ", ".join(weights.described() for weights in sets)

"""How a set of weights fits an architecture: under which prefix, and which names do not fit.

Wrappers put their names before those of the network: `module.` (DataParallel), `_orig_mod.`
(torch.compile), `model.` or any other attribute (a LightningModule), `ema_model.` (an average),
and several of them at once. The prefix is found from a name of the architecture that stands at
the end of a name in the file; everything below it must fit, names and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from converter.sources.reparametrized import adapt, site_of
from converter.sources.weight_sets import WeightSet, counted

COUNTER = "num_batches_tracked"
# What torch's wrappers insert anywhere in a name: torch.compile, FSDP, activation checkpoints,
# and (if the architecture has no such name itself) DataParallel.
WRAPPED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")
# Weights that belong to the training: a loss, a metric. The network does not compute with them.
OF_TRAINING = re.compile(
    r"(\w+_)?(loss|losses|loss_?fn|criterions?|criteria|metrics?|acc|accuracy|auroc|f1|confmat)"
    r"(_(fn|func|function|train|val|valid|test|\d+))?",
    re.IGNORECASE,
)


@dataclass
class Fit:
    """A set of weights, or a part of it, under the names of the architecture.

    Attributes:
        weights: the set that it is taken from.
        prefix: what stood before the names, with its last dot.
        tensors: by the architecture's names; what does not fit is still among them.
        beside: names in the set that are not below the prefix, or belong to the training.
        missing, unexpected, misshapen: the names that do not fit.
        notes: what was done with names and forms.
    """

    weights: WeightSet
    prefix: str
    tensors: dict[str, Tensor]
    beside: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.misshapen)

    @property
    def problems(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)

    @property
    def matching(self) -> int:
        return len(self.tensors) - len(self.unexpected) - len(self.misshapen)

    @property
    def trail(self) -> tuple[str, ...]:
        """The keys that lead to the weights; the last of them are the parts of the prefix."""
        return (*self.weights.trail, *filter(None, self.prefix.split(".")))

    @property
    def label(self) -> str:
        """The label that `--weights` takes."""
        return ".".join(self.trail)

    def counts(self) -> Mapping[str, float]:
        """How many steps the average is made of, where the file states it beside the weights."""
        return self.weights.counts

    def described_beside(self) -> list[str]:
        """The parts of the set that are not used, by the first part of their names."""
        groups: dict[str, int] = {}
        for name in self.beside:
            group = name.partition(".")[0]
            groups[group] = groups.get(group, 0) + 1
        where = f"{self.weights.label}." if self.weights.trail else ""
        return [counted(where + group, count) for group, count in groups.items()]


def fits(weights: WeightSet, module: nn.Module) -> list[Fit]:
    """The ways in which the set may be the architecture's weights: at least one, one per prefix.

    A fit may be incomplete. A list of tensors without names fits when their shapes come in order.
    """
    wanted = {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}
    if weights.unnamed:
        named = _named(weights, module, wanted)
        return [named] if named else []
    names, notes = _unwrapped(weights.tensors, wanted)
    undotted = _undotted(weights, names, module, wanted)
    dotted = [
        _fit(weights, prefix, names, notes, wanted, module)
        for prefix in _prefixes(names, module, wanted)
    ]
    if notes and not any(fit.complete for fit in dotted):
        # A wrapper around the network alone gives a prefix that names beside it do not have.
        raw = {name: (name, tensor) for name, tensor in weights.tensors.items()}
        again = [
            _fit(weights, prefix, raw, [], wanted, module)
            for prefix in _prefixes(raw, module, wanted)
        ]
        dotted += [fit for fit in again if fit.complete]
    return dotted + undotted


def _prefixes(
    names: Mapping[str, tuple[str, Tensor]], module: nn.Module, wanted: Mapping[str, Tensor]
) -> Iterator[str]:
    """No prefix, and those under which the first weight of the architecture is found."""
    first = next((name for name, _ in module.named_parameters()), next(iter(wanted), ""))
    anchor = site_of(first)
    found = {""}
    for name in names:
        site = site_of(name)
        if site.endswith(f".{anchor}"):
            found.add(site.removesuffix(anchor))
    if len(found) == 1 and not {site_of(name) for name in names} & {site_of(n) for n in wanted}:
        # For the message about weights that do not fit: a prefix that every name has.
        common = {name.partition(".")[0] + "." for name in names}
        found |= common if len(common) == 1 else set()
    yield from sorted(found, key=len)


def _fit(
    weights: WeightSet,
    prefix: str,
    names: Mapping[str, tuple[str, Tensor]],
    notes: list[str],
    wanted: Mapping[str, Tensor],
    module: nn.Module,
) -> Fit:
    inner = {n.removeprefix(prefix): t for n, (_, t) in names.items() if n.startswith(prefix)}
    beside = [old for n, (old, _) in names.items() if not n.startswith(prefix)]
    children = {name.partition(".")[0] for name in wanted}
    for name in list(inner):
        child = name.partition(".")[0]
        if child not in children and OF_TRAINING.fullmatch(child):
            beside.append(prefix + name)
            del inner[name]
    tensors, more = adapt(inner, wanted, module)
    tied = _tied(wanted, tensors)
    tensors |= {name: tensors[other] for name, other in tied.items()}
    more += [f"{len(tied)} tied to other weights are stored once"] if tied else []
    taken = [f"{prefix} was taken off the weights' names"] if prefix else []
    fit = Fit(weights, prefix, tensors, beside, notes=[*notes, *taken, *more])
    compare(fit, wanted)
    return fit


def _tied(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Names that the file leaves out because they share a tensor -> the name that it is under."""
    keys = {name: _place(tensor) for name, tensor in wanted.items()}
    held = {key: name for name, key in keys.items() if key is not None and name in tensors}
    return {n: held[key] for n, key in keys.items() if n not in tensors and key in held}


def _place(tensor: Tensor) -> tuple[object, ...] | None:
    """Where its numbers lie; None where there are none. A transposed view is another tensor."""
    if is_lazy(tensor) or tensor.device.type == "meta" or not tensor.numel():
        return None
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def compare(fit: Fit, wanted: Mapping[str, Tensor]) -> None:
    """Note what is missing, left over, or of another shape."""
    tensors = fit.tensors
    fit.missing = [k for k in wanted if k not in tensors and not k.endswith(COUNTER)]
    fit.unexpected = [k for k in tensors if k not in wanted]
    fit.misshapen = [
        f"{k} is {tuple(tensors[k].shape)}, not {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in tensors and not is_lazy(v) and tensors[k].shape != v.shape
    ]


def _unwrapped(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> tuple[dict[str, tuple[str, Tensor]], list[str]]:
    """The names without wrappers -> (the name in the file, the tensor), and a note on them."""
    named = {name: tensor for name, tensor in tensors.items() if name != "n_averaged"}
    own = {part for name in wanted for part in name.split(".")}
    gone = [part for part in WRAPPED if part not in own]
    renamed = {
        ".".join(part for part in name.split(".") if part not in gone): (name, tensor)
        for name, tensor in named.items()
    }
    if len(renamed) != len(named):  # two would have the same name: the wrapper tells them apart
        return {name: (name, tensor) for name, tensor in named.items()}, []
    used = [part for part in gone if any(part in name.split(".") for name in named)]
    notes = [f"{' and '.join(f'{p}.' for p in used)} was taken off the weights' names"]
    return renamed, notes if used else []


def _named(weights: WeightSet, module: nn.Module, wanted: Mapping[str, Tensor]) -> Fit | None:
    """A list of tensors as the architecture's parameters, or as its whole state, in order."""
    parameters = {name: wanted[name] for name, _ in module.named_parameters() if name in wanted}
    uncounted = {k: v for k, v in wanted.items() if not k.endswith(COUNTER)}
    for names in (wanted, uncounted, parameters):
        shapes = [tensor.shape for tensor in names.values() if not is_lazy(tensor)]
        if shapes == [tensor.shape for tensor in weights.unnamed]:
            tensors = dict(zip(names, weights.unnamed, strict=True))
            note = "tensors without names were taken in the order of the network's"
            fit = Fit(weights, "", tensors, notes=[note])
            compare(fit, wanted)
            return fit
    return None


def _undotted(
    weights: WeightSet,
    names: Mapping[str, tuple[str, Tensor]],
    module: nn.Module,
    wanted: Mapping[str, Tensor],
) -> list[Fit]:
    """Averages that are kept as buffers, whose names may have no dots: layer1.0.bn1.weight is
    `model_ema.layer10bn1weight` (latent diffusion's LitEma)."""
    dotted = {name.replace(".", ""): name for name, _ in module.named_parameters()}
    if len(dotted) != sum(1 for _ in module.named_parameters()):
        return []
    first = next(iter(dotted), "")
    fitting = []
    for start in (n for n in names if first and n.endswith(first) and "." in n):
        prefix = start.removesuffix(first)  # "model_ema.", or "model_ema.diffusion_model"
        inner = {n.removeprefix(prefix): t for n, (_, t) in names.items() if n.startswith(prefix)}
        tensors = {dotted[name]: tensor for name, tensor in inner.items() if name in dotted}
        if len(tensors) != len(dotted) or tensors.keys() == inner.keys() & tensors.keys():
            continue
        level = prefix.rpartition(".")[0] + "."
        taken = {prefix + name for name in dotted}
        beside = [old for n, (old, _) in names.items() if n not in taken]
        note = f"the names under {level} have no dots and were given theirs"
        fit = Fit(weights, level, tensors, beside, notes=[note])
        compare(fit, wanted)
        fitting.append(fit)
    return fitting

"""How a network and the weights of a file differ, and what that suggests."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from converter.errors import UserError
from converter.sources.fitting import Fit, compare
from converter.sources.weight_sets import WeightSet, listed


def mismatch(
    fit: Fit, wanted: Mapping[str, Tensor], where: str, what: str, every: list[WeightSet]
) -> tuple[str, str]:
    """What does not fit, and what its shapes suggest, in two sentences."""
    complaints = "; ".join(
        f"{len(items)} {words}: {', '.join(items[:3])}{', ...' if len(items) > 3 else ''}"
        for items, words in (
            (fit.missing, "missing"),
            (fit.unexpected, "unexpected"),
            (fit.misshapen, "of another shape"),
        )
        if items
    )
    message = f"the weights of {where} are not those of {what}: {complaints}"
    if every:
        message = (
            f"{where} holds several sets of weights: {listed(every)}. None of them is that of "
            f"{what}; of {fit.label or 'the outermost'!r}, the nearest, are {complaints}"
        )
    return message, _advice(wanted, fit.tensors)


def check(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str, what: str
) -> None:
    """Raises UserError where names or shapes differ."""
    fit = Fit(WeightSet((), tensors), "", dict(tensors))
    compare(fit, wanted)
    if not fit.complete:
        raise UserError(*mismatch(fit, wanted, where, what, []))


def _advice(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """What the shapes suggest: another number of classes or input channels, or another network."""
    differing = [
        (tensors[name], tensor)
        for name, tensor in wanted.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    sizes = {(file.shape[:1], built.shape[:1]) for file, built in differing}
    if len(sizes) == 1 and all(file.shape[1:] == built.shape[1:] for file, built in differing):
        classes = differing[-1][0].shape[0]
        return f"the file's classifier has {classes} outputs: try --arch-arg num_classes={classes}"
    if len(differing) == 1 and differing[0][0].ndim >= 3:
        channels = differing[0][0].shape[1]
        return f"the file's first layer takes {channels} channels: --arch-arg in_chans={channels}?"
    return "choose the --arch and --arch-arg values that the weights were trained with"

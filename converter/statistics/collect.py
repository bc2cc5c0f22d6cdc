"""The statistics of a whole data set, gathered at the inputs of the norms.

Weights are fixed and every module is in evaluation mode (no dropout, nothing learns). Of the
activations that reach a norm only their moments are kept, so that memory does not grow with the
data. Which activations those are depends on how the norms before it normalise:

* `layerwise`: by their final statistics. The norms are done in the order in which the data reach
  them, with a pass for each that ends at it: exactly what inference will compute, whatever the
  batches are. K norms cost about K/2 full passes.
* `onepass`: each by the moments of its own batch, as in training (Wu and Johnson, "Rethinking
  'Batch' in BatchNorm", 2021, arXiv 2105.07576, section 3: PreciseBN). One pass; the
  statistics behind the first norm depend on the batch size.
* `collect`: by the stored statistics, and nothing changes. After `layerwise` it returns what that
  has stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from converter.architectures.modules import evaluating
from converter.errors import UserError
from converter.statistics.moments import Moments
from converter.statistics.norms import moments_of, store, stored

# Starts a new pass over the data: inputs of the network, (N, ...) each.
Batches = Callable[[], Iterator[Tensor]]
Tracked = Mapping[str, _NormBase]
Progress = Callable[[str], None]


class _Reached(BaseException):
    """The norm that a pass is for has got its input: the rest of the network need not run."""


def order_of(module: nn.Module, norms: Tracked, x: Tensor) -> dict[str, int]:
    """Name -> number of calls, in the order in which the first call of each comes."""
    calls: dict[str, int] = {}

    def count(name: str, _: Tensor) -> None:
        calls[name] = calls.get(name, 0) + 1

    with evaluating(module), _watched(norms, count):
        module(x)
    return calls


def layerwise(
    module: nn.Module, norms: Tracked, batches: Batches, progress: Progress = lambda _: None
) -> dict[str, Moments]:
    """Population statistics, norm by norm; each is stored in its norm before the next one.

    A norm that is called more than once gets the moments of all its calls; the inputs of later
    calls were normalised by its old statistics in the first one.

    Returns:
        Name -> moments, in the order in which the data reach the norms. Norms that no data
        reach are not in it and stay as they are.

    Raises:
        UserError: a value is not finite, or a norm is not reached by every batch.
    """
    first = next(batches(), None)
    calls = {} if first is None else order_of(module, norms, first)
    found: dict[str, Moments] = {}
    for number, (name, times) in enumerate(calls.items(), start=1):
        progress(f"statistics of {name} ({number} of {len(calls)})")
        total = Moments.none(0)
        for x in batches():
            total = _input_moments(module, {name: norms[name]}, name, times, x, total)
        found[name] = total
        store(norms[name], total.mean, total.variance)
    return found


def _input_moments(
    module: nn.Module, norms: Tracked, name: str, times: int, x: Tensor, total: Moments
) -> Moments:
    """`total` and the moments of what reaches one norm, which is called `times` times."""
    of = moments_of(norms[name])
    left = times

    def take(_: str, given: Tensor) -> None:
        nonlocal total, left
        total, left = _merged(total, of(given), name), left - 1
        if not left:
            raise _Reached

    with evaluating(module), _watched(norms, take):
        try:
            module(x)
        except _Reached:
            return total
    raise UserError(
        f"{name} is reached in some batches only: the network decides in Python what it runs",
        "use --mode onepass",
    )


def onepass(
    module: nn.Module, norms: Tracked, batches: Batches, progress: Progress = lambda _: None
) -> dict[str, Moments]:
    """Population statistics of every norm in one pass, each batch normalised by its own moments.

    Returns and raises as `layerwise` does; the norms keep what they hold if it raises.
    """
    before = {name: stored(norm) for name, norm in norms.items()}

    def normalise_by_itself(name: str, moments: Moments) -> None:
        store(norms[name], moments.mean, moments.variance)

    try:
        found = collect(module, norms, batches, progress, normalise_by_itself)
    except BaseException:
        for name, values in before.items():
            store(norms[name], *values)
        raise
    for name, values in before.items():
        final = (found[name].mean, found[name].variance) if name in found else values
        store(norms[name], *final)
    return found


def collect(
    module: nn.Module,
    norms: Tracked,
    batches: Batches,
    progress: Progress = lambda _: None,
    before_each: Callable[[str, Moments], None] = lambda _name, _moments: None,
) -> dict[str, Moments]:
    """The moments of what reaches each norm in one pass.

    Args:
        before_each: called with the moments of each call before the norm runs.

    Raises:
        UserError: a value is not finite.
    """
    found: dict[str, Moments] = {}

    def take(name: str, given: Tensor) -> None:
        moments = moments_of(norms[name])(given)
        found[name] = _merged(found.get(name, Moments.none(0)), moments, name)
        before_each(name, moments)

    progress("statistics of all norms")
    with evaluating(module), _watched(norms, take):
        for x in batches():
            module(x)
    return found


@contextmanager
def _watched(norms: Tracked, see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call `see(name, input)` before each norm runs."""
    with ExitStack() as stack:
        for name, norm in norms.items():

            def hook(_: nn.Module, args: Any, kwargs: dict[str, Any], name: str = name) -> None:
                see(name, (args or tuple(kwargs.values()))[0].detach())

            handle = norm.register_forward_pre_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        yield


def _merged(total: Moments, new: Moments, name: str) -> Moments:
    if not new.finite:
        raise UserError(
            f"what reaches {name} is not finite: NaN or infinity has no mean",
            "look at the weights before it, and at the scale of the data",
        )
    return new if not total.count else total.merge(new)

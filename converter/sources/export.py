"""Turn a torch module into an ONNX graph that keeps its batch-norms, and that has been run.

Each of torch's two exporters writes, for some models, graphs that do not load, that compute
something else, or that hold for one batch size only. So an export is run before it is accepted: see
`ATTEMPTS` for the order, and `trial` for the test.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from converter.errors import UserError, gist
from converter.sources import trial
from converter.sources.calls import BATCH, Call
from converter.sources.exporters import Exported, dynamo, reason, script
from converter.sources.interface import NameOutputsPass
from converter.sources.loaded import Reference
from converter.sources.outputs import leaves
from converter.sources.randomness import refuse_random
from converter.sources.remembered import forgotten, outputs_of

__all__ = ["ATTEMPTS", "Exported", "export", "leaves", "reference", "script"]


@dataclass(frozen=True)
class Attempt:
    """One way to a graph.

    Attributes:
        exporter: its name in sentences.
        make: what calls it.
        free: whether the batch axis may vary.
        resizable: whether the other axes that the call leaves open may vary.
        others: batch sizes, besides the example's, at which the graph must agree with the module;
            for a model that only runs on groups of rows, as many multiples of the example's.
    """

    exporter: str
    make: Callable[..., Exported]
    free: bool
    resizable: bool = False
    others: tuple[int, ...] = ()


# Best first; the next one runs only when those before it failed.
ATTEMPTS = (
    # The first two are for calls that leave other axes than the batch open.
    Attempt("torch.export", dynamo, True, True, (3,)),
    Attempt("TorchScript", script, True, True, (1, 5)),
    # Follows sizes as symbols, names each module, and shares the weights' memory.
    Attempt("torch.export", dynamo, True, False, (3,)),
    # A trace: it follows any Python, but keeps the choices made for the example, so it must agree
    # at more sizes. It comes before a fixed batch, because a server wants batches.
    Attempt("TorchScript", script, True, False, (1, 5)),
    # Code that is written for one size.
    Attempt("torch.export", dynamo, False),
    Attempt("TorchScript", script, False),
)


_INSTEAD = "export it to .onnx yourself, with its batch-norms kept, and fold that"


class Fixed(Exception):
    """The graph is right, but its batch axis cannot vary."""


class ModuleFails(Exception):
    """The module itself does not run with another batch than the example's."""


def export(module: nn.Module, call: Call, attempts: Sequence[Attempt] = ATTEMPTS) -> Exported:
    """Turn a module in eval mode into a graph; its output names come from `call.output`.

    Raises:
        UserError: when no attempt gives a graph that runs and computes what the module computes,
            or the module's output is random.
    """
    _register_dataclasses(call.output)
    failures: list[tuple[Attempt, Exception]] = []
    for attempt in attempts:
        if (attempt.free and call.batch == 1) or (attempt.resizable and not call.has_open_axes):
            continue
        try:
            used = call if attempt.free else _alone(module, call)
            exported = _made(module, used, attempt)
        except Exception as error:  # noqa: BLE001  the exporters run the user's code
            if not failures:
                refuse_random(partial(outputs_of, module, *call.arguments()), call.output)
            failures.append((attempt, error))
            continue
        exported.notes += _notes(attempt, used, call, failures)
        exported.reference = reference(used, exported)
        return exported
    raise _refusal(failures) from failures[-1][1]


def _made(module: nn.Module, call: Call, attempt: Attempt) -> Exported:
    """A graph that has been run, with its outputs named. Raises the error of the attempt."""
    with forgotten(module):
        exported = attempt.make(module, call, free=attempt.free, resizable=attempt.resizable)
    NameOutputsPass([name for name, _ in leaves(call.output)])(exported.model)
    if attempt.free and not exported.dynamic_batch:
        raise Fixed
    trial.check(exported.model, samples(module, call, attempt.others, attempt.resizable))
    return exported


# How sizes are changed for a second comparison; the first at which the module runs is taken.
_CHANGES: tuple[Callable[[int], int], ...] = (
    lambda n: n + 1, lambda n: n + 32, lambda n: 2 * n, lambda n: n // 2, lambda n: n - 1,
)  # fmt: skip


def samples(
    module: nn.Module, call: Call, others: Sequence[int], resized: bool
) -> Iterator[trial.Sample]:
    """The example with the module's output for it, and other batches with other numbers.

    `resized`: the other batches have other sizes as well, where the call leaves them open.

    Raises:
        ModuleFails: the module does not run with them.
    """

    def ask(tensors: Sequence[torch.Tensor]) -> Any:
        return outputs_of(module, *call.filled(tensors))

    def sample(tensors: Sequence[torch.Tensor], output: Any) -> trial.Sample:
        return trial.Sample(dict(zip(call.names, tensors, strict=True)), output, ask)

    yield sample(call.tensors(), call.output)
    if call.batch > BATCH:
        others = [call.batch * times for times in range(2, 2 + len(others))]
    for batch in others:
        other = replace(call, batch=batch)
        failure: Exception | None = None
        for changed in [other.resized(change) for change in _CHANGES] if resized else [other]:
            for seed in (1, 0):  # not every whole number is a valid index for this model
                tensors = changed.tensors(seed)
                try:
                    output = ask(tensors)
                except Exception as error:  # noqa: BLE001  the user's code
                    failure = failure or error
                    continue
                yield sample(tensors, output)
                break
            else:
                continue
            break
        else:
            assert failure is not None
            sizes = "and other sizes" if resized else ""
            raise ModuleFails(f"with a batch of {batch} {sizes}: {gist(failure)}") from failure


def _alone(module: nn.Module, call: Call) -> Call:
    """The call for one sample, or as it is when the module only runs with a batch."""
    if call.batch == 1:
        return call
    alone = replace(call, batch=1)
    try:
        return replace(alone, output=outputs_of(module, *alone.arguments()))
    except Exception:  # noqa: BLE001  the user's code
        return call


def _notes(
    attempt: Attempt, used: Call, call: Call, failures: Sequence[tuple[Attempt, Exception]]
) -> Iterator[str]:
    """Which exporter was taken and why the others failed; empty when the first one worked."""
    if call.has_open_axes and not attempt.resizable:
        open_ones = {a.exporter: _said(e) for a, e in failures if a.resizable}
        why = "; ".join(f"{name}: {said}" for name, said in open_ones.items())
        yield f"only the batch may vary, the other sizes are fixed at {_sizes(used)}: {why}"
    if not attempt.free and call.batch > 1:
        free = {a.exporter: _said(e) for a, e in failures if a.free and not a.resizable}
        why = "; ".join(f"{name}: {said}" for name, said in free.items())
        yield f"the batch size is fixed at {used.batch}: {why}"
    if attempt.make is script and failures:
        before = next((e for a, e in reversed(failures) if a.free == attempt.free), failures[0][1])
        yield f"the TorchScript exporter was used, as torch.export failed: {_said(before)}"


def _sizes(call: Call) -> str:
    return " ".join(",".join(map(str, s.sizes)) for s in call.shapes if any(s.axes))


def _said(error: Exception) -> str:
    if isinstance(error, Fixed):
        return "the model's code depends on the batch size"
    if isinstance(error, ModuleFails):
        return f"the model itself fails {error}"
    if isinstance(error, trial.DoesNotRun):
        return f"its graph does not run in onnxruntime, {error}"
    if isinstance(error, trial.Differs):
        return f"its graph is wrong: {error}"
    return reason(error)


def _refusal(failures: Sequence[tuple[Attempt, Exception]]) -> UserError:
    """The error for a model without a good graph; the attempt that came nearest says most."""
    fixed = [(a, e) for a, e in failures if not a.free] or list(failures)
    each = "; ".join(f"{attempt.exporter}: {_said(error)}" for attempt, error in fixed)
    if any(isinstance(error, trial.Differs) for _, error in failures):
        return UserError(
            f"no export of the model to ONNX computes what the model computes. {each}", _INSTEAD
        )
    if any(isinstance(error, trial.DoesNotRun) for _, error in failures):
        return UserError(
            f"the model's export to ONNX does not run, before anything is folded. {each}",
            "write that part of the model in operations that the exporters know, or " + _INSTEAD,
        )
    return UserError(f"the model cannot be exported to ONNX. {each}", _INSTEAD)


def reference(call: Call, exported: Exported) -> Reference | None:
    """The example and the module's output for it, under the graph's names.

    None when the graph's inputs or outputs do not correspond one to one to those of the module.
    """
    graph = exported.model.graph
    tensors = [tensor for _, tensor in leaves(call.output)]
    if len(graph.inputs) != len(call.names) or len(graph.outputs) != len(tensors):
        return None
    return Reference(
        {str(v.name): t.numpy() for v, t in zip(graph.inputs, call.tensors(), strict=True)},
        {str(v.name): t.detach().numpy() for v, t in zip(graph.outputs, tensors, strict=True)},
    )


def _register_dataclasses(value: Any) -> None:
    """Register the dataclasses in the output, which torch.export refuses to return otherwise."""
    if isinstance(value, dict):
        children: Iterator[Any] = iter(value.values())
    elif isinstance(value, list | tuple):
        children = iter(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        with contextlib.suppress(ValueError):  # known already
            torch.export.register_dataclass(type(value))
        children = (getattr(value, f.name) for f in dataclasses.fields(value))
    else:
        return
    for child in children:
        _register_dataclasses(child)

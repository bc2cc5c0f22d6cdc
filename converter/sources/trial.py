"""Test that an exported graph runs and computes what the module computes.

Each graph is run in onnxruntime on the example and on another batch, and compared with the module.
Two correct kernels may sum in different orders, so they differ by some roundings, which a deep or
ill-conditioned network amplifies. Where it matters, the amplification is measured: the module runs
again on its input moved by 2 units in the last place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from converter.evaluation.oracle import Oracle, OracleError
from converter.evaluation.runtime import Runner, RunnerError, runner
from converter.graph.naming import scope
from converter.sources.outputs import leaves

Array = npt.NDArray[Any]
Ask = Callable[[Sequence[torch.Tensor]], Any]

# Relative to the largest value in a channel: far above the difference between kernels in a
# well-conditioned network, far below the error of a wrong graph.
TOLERANCE = 1e-4
# Roundings happen in every layer, not only at the input; a sensitive network may differ this many
# times as much as its output does for moved inputs.
SENSITIVE = 30
MOVED = 2.0**-22  # 2 units in the last place of float32

# Recurrent kernels fail only at run time where they have no float64; a graph that was exported in
# float64 on request is not wrong because of that.
_NO_DOUBLE = "does not support double"

_WHERE = (
    re.compile(r"running (?P<op>\w+) node\. Name:'(?P<node>[^']*)' Status Message: (?P<why>.*)"),
    re.compile(r"Node ?\((?P<node>[^)]*)\) Op ?\((?P<op>\w+)\) (?P<why>.*)"),
    re.compile(r"(?P<why>implementation) for (?P<op>\w+)\(\d+\) node with name '(?P<node>[^']*)'"),
    re.compile(r"for the node (?P<node>[^:]*):(?P<op>\w+)\((?P<why>.*)"),
)
_NOISE = (
    re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"Load model from \S+ failed: ?"),
    re.compile(r"\S+\.(cc|h|cpp):\d+ "),
    re.compile(r"\[\w+Error\] "),
)


@dataclass(frozen=True)
class Sample:
    """One call of the module.

    Attributes:
        tensors: by the module's names for its inputs, in its order.
        output: what it returned.
        ask: calls it again, with other tensors.
    """

    tensors: dict[str, torch.Tensor]
    output: Any
    ask: Ask


class DoesNotRun(Exception):
    """onnxruntime cannot load or run the graph; the message says which node and why."""


class Differs(Exception):
    """It computes something other than the module; or the module contradicts itself."""


def check(model: ir.Model, samples: Iterable[Sample]) -> None:
    """Run the graph on each sample and compare it with the module.

    What has no counterpart is run but not compared: an output that is not a tensor in the module.

    Raises:
        DoesNotRun, Differs.
    """
    if _trains(model):
        return  # onnxruntime for inference has no such batch-norms; the fold says so
    try:
        run = runner(model, optimize=False)
    except RunnerError as error:
        raise DoesNotRun(explained(str(error), model)) from error
    for sample in samples:
        _check(model, run, sample)


def _trains(model: ir.Model) -> bool:
    return any(
        node.op_type == "BatchNormalization" and node.attributes.get_int("training_mode", 0) == 1
        for node in model.graph.all_nodes()
    )


def _check(model: ir.Model, run: Runner, sample: Sample) -> None:
    names = [str(value.name) for value in model.graph.inputs]
    tensors = sample.tensors
    if len(names) == len(tensors):
        tensors = dict(zip(names, tensors.values(), strict=True))
    elif not set(names) <= set(tensors):
        return  # the exporter turned them into other inputs
    feeds = {name: tensors[name].numpy() for name in names}
    size = "a batch of " + str(next((len(f) for f in feeds.values() if f.ndim), 1))
    try:
        found: list[Array] | None = list(run.run(feeds).values())
    except RunnerError as error:
        if _NO_DOUBLE not in str(error):
            raise DoesNotRun(f"with {size}: {explained(str(error), model)}") from error
        found = _emulated(model, feeds)
    except OracleError:
        found = None
    if found is None:
        return  # emulated by an oracle that lacks an op: the proof will say so
    wanted = _arrays(sample.output)
    if len(found) != len(wanted):
        return
    moved: list[list[Array]] | None = None
    names = [str(value.name) for value in model.graph.outputs]
    for index, (name, mine, theirs) in enumerate(zip(names, found, wanted, strict=True)):
        if agree(mine, theirs):
            continue
        if moved is None:
            again = _arrays(sample.ask(list(sample.tensors.values())))
            if not all(map(agree, again, wanted)):
                raise Differs("the module answers the same input differently each time")
            moved = _moved(sample)
        if not _explains(mine, theirs, [other[index] for other in moved]):
            if agree(_in_float64(model, feeds, index), theirs):
                continue  # the graph is right, only the kernel is inaccurate
            raise Differs(f"with {size}, {_difference(name, mine, theirs)}")


def _emulated(model: ir.Model, feeds: dict[str, Array]) -> list[Array] | None:
    """The graph's outputs, emulated where the runtime has a kernel without float64."""
    try:
        return list(Oracle(model).run(feeds).values())
    except OracleError:
        return None


def _in_float64(model: ir.Model, feeds: dict[str, Array], index: int) -> Array:
    """An output of the graph by the float64 oracle; empty where that cannot compute it.

    onnxruntime's Sigmoid and Tanh have an absolute error near 1e-8, which is much of an output of
    1e-7.
    """
    try:
        return list(Oracle(model).run(feeds).values())[index]
    except OracleError:
        return np.empty(0)


def _arrays(output: Any) -> list[Array]:
    return [tensor.detach().numpy() for _, tensor in leaves(output)]


def agree(mine: Array, theirs: Array, slack: Array | float = 0.0) -> bool:
    """Whether both are the same to `TOLERANCE`, channel by channel, and `slack` more."""
    if mine.shape != theirs.shape:
        return False
    if theirs.dtype.kind not in "fc":
        return bool(np.array_equal(mine, theirs))
    finite = np.isfinite(theirs)
    if not np.array_equal(finite, np.isfinite(mine)) or not finite.any():
        return bool(np.array_equal(finite, np.isfinite(mine)))
    with np.errstate(invalid="ignore"):
        gap = np.where(finite, np.abs(mine.astype(np.float64) - theirs), 0.0)
    size = np.where(finite, np.abs(theirs), 0.0).astype(np.float64)
    allowed = TOLERANCE * _by_channel(size) + 1e-7 * size.max() + slack
    return bool((_by_channel(gap) <= allowed).all())


def _by_channel(array: Array) -> Array:
    """The largest value of each channel, which is axis 1 where there is one."""
    if array.ndim < 2:
        return np.asarray(array.max(initial=0.0))
    return np.asarray(np.moveaxis(array, 1, 0).reshape(array.shape[1], -1).max(1, initial=0.0))


def _moved(sample: Sample) -> list[list[Array]]:
    """The module's outputs when its floating inputs are moved by a rounding or two."""
    answers = []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        tensors = [
            t * (1 + MOVED * torch.randn(t.shape, generator=generator).to(t.dtype))
            if t.is_floating_point()
            else t
            for t in sample.tensors.values()
        ]
        answers.append(_arrays(sample.ask(tensors)))
    return answers


def _explains(mine: Array, theirs: Array, moved: Sequence[Array]) -> bool:
    """Whether the module itself varies as much as the graph differs from it."""
    if any(other.shape != theirs.shape for other in moved):
        return True  # how many boxes are found depends on a rounding
    if mine.shape != theirs.shape:
        return False
    if theirs.dtype.kind not in "fc":
        return any(not np.array_equal(other, theirs) for other in moved)
    with np.errstate(invalid="ignore"):
        gaps = [_by_channel(np.nan_to_num(np.abs(other - theirs))) for other in moved]
    return agree(mine, theirs, SENSITIVE * np.max(gaps, axis=0).astype(np.float64))


def _difference(name: str, mine: Array, theirs: Array) -> str:
    if mine.shape != theirs.shape:
        return f"output {name!r} has the shape {mine.shape}, the module's is {theirs.shape}"
    if theirs.dtype.kind not in "fc":
        count = int((mine != theirs).sum())
        return f"output {name!r} differs from the module's in {count} of {theirs.size} values"
    with np.errstate(invalid="ignore"):
        gap = np.nan_to_num(np.abs(mine.astype(np.float64) - theirs)).max()
        size = np.nan_to_num(np.abs(theirs)).max()
    return (
        f"output {name!r} differs from the module's by {gap:.2g}, where the largest is {size:.2g}"
    )


def explained(message: str, model: ir.Model) -> str:
    """onnxruntime's message as op, node and reason, with the module that the node is from."""
    text = " ".join(message.split())
    for pattern in _NOISE:
        text = pattern.sub("", text)
    where = next((found for pattern in _WHERE if (found := pattern.search(text))), None)
    if where is None:
        return text[:240]
    why = where["why"].strip()[:200].rstrip(". )")
    why = "onnxruntime has no kernel for it" if why == "implementation" else why
    node = next((n for n in model.graph.all_nodes() if n.name == where["node"]), None)
    module = scope(node) if node is not None else ""
    inside = f" (in the module {module})" if module else ""
    return f"{where['op']} {where['node']!r}{inside}: {why}"

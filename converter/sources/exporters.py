"""The two exporters of torch, each told to keep the batch-norms.

Nothing is optimised here: both would fold batch-norms by themselves, silently.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import nn
from torch.jit._trace import TracerWarning

from converter.graph.zero_biases import DropZeroBiasesPass
from converter.sources import inputs
from converter.sources.calls import Call
from converter.sources.interface import NameInputsPass, RenameAxisPass
from converter.sources.loaded import Reference
from converter.system.quiet import silent

# What the exporter writes for its own debugging: stack traces with paths of this machine.
DEBUG_METADATA = (
    "pkg.torch.onnx.stack_trace",
    "pkg.torch.onnx.fx_node",
    "pkg.torch.onnx.original_node_name",
)


@dataclass
class Exported:
    """A graph, and facts of its export; `sizes` are those of the example, by axis name."""

    model: ir.Model
    dynamic_batch: bool
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    reference: Reference | None = None
    sizes: dict[str, int] = field(default_factory=dict)


def dynamo(
    module: nn.Module, call: Call, *, free: bool | None = None, resizable: bool = True
) -> Exported:
    """Export by torch.export; the graph's weights share the module's memory.

    Args:
        free: whether the batch axis may vary; by default unless the call's batch is 1.
        resizable: whether other axes that the call leaves open may vary.

    Raises whatever the exporter raises.
    """
    batch = torch.export.Dim("batch")
    names = _open_axes(call, free, resizable)
    axes = [
        {
            i: batch if name == "batch" and not i else torch.export.Dim.DYNAMIC
            for i, name in a.items()
        }
        or None
        for a in names
    ]
    with silent(), _taking_tensors(module, call) as flat:
        args, kwargs = flat.arguments()
        shapes: Any = dict(zip(flat.names, axes, strict=True))
        program = torch.onnx.export(
            module,
            args,
            kwargs=kwargs or None,
            dynamo=True,
            optimize=False,
            dynamic_shapes=({flat.star: tuple(axes)} if flat.star else shapes)
            if any(axes)
            else None,
            verbose=False,
        )
    assert program is not None
    model = program.model
    strip_debug_metadata(model)
    DropZeroBiasesPass()(model)
    if not call.is_plain and len(model.graph.inputs) == len(call.names):
        NameInputsPass(call.names)(model)
    for value, named in zip(model.graph.inputs, names, strict=False):
        for axis, name in named.items():
            size = value.shape[axis] if value.shape is not None else 0
            if not isinstance(size, int) and size.value:
                RenameAxisPass(str(size.value), name)(model)
    return Exported(model, _dynamic(model, call), sizes=_sizes(model, call))


def script(
    module: Any, call: Call, *, free: bool | None = None, resizable: bool = True
) -> Exported:
    """Export by the TorchScript exporter, told to keep the batch-norms (PRESERVE, no folding).

    Args:
        free, resizable: as for `dynamo`.

    Raises whatever the exporter raises.
    """
    names = list(call.names)
    axes = _open_axes(call, free, resizable)
    with tempfile.TemporaryDirectory(prefix="foldserve-") as folder:
        path = Path(folder) / "model.onnx"
        with (
            silent() as caught,
            _no_graphs(),
            torch.no_grad(),
            _taking_tensors(module, call) as flat,
        ):
            args, kwargs = flat.arguments()
            torch.onnx.export(
                module,
                args,
                str(path),  # a file: protobuf in memory ends at 2 GB, files have side files
                kwargs=kwargs or None,
                dynamo=False,
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
                input_names=names,
                dynamic_axes={n: named for n, named in zip(names, axes, strict=True) if named},
            )
        model = ir.load(path)
        ir.external_data.load_to_model(model)  # the folder is deleted below
    return Exported(
        model,
        _dynamic(model, call),
        warnings=_tracer_warnings(caught),
        sizes=_sizes(model, call),
    )


def _open_axes(call: Call, free: bool | None, resizable: bool) -> list[dict[int, str]]:
    """For each input, the names of the axes that may vary."""
    free = call.batch > 1 if free is None else free
    found = []
    for name, shape in zip(call.names, call.shapes, strict=True):
        axes = {0: "batch"} if free and shape.batched else {}
        for place, axis in enumerate(shape.axes if resizable else (), int(shape.batched)):
            if axis:
                axes[place] = f"{name}_{place}" if axis == "?" else axis
        found.append(axes)
    return found


def _dynamic(model: ir.Model, call: Call) -> bool:
    """Whether axis 0 of every input that has a batch axis may vary."""
    shapes = [value.shape for value in model.graph.inputs]
    if len(shapes) != len(call.shapes):
        return inputs.dynamic_batch(model)
    batched = [s for s, said in zip(shapes, call.shapes, strict=True) if said.batched]
    return bool(batched) and all(
        s is not None and len(s) > 0 and not isinstance(s[0], int) for s in batched
    )


def _sizes(model: ir.Model, call: Call) -> dict[str, int]:
    """The example's size of each axis that may vary, except the batch."""
    found = {}
    for value, shape in zip(model.graph.inputs, call.shapes, strict=False):
        for size, dim in zip(reversed(shape.sizes), reversed(value.shape or ()), strict=False):
            if not isinstance(dim, int):
                found[str(dim.value)] = size
    return found


@contextlib.contextmanager
def _taking_tensors(module: Any, call: Call) -> Iterator[Call]:
    """Within this block, forward() takes the call's tensors one after the other, and nothing else.

    So neither exporter meets lists, dicts or plain numbers; the module keeps its names.
    """
    if call.is_plain:
        yield call
        return
    forward, own = module.forward, vars(module).get("forward")

    def taking(*tensors: Any) -> Any:
        args, kwargs = call.filled(tensors)
        return forward(*args, **kwargs)

    module.forward = taking
    try:
        yield replace(call, every=(), star="tensors", rest="", paths=(), constants=())
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


@contextlib.contextmanager
def _no_graphs() -> Iterator[None]:
    """Keep the TorchScript exporter from printing a whole graph, past Python's streams, on failure.

    It turns its own log on whatever the setting, so the function that writes the log is replaced.
    """
    log = torch._C._jit_onnx_log
    torch._C._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = log


def _tracer_warnings(caught: list[warnings.WarningMessage]) -> list[str]:
    """Warn where the code chose a path: a trace records only the one that the example took."""
    said = [w for w in caught if issubclass(w.category, TracerWarning)]
    places = dict.fromkeys(f"{Path(w.filename).name}:{w.lineno}" for w in said)
    if not places:
        return []
    return [
        "the model decides in Python by values or sizes, and the export kept the decisions made "
        f"for the example input ({', '.join(list(places)[:5])})"
    ]


def strip_debug_metadata(model: ir.Model) -> None:
    """Drop stack traces and dumps of the exported program; keep the modules' names."""
    for holder in (model, model.graph):
        for key in [k for k in holder.metadata_props if k.startswith("pkg.torch")]:
            del holder.metadata_props[key]
    for node in model.graph.all_nodes():
        for key in DEBUG_METADATA:
            node.metadata_props.pop(key, None)


def reason(error: BaseException, limit: int = 200) -> str:
    """The first line of the innermost error: the exporter wraps errors in errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    line = next((part.strip() for part in text.splitlines() if part.strip()), "")
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    return f"{type(error).__name__}: {line}" if line else type(error).__name__

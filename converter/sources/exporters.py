"""The two exporters of torch, each told to leave the batch-norms alone.

Nothing is optimised here: both would fold batch-norms by themselves, silently.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import nn
from torch.jit._trace import TracerWarning

from converter.sources import inputs
from converter.sources.examples import Call
from converter.sources.loaded import Reference
from converter.sources.quiet import silent
from converter.zero_biases import drop_zero_biases

# What the exporter writes for people who debug it: stack traces with paths of this machine.
DEBUG_METADATA = (
    "pkg.torch.onnx.stack_trace",
    "pkg.torch.onnx.fx_node",
    "pkg.torch.onnx.original_node_name",
)


@dataclass
class Exported:
    """A graph, and what its making involved."""

    model: ir.Model
    dynamic_batch: bool
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    reference: Reference | None = None


def dynamo(module: nn.Module, call: Call, *, free: bool | None = None) -> Exported:
    """By torch.export; the weights of the graph are the module's own memory, not copies.

    Args:
        free: whether the batch axis may vary; by default unless the call's batch is 1.

    Raises whatever the exporter raises.
    """
    args, kwargs = call.arguments()
    batch = torch.export.Dim("batch")
    axes: list[dict[int, Any] | None] = [{0: batch} if t.ndim else None for t in call.tensors()]
    shapes = {call.star: tuple(axes)} if call.star else dict(zip(call.names, axes, strict=True))
    with silent():
        program = torch.onnx.export(
            module,
            args,
            kwargs=kwargs or None,
            dynamo=True,
            optimize=False,
            dynamic_shapes=shapes if _is_free(call, free) else None,
            verbose=False,
        )
    assert program is not None
    model = program.model
    strip_debug_metadata(model)
    drop_zero_biases(model)
    return Exported(model, inputs.dynamic_batch(model))


def script(module: Any, call: Call, *, free: bool | None = None) -> Exported:
    """By the TorchScript exporter, told to keep the batch-norms (PRESERVE, no folding).

    Args:
        free: as for `dynamo`.

    Raises whatever the exporter raises.
    """
    args, kwargs = call.arguments()
    names = list(call.names)
    with tempfile.TemporaryDirectory(prefix="foldserve-") as folder:
        path = Path(folder) / "model.onnx"
        with silent() as caught, _no_graphs(), torch.no_grad():
            torch.onnx.export(
                module,
                args,
                str(path),  # a file: protobuf in memory ends at 2 GB, files have side files
                kwargs=kwargs or None,
                dynamo=False,
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
                input_names=names,
                dynamic_axes={
                    name: {0: "batch"}
                    for name, tensor in zip(names, call.tensors(), strict=True)
                    if tensor.ndim and _is_free(call, free)
                },
            )
        model = ir.load(path)
        ir.external_data.load_to_model(model)  # the folder goes away
    return Exported(model, inputs.dynamic_batch(model), warnings=_tracer_warnings(caught))


def _is_free(call: Call, free: bool | None) -> bool:
    return call.batch > 1 if free is None else free


@contextlib.contextmanager
def _no_graphs() -> Iterator[None]:
    """When the TorchScript exporter fails it prints a whole graph, past Python's streams.

    It turns its own log on whatever it is set to, so the function that writes it is exchanged.
    """
    log = torch._C._jit_onnx_log
    torch._C._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = log


def _tracer_warnings(caught: list[warnings.WarningMessage]) -> list[str]:
    """A trace records one path through the Python code: the user must hear where it chose."""
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
    """The exporter wraps errors in errors: the innermost one tells, in its first line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    line = next((part.strip() for part in text.splitlines() if part.strip()), "")
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    return f"{type(error).__name__}: {line}" if line else type(error).__name__

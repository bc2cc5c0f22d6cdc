"""A torch module becomes an ONNX graph with its batch-norms in it: three attempts, best first.

1. torch.export with a batch axis that may vary;
2. torch.export with a batch of one, when the model was written for one batch size;
3. the TorchScript exporter, when torch.export cannot follow the model's Python code.

Nothing is optimised here: both exporters would fold batch-norms by themselves, silently.
"""

from __future__ import annotations

import contextlib
import dataclasses
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

from converter.errors import UserError
from converter.sources import inputs
from converter.sources.examples import Call
from converter.sources.loaded import Reference
from converter.sources.outputs import leaves, name_outputs
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


def export(module: nn.Module, call: Call) -> Exported:
    """Turn a module in eval mode into a graph; its output names come from `call.output`.

    Raises:
        UserError: when neither exporter can follow the model.
    """
    _register_dataclasses(call.output)
    failures: list[str] = []
    exported: Exported | None = None
    used = call
    if call.batch > 1:
        try:
            exported = _dynamo(module, call)
        except Exception as error:  # noqa: BLE001  the exporter runs the user's code
            failures.append(reason(error))
    if exported is None or not exported.dynamic_batch:
        why = failures[0] if failures else "the model's code depends on it"
        alone = replace(call, batch=1)
        try:
            exported = _dynamo(module, alone)
            used = alone
        except Exception as error:  # noqa: BLE001
            failures.append(reason(error))
        if exported is not None and call.batch > 1:
            exported.notes.append(f"the batch size is fixed at {used.batch}: {why}")
    if exported is None:
        try:
            exported = script(module, call)
            exported.notes.append(
                f"the TorchScript exporter was used, as torch.export failed: {failures[0]}"
            )
        except Exception as error:
            raise UserError(
                f"the model cannot be exported to ONNX. torch.export: {failures[0]} "
                f"TorchScript: {reason(error)}",
                "export it to .onnx yourself, with its batch-norms kept, and fold that",
            ) from error
    name_outputs(exported.model, [name for name, _ in leaves(call.output)])
    if used.batch != call.batch:
        args, kwargs = used.arguments()
        with silent(), torch.no_grad():
            used = replace(used, output=module(*args, **kwargs))
    exported.reference = reference(used, exported)
    return exported


def _dynamo(module: nn.Module, call: Call) -> Exported:
    """By torch.export, with a batch axis that may vary unless the call's batch is 1.

    The weights of the graph are the module's own memory, not copies.
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
            dynamic_shapes=shapes if call.batch > 1 else None,
            verbose=False,
        )
    assert program is not None
    model = program.model
    strip_debug_metadata(model)
    drop_zero_biases(model)
    return Exported(model, inputs.dynamic_batch(model))


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


def script(module: Any, call: Call) -> Exported:
    """By the TorchScript exporter, told to keep the batch-norms (PRESERVE, no folding).

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
                    if tensor.ndim and call.batch > 1
                },
            )
        model = ir.load(path)
        ir.external_data.load_to_model(model)  # the folder goes away
    return Exported(model, inputs.dynamic_batch(model), warnings=_tracer_warnings(caught))


def reference(call: Call, exported: Exported) -> Reference | None:
    """The example and what the module gave for it, under the graph's names.

    None when the graph's inputs or outputs are not one to one those of the module.
    """
    graph = exported.model.graph
    tensors = [tensor for _, tensor in leaves(call.output)]
    if len(graph.inputs) != len(call.names) or len(graph.outputs) != len(tensors):
        return None
    return Reference(
        {str(v.name): t.numpy() for v, t in zip(graph.inputs, call.tensors(), strict=True)},
        {str(v.name): t.detach().numpy() for v, t in zip(graph.outputs, tensors, strict=True)},
    )


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


def _register_dataclasses(value: Any) -> None:
    """torch.export refuses to return a dataclass until it is told what that is."""
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


def reason(error: BaseException, limit: int = 200) -> str:
    """The exporter wraps errors in errors: the innermost one tells, in its first line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    line = next((part.strip() for part in text.splitlines() if part.strip()), "")
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    return f"{type(error).__name__}: {line}" if line else type(error).__name__

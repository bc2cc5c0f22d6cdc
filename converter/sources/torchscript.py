"""A TorchScript archive: a program with its weights, but without Python's module classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from converter.errors import UserError, gist
from converter.sources import examples, hints, infer, inputs, vet
from converter.sources.calls import Call, path_of
from converter.sources.export import Attempt, export
from converter.sources.exporters import Exported, script
from converter.sources.infer import Sizes
from converter.sources.loaded import Loaded, LoadOptions
from converter.system.quiet import torch_quiet

# original_name of a scripted layer, or an operator of a frozen graph -> row of SCRIPT_LAYERS.
KINDS = {
    "Conv1d": "conv", "Conv2d": "conv", "Conv3d": "conv",
    "ConvTranspose1d": "transposed", "ConvTranspose2d": "transposed",
    "ConvTranspose3d": "transposed",
    "Linear": "linear", "Embedding": "embedding",
    "aten::conv1d": "conv", "aten::conv2d": "conv", "aten::conv3d": "conv",
    "aten::_convolution": "conv",
    "aten::conv_transpose1d": "transposed", "aten::conv_transpose2d": "transposed",
    "aten::conv_transpose3d": "transposed",
    "aten::linear": "linear", "aten::embedding": "embedding",
}  # fmt: skip


def load(path: Path, options: LoadOptions) -> Loaded:
    """Load the program, find inputs for it, and export it.

    Raises:
        UserError: when it is damaged, could write files or talk to others, takes something other
            than tensors, does not run, or has no ONNX form.
    """
    if not options.trust_pickle:
        vet.torchscript(path)
    try:
        with torch_quiet():
            module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:
        raise UserError(
            f"{path} cannot be loaded by torch {torch.__version__}: {gist(error)}",
            "save it again from the original model, without torch.jit.optimize_for_inference",
        ) from error
    notes = []
    if any(getattr(child, "training", False) for child in module.modules()):
        notes.append("the program was saved in training mode and was set to eval()")
        module.eval()
    dtypes = {p.dtype for p in module.parameters() if p.is_floating_point()}
    if dtypes & {torch.float16, torch.bfloat16}:
        module = module.float()
        notes.append("the weights are stored in 16 bits and were widened to float32")
    dtype = "float64" if dtypes == {torch.float64} else "float32"
    layer = infer.from_weights(_weights(module))
    names = _arguments(module, path, options)
    # A program traced in training mode changes its statistics whenever it runs.
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    call = examples.resolve(
        module, options.input_shapes, None, layer, dtype, names, options.input_values
    )
    for name, buffer in module.named_buffers():
        buffer.copy_(before[name])
    try:
        exported = export(module, call, _ATTEMPTS)
    except UserError as error:
        raise UserError(
            f"{path} cannot be turned into ONNX: {error.message}",
            "export the original model with torch.export, or save its state_dict",
        ) from error
    return Loaded(
        model=exported.model,
        inputs=inputs.describe(exported.model, exported.sizes, call.fills()),
        path=path,
        kind="a TorchScript archive",
        notes=notes + call.notes + exported.notes,
        warnings=exported.warnings + _training(exported.model),
        dynamic_batch=exported.dynamic_batch,
        reference=exported.reference,
        untracked=frozenset(
            name.removesuffix(".num_batches_tracked")
            for name, tensor in module.named_buffers()
            if name.endswith(".num_batches_tracked") and int(tensor) == 0
        ),
    )


def _arguments(module: Any, path: Path, options: LoadOptions) -> tuple[list[str], list[str], str]:
    """Names of forward's inputs, and of those without a default: `examples.parameters_of`."""
    said = {path_of(name)[0] for name in options.input_values}
    said |= {path_of(str(s.name))[0] for s in options.input_shapes if s.name}
    if not hasattr(module, "forward"):
        raise UserError(f"{path} has no forward()", "save a module that has one")
    arguments = module.forward.schema.arguments[1:]  # the first is self
    required = [a for a in arguments if not a.has_default_value()]
    others = [a for a in required if str(a.type) != "Tensor" and a.name not in said]
    if others:
        types = ", ".join(f"{a.name}: {a.type}" for a in others)
        raise UserError(
            f"{path} takes something else than tensors: {types}",
            "say what it gets: " + hints.for_all([a.name for a in others], kinds_of(module), None),
        )
    return [a.name for a in arguments], [a.name for a in required], ""


def kinds_of(module: Any) -> dict[str, str]:
    """The type of each of forward's parameters, as TorchScript writes it."""
    return {a.name: str(a.type) for a in module.forward.schema.arguments[1:]}


class _Called(torch.nn.Module):
    """Calls the program with tensors only, one after the other."""

    def __init__(self, program: Any, call: Call) -> None:
        super().__init__()
        self.program = program
        self.call = call

    def forward(self, *tensors: torch.Tensor) -> Any:
        args, kwargs = self.call.filled(tensors)
        return self.program(*args, **kwargs)


def _export(module: Any, call: Call, *, free: bool, resizable: bool) -> Exported:
    """Export the program; trace a call first where an argument is not a plain tensor."""
    arguments = module.forward.schema.arguments[1:]
    if call.names == call.every and all(str(a.type) == "Tensor" for a in arguments):
        return script(module, call, free=free, resizable=resizable)
    with torch_quiet():
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            _Called(module, call).eval(), tuple(call.tensors()), check_trace=False
        )
    flat = replace(call, every=call.names, star="", rest="", paths=(), constants=())
    exported = script(traced, flat, free=free, resizable=resizable)
    for value in list(exported.model.graph.initializers.values()):
        value.name = str(value.name).removeprefix("program.")
    return exported


_ATTEMPTS = (
    Attempt("TorchScript", _export, True, True, (1, 3)),
    Attempt("TorchScript", _export, True, False, (1, 3)),
    Attempt("TorchScript", _export, False),
)


def _weights(module: Any) -> Iterator[tuple[str, Sizes]]:
    """Kinds and weight shapes of the layers, from the modules or from a frozen graph."""
    for child in module.modules():
        kind = KINDS.get(getattr(child, "original_name", ""))
        weight = getattr(child, "weight", None)
        if kind and isinstance(weight, torch.Tensor):
            yield kind, tuple(weight.shape)
    for node in module.inlined_graph.nodes():
        for value in node.inputs():
            weight = value.toIValue() if node.kind() in KINDS else None
            if isinstance(weight, torch.Tensor) and weight.ndim >= 2:
                yield KINDS[node.kind()], tuple(weight.shape)


def _training(model: ir.Model) -> list[str]:
    """Batch-norms in training mode: a trace keeps the mode it was made in, whatever eval() says."""
    count = sum(
        node.op_type == "BatchNormalization" and node.attributes.get_int("training_mode", 0) == 1
        for node in model.graph.all_nodes()
    )
    if not count:
        return []
    return [
        f"{count} batch-norms were traced in training mode and use the statistics of the batch: "
        "call model.eval() before torch.jit.trace"
    ]

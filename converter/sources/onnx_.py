"""An .onnx file, possibly with its weights in files beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from converter.errors import UserError
from converter.sources import inputs, sizes
from converter.sources.loaded import Loaded, LoadOptions

# Before IR version 4 every initializer had to be listed as an input; since then, one that is
# listed is a default value that a caller may override. Source: onnx/docs/IR.md, "Graphs".
OVERRIDABLE = 4
OLDEST_IR = 8


def load(path: Path, options: LoadOptions) -> Loaded:
    """Read the graph; weights stay on the disk until someone asks for them.

    Raises:
        UserError: when the file is damaged, weights lie outside its folder or are missing, an
            input is no tensor, or an axis needs a number that `--input-shape` must tell.
    """
    try:
        # Absolute: onnx_ir does not confine weights to a folder that has no name.
        model = ir.load(path.absolute(), format="protobuf")
    except Exception as error:  # protobuf, onnx and onnx_ir each raise their own
        raise UserError(
            f"{path} is a damaged ONNX model: {error}", "copy it again, or export it again"
        ) from error
    _check_external_data(model, path)
    notes: list[str] = []
    if model.functions:
        count = len(model.functions)
        InlinePass()(model)
        notes.append(f"{count} model-local functions were inlined")
    _initializers_are_constants(model)
    if not inputs.required_inputs(model):
        raise UserError(f"{path} has no input that needs a value", "give a model with an input")
    _name_axes(model)
    numbers = sizes.numbers(model, path, options.input_shapes, notes)
    return Loaded(
        model=model,
        inputs=inputs.describe(model, numbers),
        path=path,
        kind="an ONNX model",
        notes=notes,
        dynamic_batch=inputs.dynamic_batch(model),
    )


def _check_external_data(model: ir.Model, path: Path) -> None:
    """Weights may only lie in the model's folder: an .onnx must not read the user's files."""
    folder = path.parent.resolve()
    checked: set[str] = set()
    for tensor in _external(model):
        location = str(tensor.location)
        if location in checked:
            continue
        checked.add(location)
        pure = PurePosixPath(location.replace("\\", "/"))
        if pure.is_absolute() or ".." in pure.parts or not location.strip():
            raise UserError(
                f"{path} asks for weights outside its folder: {location!r}",
                "such a file may be an attack; save the model again with its weights beside it",
            )
        file = path.parent / pure
        if not file.resolve().is_relative_to(folder):
            raise UserError(
                f"{path} asks for weights outside its folder: {location!r} is a link to "
                f"{file.resolve()}",
                "put the weights themselves beside the model",
            )
        if not file.is_file():
            raise UserError(
                f"{path} keeps its weights in {location!r}, which is not there",
                f"put that file into {path.parent}",
            )
    for tensor in _external(model):
        end = (tensor.offset or 0) + (tensor.length or 0)
        if (tensor.offset or 0) < 0 or end > (path.parent / str(tensor.location)).stat().st_size:
            raise UserError(
                f"{path}: the weights in {str(tensor.location)!r} end before {tensor.name!r}",
                "that file was cut off: copy it again",
            )


def _external(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """Every tensor of the model, wherever it hides, that lies in a file of its own."""
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in graphs:
        holders: Sequence[ir.Graph | ir.Function] = [graph, *graph.subgraphs()]
        for holder in holders:
            if isinstance(holder, ir.Graph):
                for value in holder.initializers.values():
                    if isinstance(value.const_value, ir.ExternalTensor):
                        yield value.const_value
        for node in graph.all_nodes():
            for attribute in node.attributes.values():
                values = attribute.value if attribute.type == ir.AttributeType.TENSORS else ()
                if attribute.type == ir.AttributeType.TENSOR:
                    values = (attribute.value,)
                yield from (t for t in values if isinstance(t, ir.ExternalTensor))


def _initializers_are_constants(model: ir.Model) -> None:
    """Old IR: drop the weights from the inputs, where they only were because they had to be."""
    if model.ir_version is None or model.ir_version < OVERRIDABLE:
        needed = inputs.required_inputs(model)
        model.graph.inputs.clear()
        model.graph.inputs.extend(needed)
    if model.ir_version is None or model.ir_version < OLDEST_IR:
        model.ir_version = OLDEST_IR


def _name_axes(model: ir.Model) -> None:
    """Give every axis of unknown size a name: -1, 0 and nothing all mean "may vary" in files."""
    for value in inputs.required_inputs(model):
        if value.shape is None:
            continue
        dims: list[int | str] = []
        for axis, dim in enumerate(value.shape):
            known = dim if isinstance(dim, int) else dim.value
            if known is None or known == "" or (isinstance(known, int) and known <= 0):
                known = "batch" if axis == 0 else f"{value.name}_{axis}"
            dims.append(known)
        value.shape = ir.Shape(dims)

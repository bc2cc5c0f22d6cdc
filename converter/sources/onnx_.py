"""An .onnx file, possibly with its weights in files beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from converter.errors import UserError
from converter.files import slim
from converter.files.on_disk import OpenFile, fits, tensor_in
from converter.graph.zero_biases import DropZeroBiasesPass
from converter.sources import beside, inputs, sizes
from converter.sources.loaded import Loaded, LoadOptions
from converter.sources.onnx_forms import NameAxesPass, RaiseIrVersionPass


def load(path: Path, options: LoadOptions) -> Loaded:
    """Read the graph; weights stay on disk until they are needed.

    Raises:
        UserError: when the file is damaged, weights lie outside its folder or are missing, an
            input is not a tensor, or an axis needs a size that `--input-shape` must give.
    """
    model, notes = read(path)
    values = sizes.fills(model, options.input_values)
    numbers = sizes.numbers(model, path, options.input_shapes, notes, values, options.data_shapes)
    return Loaded(
        model=model,
        inputs=inputs.describe(model, numbers, values),
        path=path,
        kind="an ONNX model",
        notes=notes,
        dynamic_batch=inputs.dynamic_batch(model),
        left_out=left_out(model),
    )


def read(path: Path) -> tuple[ir.Model, list[str]]:
    """The graph with its weights on disk, and notes on what was done to it. Nothing is run.

    Raises:
        UserError: when the file is damaged, weights lie outside its folder or are missing, or an
            input is not a tensor.
    """
    try:
        model = slim.read(path)
    except UserError:
        raise
    except Exception as error:  # protobuf, onnx and onnx_ir each raise their own
        raise UserError(
            f"{path} is a damaged ONNX model: {error}", "copy it again, or export it again"
        ) from error
    _open_external_data(model, path)
    notes = [f"output {name!r} is left out: {why}" for name, why in left_out(model).items()]
    if model.functions:
        count = len(model.functions)
        InlinePass()(model)
        notes.append(f"{count} model-local functions were inlined")
    RaiseIrVersionPass()(model)
    if wrong := DropZeroBiasesPass().call(model).misshapen:
        notes.append(
            f"zero biases of a wrong shape dropped: {wrong}. torch's exporter gives them to 3-d "
            "convolutions without a bias, and no runtime takes the file as it is"
        )
    if not inputs.required_inputs(model):
        raise UserError(f"{path} has no input that needs a value", "give a model with an input")
    NameAxesPass()(model)
    return model, notes


def left_out(model: ir.Model) -> dict[str, str]:
    """The outputs of the file that are not tensors, and so not in the graph, and why."""
    found: dict[str, str] = model.meta.get(slim.LEFT_OUT, {})
    return found


def _open_external_data(model: ir.Model, path: Path) -> None:
    """Weights may only lie in the model's folder: an .onnx must not read the user's files.

    They are read from the very files that were checked, and only when they are needed.
    """
    files: dict[str, OpenFile] = {}
    for tensor, replace in _external(model):
        location = str(tensor.location)
        if location not in files:
            files[location] = _open(path, location)
        offset, size = tensor.offset or 0, files[location].size
        length = tensor.nbytes if tensor.length is None else tensor.length
        if min(offset, length, *tensor.shape.numpy(), 0) < 0 or offset + length > size:
            raise UserError(
                f"{path}: the weights in {location!r} end before {tensor.name!r}",
                "that file was cut off: copy it again",
            )
        if length != tensor.nbytes:
            raise UserError(
                f"{path}: the weight {tensor.name!r} of shape {tuple(tensor.shape.numpy())} has "
                f"{length} bytes in {location!r}, not {tensor.nbytes}",
                "copy both files again, or export the model again",
            )
        tensor.base_dir = path.absolute().parent
        if fits(tensor.dtype):
            replace(tensor_in(files[location], offset, tensor.dtype, tensor.shape, tensor.name))


def _open(path: Path, location: str) -> OpenFile:
    """Open a file of weights, if it lies in the folder of the model.

    Raises:
        UserError: it does not lie there, or does not exist.
    """
    file = beside.find(path, location)
    try:
        return OpenFile(file)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error


def _external(model: ir.Model) -> Iterator[tuple[ir.ExternalTensor, Callable[[Any], None]]]:
    """Every tensor of the model with its data in another file, and a function that replaces it."""
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in graphs:
        holders: Sequence[ir.Graph | ir.Function] = [graph, *graph.subgraphs()]
        for holder in holders:
            if isinstance(holder, ir.Graph):
                for value in holder.initializers.values():
                    if isinstance(value.const_value, ir.ExternalTensor):
                        yield value.const_value, partial(setattr, value, "const_value")
        for node in graph.all_nodes():
            for name, attribute in tuple(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR:
                    tensors = [attribute.value]
                elif attribute.type == ir.AttributeType.TENSORS:
                    tensors = list(attribute.value)
                else:
                    continue
                for index, tensor in enumerate(tensors):
                    if isinstance(tensor, ir.ExternalTensor):
                        yield tensor, partial(_set_attribute, node, name, tensors, index)


def _set_attribute(
    node: ir.Node, name: str, tensors: list[ir.TensorProtocol], index: int, tensor: Any
) -> None:
    tensors[index] = tensor
    single = node.attributes[name].type == ir.AttributeType.TENSOR
    node.attributes[name] = (
        ir.AttrTensor(name, tensor) if single else ir.AttrTensors(name, tuple(tensors))
    )

"""A BatchNormalization node: its map, or the reason why it has none.

ONNX BatchNormalization: opset 7 to 8 with `spatial`, 9 to 13 training when it has more than
one output, from 14 on with the attribute `training_mode`. The exporters also write a
batch-norm without running statistics as BatchNormalization with a mean and a variance that
are computed from the input: those have no frozen map.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import onnx_ir as ir

from converter.folding import hazards
from converter.folding.affine import Affine
from converter.folding.hazards import Hazard
from converter.folding.refusal import Refusal
from converter.folding.sites.site import Site
from converter.folding.view import View
from converter.graph.naming import module_name
from converter.graph.values import EPSILON, numbers

# Key in a node's `meta`, which clones keep and files do not: its `num_batches_tracked` is 0.
_UNTRACKED = "num_batches_tracked 0"
_EVAL = "Export the model in evaluation mode: model.eval()."


def note_untracked(model: ir.Model, names: Container[str]) -> None:
    """Note on each batch-norm whose module is in `names` that its `num_batches_tracked` is 0."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type == "BatchNormalization" and module_name(node) in names:
            node.meta[_UNTRACKED] = True


def batchnorm_site(node: ir.Node, view: View, opset: int) -> Site:
    """The site of a BatchNormalization node."""
    affine = _affine(node, view, opset)
    return Site(
        name=module_name(node),
        nodes=(node,),
        source=node.inputs[0] if node.inputs else None,
        channels=_channels(node),
        affine=affine,
        warnings=_hazards(node, affine),
    )


def _affine(node: ir.Node, view: View, opset: int) -> Affine | Refusal:
    refusal = _training(node, opset) or _form(node, opset) or _parameters(node, view)
    if refusal:
        return refusal
    gamma, beta, mean, var = (numbers(value) for value in node.inputs[1:5] if value is not None)
    if len({array.shape for array in (gamma, beta, mean, var)} | {(gamma.size,)}) > 1:
        return Refusal("unsupported-form", "its parameters are not one number per channel.")
    with np.errstate(invalid="ignore", divide="ignore"):
        affine = Affine.of_batchnorm(gamma, beta, mean, var, _epsilon(node))
    if np.any(var < 0):
        return Refusal("bad-statistics", f"the running variance is negative ({var.min():.3g}).")
    if not (np.isfinite(affine.scale).all() and np.isfinite(affine.shift).all()):
        return Refusal("bad-statistics", "its parameters are not finite numbers.")
    return affine


def _epsilon(node: ir.Node) -> float:
    return node.attributes.get_float("epsilon", EPSILON)


def _training(node: ir.Node, opset: int) -> Refusal | None:
    """Before opset 14 the number of outputs decides, whether they are read or not."""
    outputs = [
        value
        for value in node.outputs
        if value.name and (opset < 14 or value.uses() or value.is_graph_output())
    ]
    if node.attributes.get_int("training_mode", 0) or len(outputs) > 1:
        return Refusal(
            "training-mode",
            "it is in training mode and normalises with the statistics of each batch.",
            _EVAL,
        )
    return None


def _form(node: ir.Node, opset: int) -> Refusal | None:
    if not node.attributes.get_int("spatial", 1):
        return Refusal("unsupported-form", "spatial=0 keeps statistics for every position.")
    if opset < 7:
        return Refusal(
            "unsupported-form",
            f"opset {opset} describes batch-norm differently.",
            "Convert the model to opset 13 or later (onnx.version_converter).",
        )
    source = node.inputs[0]
    if source is not None and source.shape is not None and len(source.shape) < 2:
        return Refusal("unsupported-form", "its input has no channel axis.")
    return None


def _parameters(node: ir.Node, view: View) -> Refusal | None:
    if len(node.inputs) < 5 or any(value is None for value in node.inputs[:5]):
        return Refusal("unsupported-form", "it lacks some of its five inputs.")
    for index, what in ((3, "running mean"), (4, "running variance")):
        refusal = view.why_not_constant(node.inputs[index], node, what)
        if refusal and refusal.code == "computed-weights":
            return Refusal(
                "batch-statistics",
                "it has no running statistics and normalises with those of each batch.",
                "With track_running_stats=False an answer depends on what else is in its batch, "
                "also when it is served: train with True, or replace it by a norm without batches.",
            )
        if refusal:
            return refusal
    for index, what in ((1, "weight"), (2, "bias")):
        refusal = view.why_not_constant(node.inputs[index], node, what)
        if refusal and refusal.code == "computed-weights":
            return Refusal("computed-parameters", f"its {what} is computed at run time.")
        if refusal:
            return refusal
    return None


def _channels(node: ir.Node) -> int | None:
    for value in node.inputs[1:5]:
        if value is not None and value.shape is not None and len(value.shape) == 1:
            size = value.shape[0]
            if isinstance(size, int):
                return size
    return None


def _hazards(node: ir.Node, affine: Affine | Refusal) -> tuple[Hazard, ...]:
    if isinstance(affine, Refusal):
        return ()
    stored = [value for value in node.inputs[1:5] if value is not None]
    gamma, beta, mean, var = (numbers(value) for value in stored)
    dtype = stored[0].dtype.numpy() if stored[0].dtype is not None else np.dtype(np.float32)
    epsilon, untracked = _epsilon(node), _UNTRACKED in node.meta
    return hazards.of_batchnorm(gamma, beta, mean, var, epsilon, dtype, untracked=untracked)

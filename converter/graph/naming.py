"""The names people know: `layer1.0.bn1`, not `node__native_batch_norm_legit_no_training_37`.

Sources, best first: the module scopes that torch's dynamo exporter leaves in a node's
metadata; the scope path that the TorchScript exporter puts into a node's name
(`/layer1/layer1.0/bn1/BatchNormalization`); the name of a parameter (`bn1.running_mean`,
`bn1/moving_mean`); the node's own name; the name of its output.
"""

from __future__ import annotations

import ast
import re

import onnx_ir as ir

_SCOPES = "pkg.torch.onnx.name_scopes"
_CLASSES = "pkg.torch.onnx.class_hierarchy"
_PARAMETER = re.compile(
    r"^(?P<module>.+?)[./](weight|bias|gamma|beta|kernel|running_mean|running_var"
    r"|moving_mean|moving_variance|scale|mean|var)(:0)?$"
)
# What exporters call tensors that have no name of their own.
_ANONYMOUS = re.compile(r"^(val_\d+|onnx::.*|const_?fold.*|_?\d+|.*_\d+_const)$", re.IGNORECASE)


def module_name(node: ir.Node) -> str:
    """The name of the module that `node` came from, or the best stand-in for it."""
    return _scopes(node) or _path(node) or _parameter(node) or node.name or _output(node)


def label(node: ir.Node) -> str:
    """A node as messages name it: its op and its module, `Conv layer1.0.conv1`."""
    return f"{node.op_type} {module_name(node)}".strip()


def scope(node: ir.Node) -> str | None:
    """The module that `node` belongs to, "" for the model itself, None if it is not known."""
    if _noted(node, _SCOPES):
        return _scopes(node)
    return _path(node) if (node.name or "").startswith("/") else None


def class_name(node: ir.Node) -> str:
    """The class of the innermost module around `node`, "" if unknown or if it is the model."""
    return next(iter(_noted(node, _CLASSES)[1:-1][-1:]), "")


def _noted(node: ir.Node, key: str) -> list[str]:
    """What torch's dynamo exporter notes: the model, the modules from the outside in, the op."""
    try:
        found = ast.literal_eval(node.metadata_props.get(key) or "[]")
    except (ValueError, SyntaxError):
        return []
    return [str(item) for item in found] if isinstance(found, list) else []


def _scopes(node: ir.Node) -> str:
    # The last entry is the operation; the one before it the innermost module.
    module = next(iter(_noted(node, _SCOPES)[:-1][-1:]), "")
    return "" if module.startswith("_empty_nn_module_stack") else module


def _path(node: ir.Node) -> str:
    parts = (node.name or "").split("/")
    if len(parts) < 3 or parts[0] or not parts[-1].startswith(node.op_type):
        return ""
    name = ""
    for part in parts[1:-1]:
        # A child of a Sequential repeats its parent: layer1, layer1.0, conv1.
        name = part if not name or part.startswith(f"{name}.") else f"{name}.{part}"
    return name


def _parameter(node: ir.Node) -> str:
    for value in reversed(node.inputs[1:]):
        if value is None or not value.is_initializer() or not value.name:
            continue
        found = _PARAMETER.match(value.name)
        if found and not _ANONYMOUS.match(value.name):
            return found["module"]
    return ""


def _output(node: ir.Node) -> str:
    return next((value.name for value in node.outputs if value.name), "")


def unique(name: str, taken: set[str]) -> str:
    """`name`, or `name_2`, `name_3`, .. if it is taken; the result is added to `taken`."""
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate

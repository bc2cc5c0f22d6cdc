"""What onnx is not asked the shapes of: it would end the process, or fill the memory.

Found by asking it for 100,000 nodes at random (onnx 1.23.2): a negative `batch_dims` of a GatherND
reads before an array, a Split with fewer sizes than results reads behind one, and a shape that is
computed has as many axes as that value is long, each of which is allocated. Values without a single
number are left out for what was seen before.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import onnx_ir as ir

from converter.certificate.arrays import Shape
from converter.certificate.verdict import Doubt

# Of a value: axes, numbers along one of them, numbers; no tensor of a runtime has more.
_AXES, _SIZE, _NUMBERS = 64, 1 << 31, 1 << 40
# The inputs behind the first say how many axes the result has.
_SHAPED = frozenset(
    {"Expand", "Reshape", "ConstantOfShape", "Tile", "Resize", "Upsample", "Pad", "Slice"}
    | {"AffineGrid", "CenterCropPad", "Col2Im", "MaxUnpool", "Unsqueeze", "Squeeze", "Split"}
    | {"ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Range"}
    | {"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"}
)


def must_be_inferable(
    node: ir.Node, shapes: Sequence[Shape | None], computed: Sequence[bool]
) -> None:
    """
    Args:
        shapes: of the inputs; None for one that is left out, (-1,) where it is not known.
        computed: which are computed, and are no constants.

    Raises:
        Doubt: onnx is not asked.
    """
    if node.op_type == "Split":
        split = node.attributes.get("split")
        given = [len(split.as_ints())] if split is not None else []
        if "num_outputs" in node.attributes:
            given.append(node.attributes.get_int("num_outputs", 0))
        given += [prod(shape) for shape in shapes[1:] if shape is not None]
        if any(count != len(node.outputs) for count in given):
            raise Doubt("a Split does not have as many results as it says")
    for place, shape in enumerate(shapes):
        if shape is None or shape == (-1,) or not computed[place]:
            continue
        if 0 in shape:
            raise Doubt("it reads a value without a single number")
        if len(shape) > _AXES or max(shape, default=0) > _SIZE or prod(shape) > _NUMBERS:
            raise Doubt("it reads a value that is larger than any")
        first = place == 0 and node.op_type != "ConstantOfShape"
        if not first and node.op_type in _SHAPED and max(shape, default=0) > _AXES:
            raise Doubt("the number of its axes is computed, and large")
    if node.op_type == "GatherND" and node.attributes.get_int("batch_dims", 0) < 0:
        raise Doubt("it counts batches from the end")

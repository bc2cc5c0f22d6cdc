"""The names of open axes: a symbol stands for one size, a placeholder for any.

Two axes that are both called "N" have one size, in all inputs and outputs. But writers of ONNX
also write something where they do not know the size: "?" (onnxmltools), "None" (Keras), "-1"
(Paddle). Two axes with such a name have nothing in common.

Source: onnx/docs/IR.md, "Static tensor shapes".
"""

from __future__ import annotations

import re

_PLACEHOLDER = re.compile(
    r"[\W_]*|-?[0-9]+|\W*(none|null|nan|unk|unknown|undefined|unspecified|any|dyn|dynamic)\W*",
    re.IGNORECASE,
)


def is_symbol(name: str) -> bool:
    """Whether equal names mean equal sizes; False for "?", "", "None", "-1" and their like."""
    return not _PLACEHOLDER.fullmatch(name)

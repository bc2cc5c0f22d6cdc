"""Outputs that are not finite, and what --nan-policy makes of them, in every protocol.

error   500 non_finite_output, whatever the wire format
null    JSON has null there and a warning; binary answers carry the NaN as it is
"""

from __future__ import annotations

import numpy as np

from service.errors import NonFiniteOutput
from service.signature import Tensors


def check(outputs: Tensors, nan_policy: str) -> list[str]:
    """A sentence for each output that holds NaN or infinity.

    Raises:
        NonFiniteOutput: there is one and the policy is "error".
    """
    sentences = []
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
            count = array.size - int(finite.sum())
            sentences.append(f"Output {name!r} has {count} numbers that are not finite.")
    if sentences and nan_policy == "error":
        raise NonFiniteOutput(" ".join(sentences))
    return sentences

"""Outputs that are not finite, and what --nan-policy makes of them, in every protocol.

error   500 non_finite_output, whatever the wire format
null    JSON has null there and a warning; binary answers carry the NaN as it is
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from service.batching.item import Outputs
from service.errors import NonFiniteOutput
from service.signature import Tensors


def check(outputs: Tensors, nan_policy: str, names: Iterable[str] = ()) -> list[str]:
    """A sentence for each output that holds NaN or infinity.

    Args:
        outputs: of a run; if all of it is known to be finite, nothing is looked at.
        nan_policy: as in the settings.
        names: of the outputs that matter, by default all.

    Raises:
        NonFiniteOutput: there is one and the policy is "error".
    """
    if isinstance(outputs, Outputs) and outputs.finite:
        return []
    sentences = []
    for name in names or outputs:
        array = outputs[name]
        if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
            count = array.size - int(finite.sum())
            sentences.append(f"Output {name!r} has {count} numbers that are not finite.")
    if sentences and nan_policy == "error":
        raise NonFiniteOutput(" ".join(sentences))
    return sentences

"""Weights that are NaN: no other input helps then, so the message names the weight."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

# How many weights are named.
_NAMED = 3


def broken_weights(model: ir.Model) -> str:
    """ "conv.weight (3 NaN of 40 numbers)", for the first few; "" if there is none."""
    found = []
    for graph in (model.graph, *model.graph.subgraphs()):
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is None or not tensor.dtype.is_floating_point():
                continue
            array = np.asarray(tensor.numpy()).astype(np.float64)
            bad = int(np.count_nonzero(np.isnan(array)))
            if bad:
                found.append(f"{name} ({bad} NaN of {array.size} numbers)")
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more

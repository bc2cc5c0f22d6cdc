"""The classification extension: the best classes of an output instead of its numbers.

Each class is the text `<value>:<index>[:<label>]`, value with six decimals, best first; the
output becomes BYTES of shape (rows, classes). As binary data each text has its length in
front, four little-endian bytes.

Source: Triton's extension_classification.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from service.codecs import strings
from service.errors import InvalidBody
from service.models.model import ServedModel
from service.signature import dtype_name


def entry(
    name: str, scores: np.ndarray, classes: int, model: ServedModel, binary: bool
) -> tuple[dict[str, Any], bytes]:
    """The output's JSON entry, and its binary data if that was asked for.

    Args:
        scores: numbers of shape (rows, classes of the model).
        classes: how many to name in each row, fewer if there are not as many.
        model: for the labels, if this is the output that its manifest names.
        binary: whether the texts go into the binary data.

    Raises:
        InvalidBody: the output does not have two axes of numbers.
    """
    if scores.ndim != 2 or scores.dtype.kind not in "fiu":
        raise InvalidBody(
            f"Output {name!r} has no classes: it is {dtype_name(scores)} with {scores.ndim} axes.",
            hint="Ask for it without 'classification'.",
        )
    rows = best(scores, classes, _labels(name, model))
    made: dict[str, Any] = {
        "name": name,
        "datatype": "BYTES",
        "shape": [len(rows), len(rows[0]) if rows else 0],
    }
    texts = [text for row in rows for text in row]
    if not binary:
        made["data"] = texts
        return made, b""
    return made, strings.with_lengths(text.encode() for text in texts)


def best(scores: np.ndarray, classes: int, labels: list[str]) -> list[list[str]]:
    """For each row the `classes` largest scores as texts; equal scores by index."""
    order = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :classes]
    return [
        [
            f"{float(row[index]):f}:{index}" + (f":{labels[index]}" if labels else "")
            for index in chosen.tolist()
        ]
        for row, chosen in zip(scores, order, strict=True)
    ]


def _labels(name: str, model: ServedModel) -> list[str]:
    how = model.manifest.classification
    return how.labels if how is not None and how.output == name else []

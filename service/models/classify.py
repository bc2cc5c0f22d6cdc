"""From an output of scores to a label and a probability for each row.

    softmax  p = exp(s - max(s)) / sum(exp(s - max(s)))     scores are logits
    exp      p = exp(s)                                     scores are log-probabilities
    none     p = s                                          the graph ends in probabilities

All in float64, and shifted by the row's maximum, so that no logit overflows.
"""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np

from service.manifest import Classification

_FEW = 32


class Prediction(TypedDict):
    """`index` counts the labels from 0; all three are None for a row without a maximum."""

    label: str | None
    probability: float | None
    index: int | None


def probabilities(scores: np.ndarray, activation: str) -> np.ndarray:
    """Scores of shape (rows, classes), any float dtype, to probabilities in float64."""
    wide = scores.astype(np.float64)
    if activation == "none":
        return wide
    with np.errstate(invalid="ignore", over="ignore"):  # a row of NaN stays NaN, without a warning
        if activation == "exp":
            chances: np.ndarray = np.exp(wide)
        else:
            shifted = np.exp(wide - wide.max(axis=1, keepdims=True))
            chances = shifted / shifted.sum(axis=1, keepdims=True)
    return chances


def _of_one_row(scores: list[float], how: Classification) -> Prediction | None:
    """The same without numpy, whose calls cost more than a few numbers do; None when in doubt."""
    if not all(map(math.isfinite, scores)):
        return None
    best = max(scores)
    index = scores.index(best)
    try:
        if how.activation == "softmax":
            chance = 1.0 / sum([math.exp(score - best) for score in scores])
        else:
            chance = math.exp(best) if how.activation == "exp" else best
    except OverflowError:
        return None
    return {"label": how.labels[index], "probability": chance, "index": index}


def predictions(scores: np.ndarray, how: Classification) -> list[Prediction]:
    """The most probable label of each row of `scores`, shape (rows, len(how.labels)).

    A score of -inf is a class ruled out. A row with NaN or +inf, or of -inf alone, has no
    maximum to speak of, and its prediction is null.
    """
    if scores.shape[0] == 1 and 0 < scores.shape[1] <= _FEW:
        alone = _of_one_row(scores[0].tolist(), how)
        if alone is not None:
            return [alone]
    chances = probabilities(scores, how.activation)
    best = scores.argmax(axis=1)  # NaN counts as the maximum, so it cannot hide behind one
    rows = np.arange(len(scores))
    sound = np.isfinite(scores[rows, best]) & np.isfinite(chances[rows, best])
    return [
        {"label": how.labels[index], "probability": chance, "index": index}
        if good
        else {"label": None, "probability": None, "index": None}
        for index, chance, good in zip(
            best.tolist(), chances[rows, best].tolist(), sound.tolist(), strict=True
        )
    ]

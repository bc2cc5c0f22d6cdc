"""How far an engine's answers may be from the truth of the self-test, and who says so.

    error = max over float outputs of  max |output - truth| / max |truth|

    default             float32's own rounding: at most 4 times the error that onnxruntime itself
                        has with the file, or 2^-19 (32 times float32's unit of rounding) if that
                        is larger; and every output within self_test.atol
    --max-error E       error <= E
    --max-error labels  the label of no row of the self-test changes (a classifier's)

Outputs that are not floats must be equal in any case. The operator's word goes before the one of
model.json, which is the publisher's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LABELS = "labels"
_ROUNDING, _LEAST = 4.0, 2.0**-19


@dataclass(frozen=True, slots=True)
class Budget:
    """`most`: largest error, None for float32's rounding or, with `labels`, for any.

    `whose`: "--max-error", "model.json" or "default".
    """

    most: float | None = None
    labels: bool = False
    whose: str = "default"

    def objection(self, error: float, own: float, within_atol: bool, changed: int | None) -> str:
        """Why an engine is too far off; "" if it is not.

        Args:
            error: of the engine.
            own: of onnxruntime itself, on the same self-test.
            within_atol: whether every output lies within the tolerance of the self-test.
            changed: rows whose label is another one; None if there are no labels.
        """
        if not math.isfinite(error):
            return "an output is not a number, has another shape, or is no float and differs"
        if self.labels and changed is not None:
            return f"{changed} labels of the self-test change" if changed else ""
        most = self.most
        if most is None:
            most = max(_ROUNDING * own, _LEAST)
            if error <= most and not within_atol:
                return f"error {error:.1e}: outside of the tolerance of the self-test"
        return f"error {error:.1e}, allowed {most:.1e} ({self.whose})" if error > most else ""


def parse(text: str, whose: str) -> Budget:
    """A budget from --max-error or from model.json.

    Raises:
        ValueError: with a sentence.
    """
    if text == LABELS:
        return Budget(labels=True, whose=whose)
    try:
        most = float(text)
    except ValueError:
        most = math.nan
    if not 0 < most <= 1:
        raise ValueError(f"it must be {LABELS!r} or a number above 0 and up to 1, such as 0.01")
    return Budget(most, whose=whose)


def of(asked: Budget | None, published: float | str | None, *, classifies: bool) -> Budget:
    """The budget of one model.

    Args:
        asked: --max-error.
        published: self_test.max_error of model.json.
        classifies: whether the model has labels; without any, "labels" is the default budget.
    """
    if asked is None and published is not None:
        asked = parse(str(published), "model.json")
    if asked is None or (asked.labels and not classifies):
        return Budget()
    return asked

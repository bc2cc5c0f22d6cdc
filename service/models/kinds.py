"""Why an output cannot be served: by its type, as onnxruntime writes it."""

from __future__ import annotations

_ANSWER = "and an answer holds tensors of numbers and strings only"
# The beginning of a type, and what it means.
_KINDS = {
    "seq(map(": "a sequence of maps",
    "seq(": "a sequence",
    "map(": "a map",
    "optional(": "optional",
    "sparse_tensor(": "a sparse tensor",
}
_ZIPMAP = (
    "; scikit-learn's converter gives the probabilities as a tensor with options={'zipmap': False}"
)


def why_left_out(kind: str) -> str:
    """The reason, a clause.

    Args:
        kind: such as `seq(map(int64,tensor(float)))`.
    """
    for beginning, what in _KINDS.items():
        if kind.startswith(beginning):
            return f"it is {what}, {kind}, {_ANSWER}{_ZIPMAP if 'map(' in kind else ''}"
    return f"its type is {kind}, {_ANSWER}"

"""What a program is told that uses a model in its own process: Python's own kinds of errors.

The sentences are those of the service; `code` is the one that it answers over HTTP.
"""

from __future__ import annotations

from service.errors import BadRequest, ImageTooLarge, InputRefused, ServiceError, WrongType


class ModelUnusable(ValueError):
    """There is no model at that place, or it is not one that the service would serve."""


class InvalidInput(ValueError):
    """An input does not suit the model: its name, its dtype or its shape; or the graph refused it.

    `code`: what kind of error it is, one of a fixed set: "wrong_shape", "wrong_type", ...
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class PredictionFailed(RuntimeError):
    """The run itself failed; the cause has what onnxruntime said."""


def translated(error: ServiceError) -> InvalidInput | PredictionFailed:
    """An error of the service as one of those above, to be raised from the first one's cause."""
    if isinstance(error, BadRequest | InputRefused | ImageTooLarge):
        hint = " Convert it first, with astype." if isinstance(error, WrongType) else ""
        return InvalidInput(f"{error.message}{hint}", error.code)
    return PredictionFailed(error.message)

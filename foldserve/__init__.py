"""Foldserve: fold batch-norms into the weights around them, prove it, serve the model.

    foldserve.Predictor("models/mnist").predict(x)      a model in this process
    app.mount("/ml", foldserve.app("models"))           the service in one's own application

and the command `foldserve`. What is named here is imported when it is first used: the command's
help needs neither numpy nor onnxruntime, and the service no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.embedding.application import app
    from service.embedding.errors import InvalidInput, ModelUnusable, PredictionFailed
    from service.embedding.predictor import Predictor
    from service.listen import CannotStart

__all__ = ["CannotStart", "InvalidInput", "ModelUnusable", "PredictionFailed", "Predictor", "app"]

_WHERE = {
    "CannotStart": "service.listen",
    "InvalidInput": "service.embedding.errors",
    "ModelUnusable": "service.embedding.errors",
    "PredictionFailed": "service.embedding.errors",
    "Predictor": "service.embedding.predictor",
    "app": "service.embedding.application",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from foldserve import packages

    packages.service()
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})

"""Fold trained batch normalization into the weights around it, prove it, publish it.

    from converter import load, fold, publish
    result = fold(load("model.pt"))
    assert result.proof.passed
    publish(result, Path("models/mine"))

Everything that the command line does is one of these calls; they are imported on first use.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converter.errors import UserError
    from converter.folding import FoldOptions
    from converter.pipeline import FoldResult, fold, plan
    from converter.proof.verdict import Proof
    from converter.proof.verification import verify
    from converter.publishing.versions import Published, publish
    from converter.sources import Loaded, LoadOptions, load

# onnxruntime reads it when it is loaded, and without it keeps an id below HOME and calls Microsoft.
# Set here, it is there before any module of the package can import onnxruntime, and inherited.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

_WHERE = {
    "UserError": "converter.errors",
    "FoldOptions": "converter.folding",
    "FoldResult": "converter.pipeline",
    "fold": "converter.pipeline",
    "plan": "converter.pipeline",
    "Proof": "converter.proof",
    "verify": "converter.proof",
    "Published": "converter.publishing.versions",
    "publish": "converter.publishing.versions",
    "Loaded": "converter.sources",
    "LoadOptions": "converter.sources",
    "load": "converter.sources",
}

__all__ = [
    "FoldOptions",
    "FoldResult",
    "LoadOptions",
    "Loaded",
    "Proof",
    "Published",
    "UserError",
    "fold",
    "load",
    "plan",
    "publish",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'converter' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)

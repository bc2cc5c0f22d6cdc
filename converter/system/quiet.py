"""Suppress what exporters print. What users can act on is reported as notes."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

# The beginnings of torch's and torchvision's warnings about themselves, on which a user cannot act.
TORCH_ABOUT_ITSELF = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"`torch\.jit\.\w+` is deprecated",
    r"You are using the legacy TorchScript-based ONNX export",
    r"The feature will be removed\. Please remove usage of this function",
    r"no signature found for <torch\.ScriptMethod",
    r"# The axis name: .* will not be used",
    r"`torch\.jit\.\w+` is not supported in Python",
    r"TypedStorage is deprecated",
    r"The given buffer is not writable",
    r"The default weight initialization of \w+ will be changed",
    r"`torch\.nn\.utils\.\w+` is deprecated",
    r"Detected pickle protocol \d+ in the checkpoint",
    r"You are using `torch\.load` with `weights_only=False`",
)


@contextlib.contextmanager
def torch_quiet() -> Iterator[None]:
    """Drop torch's deprecation warnings about its own exporters."""
    with warnings.catch_warnings():
        for message in TORCH_ABOUT_ITSELF:
            warnings.filterwarnings("ignore", message=message)
        yield


@contextlib.contextmanager
def silent() -> Iterator[list[warnings.WarningMessage]]:
    """Let nothing reach stdout, stderr or a log; the warnings are returned instead.

    The exporters print progress and whole programs when an attempt fails, and failed attempts are
    expected here: the caller reports them in one sentence.
    """
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(record=True) as caught,
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("always")
            yield caught
    finally:
        logging.disable(level)


@contextlib.contextmanager
def no_errors_of(*loggers: str) -> Iterator[None]:
    """Let these log nothing below critical: errors of best-effort passes do not concern the user;
    what matters is proven later."""
    found = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in found]
    for logger in found:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(found, levels, strict=True):
            logger.setLevel(level)

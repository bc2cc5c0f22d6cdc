"""Subnormal numbers are computed as zero: below 1.2e-38 in float32, x86 is many times slower.

    session.set_denormal_as_zero    of onnxruntime's options for a session

The option holds for the threads that a session makes. For the thread that calls `run`, and with
one thread per run that is the one that computes, it holds only if this thread, or one that it
descends from, has made the FIRST session of the process: onnxruntime looks at it once, and threads
inherit the mode. So a server calls `flush` at its start, on its main thread.

The mode holds for all arithmetic of these threads, numpy's and Python's included. A program that
only uses a model must not change the arithmetic of those who call it, so a `Predictor` leaves it.
"""

from __future__ import annotations

import logging

import numpy as np
import onnxruntime as ort

logger = logging.getLogger("foldserve")

OPTION = "session.set_denormal_as_zero"

# y = x * x, float32 of any length: ONNX IR 7, opset 13.
_SMALLEST_MODEL = (
    b'\x08\x07:1\n\x0e\n\x01x\n\x01x\x12\x01y"\x03Mul\x12\x01gZ\r\n\x01x\x12\x08\n\x06\x08\x01'
    b"\x12\x02\n\x00b\r\n\x01y\x12\x08\n\x06\x08\x01\x12\x02\n\x00B\x04\n\x00\x10\r"
)
_asked = False


def asked() -> bool:
    """Whether this process has been asked to compute subnormal numbers as zero."""
    return _asked


def flush() -> bool:
    """Compute them as zero from now on, in this thread and those it will make; whether it does.

    Not if the process has made a session before; the log says so. There is no way back.
    """
    global _asked
    _asked = True
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry(OPTION, "1")
    ort.InferenceSession(_SMALLEST_MODEL, options, providers=["CPUExecutionProvider"])
    holds = flushed()
    if not holds:
        logger.info("subnormal numbers are not computed as zero here: models may be slow on them")
    return holds


def flushed() -> bool:
    """Whether the calling thread computes them as zero."""
    return not np.square(np.full(1, 1e-20, np.float32)).any()

"""Measurements: what the documents quote."""

import service  # noqa: F401  it turns onnxruntime's telemetry off, for what is started as well

"""One hypothesis profile: the same examples everywhere, as many as a build can wait for."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

import service  # noqa: F401  it turns onnxruntime's telemetry off before a test imports that

settings.register_profile(
    "fixed",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile(
    "search",
    settings.get_profile("fixed"),
    derandomize=False,
    max_examples=int(os.environ.get("EXAMPLES", "5000")),
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

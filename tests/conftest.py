"""Hypothesis profiles, and the order in which several processes take up the tests.

`fixed` tries the same examples everywhere, as many as a build can wait for; `search` tries
$EXAMPLES new ones (`make nightly`).
"""

from __future__ import annotations

import os

import pytest
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: at the end no process is left alone with a long one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)

"""Hypothesis profiles, and the order in which several processes take up the tests.

`fixed` tries the same examples everywhere, as many as a build can wait for; `search` tries
$EXAMPLES new ones (`make nightly`).
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

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


@pytest.fixture(scope="module")
def collected() -> Iterator[None]:
    """What the tests of a module leave to the garbage collector is collected at its end."""
    yield
    gc.collect()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: at the end no process is left alone with a long one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


class _SameVariables:
    """Programs that a test starts see the PYTHONPATH of whoever started pytest.

    pytest-xdist sets it in its workers to the checkout, for itself; a program would then find the
    checkout where a user's would not.
    """

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["PYTHONPATH"] = os.environ.get("PYTHONPATH")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_SameVariables())
    told: dict[str, str | None] | None = getattr(config, "workerinput", None)
    if told is not None:
        given = told["PYTHONPATH"]
        os.environ.pop("PYTHONPATH", None)
        if given is not None:
            os.environ["PYTHONPATH"] = given


# Files that no two processes may be in at once: each starts a Ray of its own on this machine.
_RAY = {"test_cluster.py", "test_cluster_imports.py"}


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist nobody asks
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """`--dist=loadfile`, with the files that start a Ray as one."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "Ray" if PurePosixPath(file).name in _RAY else file

    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None

"""Replicas of the service on a Ray cluster: `serve run service.cluster:app`."""

from __future__ import annotations

from typing import Any


def app(args: dict[str, Any]) -> Any:
    """For `serve run service.cluster:app models=/srv/models max_replicas=4` and config files."""
    from service.cluster import application  # Ray takes a second, and may not be there
    from service.cluster.plan import arguments
    from service.settings import Settings

    return application.build(Settings(**arguments(args)))

"""Whether the process lives, and whether it should get traffic. Two different questions.

Live: the event loop answers. Ready: the repository is loaded, at least one model of it is
served, the owner of each served model is alive, and the server is not draining. An empty
server is live and not ready.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.errors import NotReady
from service.models.registry import Registry


@dataclass(slots=True)
class Lifecycle:
    """The one flag that the signal handler and the routes share."""

    draining: bool = False


def obstacles(registry: Registry, lifecycle: Lifecycle) -> list[str]:
    """Why the server is not ready, as sentences; empty when it is."""
    reasons = []
    if lifecycle.draining:
        reasons.append("The server is stopping.")
    if registry.loading:
        reasons.append("Models are still being loaded.")
    served = registry.served()
    if not served and not registry.loading:
        broken = [f"{e.name!r} ({e.trouble})" for e in registry.entries.values()]
        reasons.append(
            f"No model works: {', '.join(broken)}." if broken else "The repository has no model."
        )
    reasons += [
        f"The worker of model {model.name!r} is not running."
        for model in registry.every_version()
        if not model.batcher.alive
    ]
    return reasons


def readiness(registry: Registry, lifecycle: Lifecycle) -> dict[str, Any]:
    """The body of GET /health/ready.

    Raises:
        NotReady: with every reason in its message.
    """
    reasons = obstacles(registry, lifecycle)
    if reasons:
        raise NotReady(" ".join(reasons))
    return {
        "status": "ready",
        "models": [
            {"name": model.name, "version": model.version, "provider": model.provider}
            for model in registry.every_version()
        ],
    }

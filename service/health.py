"""Whether the process lives, and whether it should get traffic. Two different questions.

Live: the event loop answers. Ready: the repository is loaded, at least one model of it is
served (or each of them, with --ready-when all), the owner of each served model is alive, and the
server is not draining. An empty server is live and not ready.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.errors import NotReady
from service.models.registry import Registry


@dataclass(slots=True)
class Lifecycle:
    """What the signal handler and the routes share.

    `every_model`: a model of which no version works makes the server not ready.
    """

    draining: bool = False
    every_model: bool = False


def obstacles(registry: Registry, lifecycle: Lifecycle, *, named: bool = True) -> list[str]:
    """Why the server is not ready, as sentences; empty when it is.

    Args:
        named: False to tell of no model how it is called, nor how many there are.
    """
    reasons = []
    if lifecycle.draining:
        reasons.append("The server is stopping.")
    if registry.loading:
        reasons.append("Models are still being loaded.")
    served = registry.served()
    if not served and not registry.loading:
        broken = [f"{e.name!r} ({e.trouble})" for e in registry.entries.values()]
        if not named:
            reasons.append("No model works.")
        elif broken:
            reasons.append(f"No model works: {', '.join(broken)}.")
        else:
            reasons.append("The repository has no model.")
    elif lifecycle.every_model:
        reasons += [
            f"No version of model {entry.name!r} works: {entry.trouble}."
            if named
            else "A model does not work."
            for entry in registry.entries.values()
            if not entry.versions
        ]
    reasons += [
        f"The worker of model {model.name!r} is not running."
        if named
        else "The worker of a model is not running."
        for model in registry.every_version()
        if not model.batcher.alive
    ]
    return list(dict.fromkeys(reasons))


def readiness(registry: Registry, lifecycle: Lifecycle, *, named: bool = True) -> dict[str, Any]:
    """The body of GET /health/ready.

    Raises:
        NotReady: with every reason in its message.
    """
    reasons = obstacles(registry, lifecycle, named=named)
    if reasons:
        raise NotReady(" ".join(reasons))
    if not named:
        return {"status": "ready"}
    return {
        "status": "ready",
        "models": [
            {"name": model.name, "version": model.version, "provider": model.provider}
            for model in registry.every_version()
        ],
    }

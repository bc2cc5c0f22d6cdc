"""The model repository extension, the same for REST and gRPC: index, load, unload."""

from __future__ import annotations

import asyncio
from typing import Any

from service.context import Context
from service.errors import InvalidBody, NotWithWorkers


def names(context: Context) -> dict[str, list[str]]:
    """Who can answer, in alphabetical order: KServe asks at /v1/models and /v2/models."""
    return {"models": [model.name for model in context.registry.served()]}


def versions(context: Context, name: str) -> list[str]:
    """The versions of a model that answer requests."""
    return [str(version) for version in context.registry.entry(name).versions]


def index(context: Context, ready_only: bool) -> list[dict[str, Any]]:
    """A row for each version that is served or was refused, with the reason.

    Args:
        ready_only: leave out what does not answer requests.
    """
    rows = []
    for entry in context.registry.entries.values():
        rows += [_row(entry.name, str(version), "READY", "") for version in entry.versions]
        if not ready_only:
            rows += [
                _row(entry.name, str(version), "UNAVAILABLE", reason)
                for version, reason in entry.rejected.items()
            ]
            if not entry.versions and not entry.rejected:
                rows.append(_row(entry.name, "", "UNAVAILABLE", entry.trouble))
    return rows


def _row(name: str, version: str, state: str, reason: str) -> dict[str, Any]:
    return {"name": name, "version": version, "state": state, "reason": reason}


async def load(context: Context, name: str, options: dict[str, Any]) -> None:
    """Look at the folder of a model again and serve what is good there.

    Args:
        options: `parameters` of the request; none of the protocol's is served.

    Raises:
        InvalidBody: the request brings a model or a configuration of its own.
        UnknownModel: there is no such folder.
        ModelUnavailable: none of its versions works; the reasons are in the message.
        NotWithWorkers: other processes serve it as well, and would never look.
    """
    if options.get("parameters"):
        raise InvalidBody(
            "A model is loaded as it lies in the repository, without parameters.",
            hint="Put the files into models/<name>/<version>/ and load it without parameters.",
        )
    if not (context.registry.alone or context.settings.watch_interval_ms):
        raise NotWithWorkers(
            "One of several workers cannot load a model for all, and the others do not watch.",
            hint="Start the server with --watch-interval-ms above 0: every worker notices.",
        )
    await asyncio.to_thread(context.registry.reload, name)
    context.registry.find(name)


async def unload(context: Context, name: str) -> None:
    """Serve the model no longer, until it is loaded again. Raises UnknownModel."""
    await asyncio.to_thread(context.registry.unload, name)

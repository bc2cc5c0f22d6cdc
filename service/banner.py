"""What is printed once the server is up: what it serves, and what it does not and why."""

from __future__ import annotations

import math
import socket

from service.app import TITLE
from service.device import Choice
from service.engines.choice import Row
from service.health import Lifecycle, obstacles
from service.models.registry import Registry


def banner(
    registry: Registry,
    choice: Choice,
    url: str,
    threads: str,
    version: str,
    grpc_url: str | None = None,
) -> str:
    """What is served, in plain words, for the terminal."""
    lines = [f"{TITLE} {version}", f"  url      {url}", f"  docs     {url}/docs"]
    if grpc_url:
        lines.append(f"  grpc     {grpc_url}")
    for entry in registry.entries.values():
        served = entry.served
        if served is None:
            lines.append(f"  BROKEN   {entry.name}: {entry.trouble}")
            continue
        test = "self-test passed" if served.self_test_errors is not None else "no self-test"
        speed = "" if served.warm_up_ms is None else f", {served.warm_up_ms:.2f} ms for one row"
        signer = f", signed by {served.signer}" if served.signer else ""
        lines.append(
            f"  model    {served.name} version {served.version} "
            f"({served.provider}, {test}{signer}{speed})"
        )
        lines += [f"           {told(row)}" for row in served.engines]
        lines += [f"           version {v} skipped: {why}" for v, why in entry.rejected.items()]
    lines.append(f"  threads  {threads}")
    if registry.mirror:
        lines.append(f"  store    {registry.mirror.address}")
        if registry.mirror.trouble:
            why = registry.mirror.trouble
            lines.append(f"  NOTICE   the store cannot be read, what was fetched is served: {why}")
    if choice.notice:
        lines.append(f"  NOTICE   {choice.notice}")
    default = registry.default_model
    if default is not None and default not in registry.entries:
        lines.append(f"  NOTICE   --default-model {default!r} is not in the repository")
    missing = obstacles(registry, Lifecycle())
    lines.append("  ready    " + (f"NO: {' '.join(missing)}" if missing else "yes"))
    if not registry.entries:
        lines.append("           Put a model into models/<name>/<version>/ and start again.")
    return "\n".join(lines)


def told(row: Row) -> str:
    """A row of the table of engines: what was measured, and below it why it serves or not."""
    trial = row.trial
    measured = "not measured"
    if math.isfinite(trial.lone_ms):
        measured = (
            f"{trial.lone_ms:.2f} ms, {trial.row_ms:.2f} ms a row in batches, "
            f"error {trial.error:.1e}"
        )
    note = f"; {trial.note}" if trial.note else ""
    head = f"{'*' if row.chosen else ' '} {trial.engine}: {measured}"
    return f"{head}\n               {row.why}{note}"


def url_of(listener: socket.socket, *, secure: bool = False) -> str:
    """The address to open in a browser on the same machine."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"{'https' if secure else 'http'}://{shown}:{port}"

"""What a request takes of the processor: ours and the floor, in turn.

    python -m benchmarks.serving.processor              # 2 minutes, into docs/serving.md
    python -m benchmarks.serving.processor --rounds 1 --seconds 1 --document trial.md

One worker with its default settings, the MLP, 32 clients of wrk on other cores: the processor time
of the server's process between two moments (its own and the system's for it), by the requests that
it answered meanwhile. The floor (`benchmarks.serving.floor`) reads the same requests. A second in
which the machine does something else costs both of them: so they take turns, and the median of the
rounds is told, with the best.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import document
from benchmarks.serving import client, floor
from benchmarks.serving.client import Client
from benchmarks.serving.models import models
from benchmarks.serving.peer import Model, Peer, Route
from benchmarks.serving.peers import foldserve
from benchmarks.serving.running import Failed, Server, free_ports
from benchmarks.serving.table import DOCUMENT, PREFACE

COMMAND = "python -m benchmarks.serving.processor"
ROOT = Path(__file__).parents[2]
CLIENTS = 32
# Microseconds that a request of ours may take.
GOALS = {"v2-binary": 30.0, "json": 60.0}
PEERS = (floor.PEER, foldserve.PEER)
_WARM_UP_S = 1


@dataclass(frozen=True)
class Taken:
    """Microseconds of the processor for each request, and requests a second, by round."""

    peer: str
    route: str
    us: tuple[float, ...]
    per_second: tuple[float, ...]


def measure(model: Model, rounds: int, seconds: int, driver: Client, folder: Path) -> list[Taken]:
    """All servers, all formats, in turn.

    Raises:
        Failed: a server that does not start, or answers that are none.
    """
    routes = [route for route in foldserve.PEER.routes if route.key in GOALS]
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        servers = [stack.enter_context(_server(peer, model, folder)) for peer in PEERS]
        for server in servers:
            for route in routes:
                server.drive(driver, route, CLIENTS, _WARM_UP_S)
        for _ in range(rounds):
            for route in routes:
                for server in servers:
                    once = _once(server, route, seconds, driver)
                    found.setdefault((server.peer.key, route.key), []).append(once)
    return [Taken(*which, *map(tuple, zip(*of_it, strict=True))) for which, of_it in found.items()]


def _server(peer: Peer, model: Model, folder: Path) -> Server:
    return Server(peer, Path(sys.executable), model, free_ports(), folder / peer.key)


def _once(server: Server, route: Route, seconds: int, driver: Client) -> tuple[float, float]:
    before_s = server.cpu_s()
    driven = server.drive(driver, route, CLIENTS, seconds)
    took_s = server.cpu_s() - before_s
    if driven.errors or not driven.requests:
        raise Failed(f"{server.peer.key}, {route.key}: {driven.requests} answers, {driven.errors}")
    return 1e6 * took_s / driven.requests, driven.per_second


def text(found: Sequence[Taken], rounds: int, seconds: int) -> str:
    """The table, and what it is of."""
    by_route = {
        route: {taken.peer: taken for taken in found if taken.route == route} for route in GOALS
    }
    rows: list[list[object]] = []
    for route, goal in GOALS.items():
        ours, least = by_route[route][foldserve.PEER.key], by_route[route][floor.PEER.key]
        rows.append([
            route, _us(ours.us), f"{min(ours.us):.1f}", f"{goal:.0f}",
            "yes" if median(ours.us) <= goal else "no", _us(least.us),
            f"{median(ours.per_second):,.0f}", f"{median(least.per_second):,.0f}",
        ])  # fmt: skip
    heads = [
        "format", "µs a request", "best round", "goal", "kept", "the floor, µs", "requests/s",
        "the floor's",
    ]  # fmt: skip
    return (
        f"{document.table(heads, rows, ' rrr rrr')}\n\n"
        f"The MLP, one worker, {CLIENTS} clients; processor time of the worker's process, its own "
        f"and the system's for it. Medians of {rounds} rounds of {seconds} s each, in turn with "
        "the floor: uvloop and httptools that read the same requests and always give the same "
        "40 bytes."
    )


def _us(values: Sequence[float]) -> str:
    return f"{median(values):.1f}"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of each round, server and format")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "serving")
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    args = parser.parse_args(words)
    try:
        driver = client.Wrk()
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from None
    # Servers have sessions of their own: without this they would outlive us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    model = models(args.cache / "models", ["mlp"])["mlp"]
    folder = args.cache / "logs" / "processor"
    try:
        found = measure(model, args.rounds, args.seconds, driver, folder)
    except Failed as error:
        raise SystemExit(str(error)) from None
    for taken in found:
        rounds = " ".join(f"{us:.1f}" for us in taken.us)
        print(f"{taken.peer}, {taken.route}: {rounds} us", flush=True)
    document.write(args.document, COMMAND, text(found, args.rounds, args.seconds), PREFACE)
    print(args.document)


if __name__ == "__main__":
    main()

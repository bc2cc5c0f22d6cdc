"""One run: install, start, check, drive in turn, write a row for each figure."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import lines
from benchmarks.serving import client, results
from benchmarks.serving.client import Client
from benchmarks.serving.install import Installed, install
from benchmarks.serving.models import models
from benchmarks.serving.peer import Model, Peer, Route
from benchmarks.serving.plan import RAW_S, SINGLE_S, SWEEP_S, Case, Plan
from benchmarks.serving.raw import Layout, Raw, cores, layouts
from benchmarks.serving.results import Results, Row
from benchmarks.serving.running import Failed, Server, free_ports

_WARM_UP_REQUESTS = 20


@dataclass
class Runner:
    """Args: `cache` holds environments, models and logs; `path` the rows; `say` is told all."""

    plan: Plan
    cache: Path
    path: Path
    driver: Client
    say: Callable[[str], None]
    done: Results = field(default_factory=Results)

    def run(self) -> None:
        """Measure what is not in the rows yet.

        Raises:
            SystemExit: a model could not be made.
        """
        self.done = results.read(self.path)
        if not self.done.run:
            self._keep({"run": machine(self.driver)})
        installed = self.install()
        found = models(self.cache / "models")
        began = time.monotonic()
        for name in self.plan.models():
            self._model(found[name], installed)
            self.say(f"{(time.monotonic() - began) / 60:.1f} min after the start")

    def install(self) -> dict[str, Installed]:
        """Every peer's environment."""
        found = {}
        for peer in self.plan.peers:
            found[peer.key] = made = install(peer, self.cache / "venvs")
            self.say(f"{peer.title} {made.version}: {made.reason or 'installed'}")
        return found

    def _keep(self, row: Row) -> None:
        self.done.add(row)
        lines.append(self.path, row)

    def _model(self, model: Model, installed: dict[str, Installed]) -> None:
        peers = [peer for peer in self.plan.peers_of(model.name) if self._missing(model, peer)]
        if not peers:
            return
        with ExitStack() as stack:
            raw = stack.enter_context(Raw(model))
            turn = _Turn(model, raw, self)
            servers = {
                peer.key: server
                for peer in peers
                if (server := self._start(stack, peer, installed[peer.key], turn)) is not None
            }
            up = [peer for peer in peers if peer.key in servers]
            for number, order in self.plan.turns(up):
                turn.round(number, [servers[peer.key] for peer in order])

    def _missing(self, model: Model, peer: Peer) -> bool:
        return any(
            (peer.key, model.name, route.key, case.connections, number) not in self.done.figures
            for case in self.plan.of(model.name)
            for route in peer.routes
            for number in range(1, self.plan.rounds + 1)
        )

    def _start(
        self, stack: ExitStack, peer: Peer, installed: Installed, turn: _Turn
    ) -> Server | None:
        """The server, paused; None, and a row with the reason, where there is none."""
        model = turn.model
        row: Row = {
            "server": peer.key, "model": model.name, "title": peer.title, "said": peer.said,
            "version": installed.version,
        }  # fmt: skip
        folder = self.cache / "logs" / model.name / peer.key
        server = Server(peer, installed.python, model, free_ports(), folder)
        try:
            if installed.reason:
                raise Failed(installed.reason)
            try:
                stack.enter_context(server)
            except Failed as reason:
                self.say(f"{model.name}: {peer.title} once more, as {reason}")
                server = Server(peer, installed.python, model, free_ports(), folder)
                stack.enter_context(server)
            failed = turn.check(server)
            row |= {"started_s": server.started_s, "memory_bytes": server.memory_bytes()}
            if failed:
                row["failed_routes"] = failed
            self.say(f"{model.name}: {peer.title} is up after {server.started_s:.1f} s")
            server.rest()
        except Failed as reason:
            row["failed"] = str(reason)
            self.say(f"{model.name}: {peer.title} FAILED: {reason}")
            self._keep(row)
            server.close()
            return None
        self._keep(row)
        return server


class _Turn:
    """A model's rounds."""

    def __init__(self, model: Model, raw: Raw, runner: Runner) -> None:
        self.model = model
        self.raw = raw
        self.runner = runner
        self.expected = raw.answer()
        self.wrong: set[tuple[str, str]] = set()
        self.layout: Layout | None = None

    def check(self, server: Server) -> dict[str, str]:
        """Every route once against raw onnxruntime; the reasons of those that failed."""
        failed = {}
        for route in server.peer.routes:
            try:
                server.check(route, self.expected)
                request = server.request(route)
                for _ in range(_WARM_UP_REQUESTS):
                    client.ask(server.port, request)
            except (Failed, OSError) as reason:
                failed[route.key] = str(reason)
                self.wrong.add((server.peer.key, route.key))
                self.runner.say(f"{self.model.name}: {server.peer.title} {route.key}: {reason}")
        return failed

    def round(self, number: int, servers: list[Server]) -> None:
        before = self._sweep()
        for server in servers:
            rows = self._drive(server, number)
            after = self._raw()
            for row in rows:
                # Right before and right after: whatever else the machine did hit both.
                row["raw_per_second"] = (before["per_second"] + after["per_second"]) / 2
                row["raw_single_ms"] = (before["single_ms"] + after["single_ms"]) / 2
                row["raw_layout"] = str(self.layout)
                self.runner._keep(row)
            before = after

    def _sweep(self) -> Row:
        """Find the best layout of this round."""
        speeds = {layout: self.raw.per_second(layout, SWEEP_S) for layout in layouts()}
        self.layout = max(speeds, key=lambda layout: speeds[layout])
        self.runner.say(
            f"{self.model.name}: raw onnxruntime {speeds[self.layout]:.0f}/s: {self.layout}"
        )
        return self._raw()

    def _raw(self) -> Row:
        assert self.layout is not None
        return {
            "per_second": self.raw.per_second(self.layout, RAW_S),
            "single_ms": self.raw.single_ms(SINGLE_S),
        }

    def _drive(self, server: Server, number: int) -> list[Row]:
        server.resume()
        time.sleep(0.1)
        try:
            return [
                self._one(server, route, case, number)
                for route in server.peer.routes
                if (server.peer.key, route.key) not in self.wrong
                for case in self.runner.plan.of(self.model.name)
            ]
        finally:
            server.rest()

    def _one(self, server: Server, route: Route, case: Case, number: int) -> Row:
        row: Row = {
            "peer": server.peer.key, "model": case.model, "route": route.key,
            "binary": route.binary, "connections": case.connections, "round": number,
            "load": os.getloadavg()[0],
        }  # fmt: skip
        before_s = server.cpu_s()
        try:
            driven = server.drive(self.runner.driver, route, case.connections, case.seconds)
            row |= {**driven.row(), "per_second": driven.per_second}
            if not driven.requests and not driven.errors:
                raise Failed(f"no answer within {case.seconds} s")
            if driven.requests:
                row["cpu_us"] = 1e6 * (server.cpu_s() - before_s) / driven.requests
            said = f"{driven.per_second:8.1f}/s  {driven.p50_ms:.2f} / {driven.p99_ms:.2f} ms"
            said += f"  {row.get('cpu_us', 0):.0f} us CPU"
            said += f"  ERRORS {driven.errors}" if driven.errors else ""
        except Failed as reason:
            row["failed"] = said = str(reason)
        server.settle()
        self.runner.say(f"{number} {case!s:13} {server.peer.key:12} {route.key:10} {said}")
        return row


def machine(driver: Client) -> dict[str, Any]:
    """Where and with what it was measured."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": names[0] if names else platform.machine(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "onnxruntime": metadata.version("onnxruntime"),
        "client": driver.name,
        "load": os.getloadavg()[0],
    }

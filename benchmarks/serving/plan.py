"""What is measured, in which order, and how long that takes.

A round goes through the models, and for each through the servers: a little of raw onnxruntime
before each server, and once more at the end, so that every figure has raw ones right before
and after it. Every other round runs backwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.serving.peer import Peer

RAW_S = 1.0
SINGLE_S = 0.4
SWEEP_S = 0.7
_START_S = 3.5  # a server, on average
_SETTLE_S = 0.35
_LAYOUTS = 6


@dataclass(frozen=True)
class Case:
    """So many clients on a model, for so many seconds (whole ones: wrk takes no others)."""

    model: str
    connections: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.model}-c{self.connections}"


# A slow server that answers 32 clients in batches needs some seconds to be told from a fast one.
CASES = (
    Case("resnet18", 1, 2), Case("resnet18", 8, 3), Case("resnet18", 32, 5),
    Case("digits", 1, 1), Case("digits", 32, 2),
    Case("mlp", 1, 1), Case("mlp", 32, 2),
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """`seconds` in place of those of the cases, if given."""

    peers: tuple[Peer, ...]
    cases: tuple[Case, ...] = CASES
    rounds: int = 3

    def models(self) -> list[str]:
        return list(dict.fromkeys(case.model for case in self.cases))

    def of(self, model: str) -> list[Case]:
        return [case for case in self.cases if case.model == model]

    def peers_of(self, model: str) -> list[Peer]:
        return [peer for peer in self.peers if not peer.models or model in peer.models]

    def turns(self, peers: Sequence[Peer]) -> Iterator[tuple[int, list[Peer]]]:
        """Rounds, counted from 1, and the order of the servers in each."""
        for number in range(1, self.rounds + 1):
            yield number, list(peers if number % 2 else reversed(peers))

    def seconds(self) -> dict[str, float]:
        """How long each part takes, about."""
        found = {}
        for model in self.models():
            peers = self.peers_of(model)
            asked = sum(case.seconds for case in self.of(model))
            routes = sum(len(peer.routes) for peer in peers)
            found[f"{model}: start {len(peers)} servers"] = _START_S * len(peers)
            found[f"{model}: {routes} routes x {asked} s x {self.rounds} rounds"] = (
                (asked + _SETTLE_S * len(self.of(model))) * routes * self.rounds
            )
            found[f"{model}: raw onnxruntime between them"] = self.rounds * (
                SWEEP_S * _LAYOUTS + (RAW_S + SINGLE_S) * (len(peers) + 1)
            )
        return found

    def text(self) -> str:
        parts = self.seconds()
        lines = [f"{seconds / 60:6.1f} min  {part}" for part, seconds in parts.items()]
        return "\n".join([*lines, f"{sum(parts.values()) / 60:6.1f} min  in all, about"])


def quick(plan: Plan) -> Plan:
    """A second for each case, one round: shows that everything works, measures nothing."""
    cases = tuple(Case(case.model, case.connections, 1) for case in plan.cases)
    return Plan(plan.peers, cases, 1)

"""What many batch-norms have in common: those that stay, by reason, and warnings, by kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from converter.folding import Decision, Hazard, Refusal

# What stopped it, as in "stopped by ..". `{op}` is the type of the op in the way.
PHRASES = {
    "training-mode": "its training mode",
    "batch-statistics": "the statistics of each batch",
    "computed-parameters": "a weight or bias that is computed at run time",
    "bad-statistics": "statistics that are not usable numbers",
    "unsupported-form": "an unsupported form of {op}",
    "shared-value": "{op}, which reads the same value",
    "graph-output": "an output of the model",
    "graph-input": "an input or a constant",
    "subgraph": "the border of a subgraph",
    "computed-weights": "weights of {op} that are computed at run time",
    "overridable-weights": "weights of {op} that are inputs of the graph",
    "wrong-axis": "{op}, whose channels lie on another axis",
    "not-linear": "{op}",
    "unknown-shape": "an unknown shape at {op}",
    "padding": "the zero padding of {op}",
    "sign": "a negative scale at {op}",
    "not-per-channel": "{op}, behind which it would differ within a channel",
    "dearer": "its cost",
    "overflow": "an overflow of the folded weights",
    "skipped": "the request to keep it",
}


@dataclass(frozen=True)
class Group:
    """Batch-norms that stay for the same reason: `summary` for all, `example` for the first."""

    summary: str
    example: str
    names: tuple[str, ...]
    code: str
    op: str | None


@dataclass(frozen=True)
class Warnings:
    """Warnings of one kind: the different `sentences`, each with the names that it is about."""

    code: str
    sentences: tuple[tuple[str, tuple[str, ...]], ...]


def groups(decisions: Iterable[Decision]) -> list[Group]:
    """Group the batch-norms that stay, the most common reason first."""
    found: dict[str, list[tuple[str, Refusal]]] = {}
    for decision in decisions:
        if isinstance(decision.outcome, Refusal):
            entry = (decision.site.name, decision.outcome)
            found.setdefault(summary(decision.outcome), []).append(entry)
    made = [
        Group(
            text,
            str(members[0][1]),
            tuple(name for name, _ in members),
            members[0][1].code,
            _op(members[0][1]),
        )
        for text, members in found.items()
    ]
    return sorted(made, key=lambda group: -len(group.names))


def summary(refusal: Refusal) -> str:
    """The reason without the names in it: "stopped before it by Relu and behind it by Tanh"."""
    if refusal.behind is None:
        return f"stopped by {_phrase(refusal)}"
    before, behind = _phrase(refusal), _phrase(refusal.behind)
    return f"stopped before it by {before}{',' * (',' in before)} and behind it by {behind}"


def _phrase(refusal: Refusal) -> str:
    return PHRASES.get(refusal.code, refusal.code).format(op=_op(refusal) or "an op")


def _op(refusal: Refusal) -> str | None:
    return None if refusal.node is None else refusal.node.op_type


def warnings(decisions: Iterable[Decision]) -> list[Warnings]:
    """The warnings about batch-norms by kind, in the order in which they first occur."""
    return _by_kind((hazard, d.site.name) for d in decisions for hazard in d.site.warnings)


def weight_warnings(hazards: Sequence[Hazard]) -> list[Warnings]:
    """The same for warnings about folded weights, which name their op themselves."""
    return _by_kind((hazard, hazard.where) for hazard in hazards)


def _by_kind(found: Iterable[tuple[Hazard, str]]) -> list[Warnings]:
    kinds: dict[str, dict[str, list[str]]] = {}
    for hazard, name in found:
        kinds.setdefault(hazard.code, {}).setdefault(str(hazard), []).append(name)
    return [
        Warnings(code, tuple((text, tuple(names)) for text, names in sentences.items()))
        for code, sentences in kinds.items()
    ]

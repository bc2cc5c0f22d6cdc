"""The measured part of docs/serving.md, from the rows of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import document
from benchmarks.serving.catalogue import PEERS
from benchmarks.serving.goals import goals
from benchmarks.serving.results import Results, Row

COMMAND = "python -m benchmarks.serving"
DOCUMENT = Path(__file__).parents[2] / "docs" / "serving.md"
PREFACE = "# The service beside other servers\n"
_TITLES = {
    "resnet18": "ResNet-18, 224x224",
    "digits": "Digits CNN, 28x28",
    "mlp": "MLP 784-256-128-10",
}
FORMATS = {"json": "JSON", "v2-json": "V2 JSON", "v2-binary": "V2 binary", "raw": "raw bytes"}
_OURS = "foldserve"


@dataclass(frozen=True)
class Cell:
    """A server and format with so many clients: medians over the rounds, None where it failed.

    `ratio`: to raw onnxruntime's best in the same minute. `errors`: of all rounds, by kind.
    `cpu_us`: CPU time of the server's processes for one request.
    """

    per_second: float
    p50_ms: float
    p99_ms: float
    ratio: float
    single_ms: float
    low: float
    high: float
    errors: dict[str, int]
    cpu_us: float = 0.0
    failed: str = ""

    def text(self) -> str:
        if self.failed:
            return f"failed: {self.failed}"
        speed, shown = self.per_second, f"({number(self.p50_ms)} / {number(self.p99_ms)})"
        errors = ", ".join(f"{count} {kind}" for kind, count in self.errors.items())
        return f"{number(speed)} {shown}" + (f" **errors: {errors}**" if errors else "")


def cell(rows: Sequence[Row]) -> Cell | None:
    """One cell from its rounds; None if there are none."""
    if not rows:
        return None
    good = [row for row in rows if "failed" not in row]
    if not good:
        return Cell(0, 0, 0, 0, 0, 0, 0, {}, failed=rows[-1]["failed"])
    errors: dict[str, int] = {}
    for row in good:
        for kind, count in row["errors"].items():
            errors[kind] = errors.get(kind, 0) + count
    if len(good) < len(rows):
        errors["rounds failed"] = len(rows) - len(good)
    middle = {key: median(row[key] for row in good) for key in ("per_second", "p50_ms", "p99_ms")}
    speeds = [row["per_second"] for row in good]
    return Cell(
        **middle,
        ratio=median(row["per_second"] / row["raw_per_second"] for row in good),
        single_ms=median(row["raw_single_ms"] for row in good),
        low=min(speeds),
        high=max(speeds),
        errors=errors,
        cpu_us=median(row.get("cpu_us", 0.0) for row in good),
    )


def find(found: Results, peer: str, model: str, route: str, connections: int) -> Cell | None:
    """The cell of a server, from all its rounds."""
    which = (peer, model, route, connections)
    return cell([row for key, row in found.figures.items() if key[:4] == which])


def write(found: Results, path: Path) -> None:
    """Into the document, between its markers."""
    document.write(path, COMMAND, text(found), PREFACE)


def text(found: Results) -> str:
    """All tables."""
    models = list(dict.fromkeys([key[1] for key in found.servers]))
    parts = [_conditions(found), goals(lambda *which: find(found, *which), PEERS)]
    for model in models:
        parts += [f"### {_TITLES.get(model, model)}", _raw_line(found, model), _model(found, model)]
    return "\n\n".join([*parts, "### The servers", _servers(found)])


def _conditions(found: Results) -> str:
    run = found.run
    if not run:
        return "Nothing has been measured yet."
    rounds = max((key[4] for key in found.figures), default=0)
    loads = [row["load"] for row in found.figures.values()]
    load = f"{min(loads):.1f} to {max(loads):.1f}" if loads else "unknown"
    return (
        f"{run['date']}; {run['cpu']}, {run['cores']} cores, {run['system']}; Python "
        f"{run['python']}, onnxruntime {run['onnxruntime']} in every server; client: "
        f"{run['client']}. Medians of {rounds} rounds; the load average was {load}, the client and "
        "the server included. Requests a second, in brackets p50 and p99 in milliseconds."
    )


def _raw_line(found: Results, model: str) -> str:
    rows = [row for row in found.figures.values() if row["model"] == model]
    if not rows:
        return ""
    best, single = (median(r[key] for r in rows) for key in ("raw_per_second", "raw_single_ms"))
    seen = [row["raw_layout"] for row in rows]
    layouts = sorted(set(seen), key=lambda layout: -seen.count(layout))
    return (
        f"Raw onnxruntime without a server: {number(best)} samples/s at best "
        f"({', or '.join(layouts)}), {number(single)} ms for one sample on all cores."
    )


def _model(found: Results, model: str) -> str:
    counts = sorted({key[3] for key in found.figures if key[1] == model})
    rows: list[tuple[bool, float, list[object]]] = []
    for peer in PEERS:
        for route in peer.routes:
            cells = [find(found, peer.key, model, route.key, count) for count in counts]
            reason = _reason(found, peer.key, model, route.key)
            if not any(cells) and not reason:
                continue
            name = f"**{peer.title}**" if peer.key.startswith(_OURS) else peer.title
            shown = [cell.text() if cell else "" for cell in cells] or [""]
            shown[0] = shown[0] or reason
            shares = [
                f"{cell.ratio:.2f}" if cell and not cell.failed else ""
                for cell, count in zip(cells, counts, strict=True)
                if count > 1
            ]
            last = cells[-1] if cells else None
            speed, cpu = (last.per_second, f"{last.cpu_us:,.0f}") if last else (0.0, "")
            row = [name, FORMATS[route.key], *shown, *shares, cpu]
            rows.append((route.binary, -speed, row))
    rows.sort(key=lambda entry: entry[:2])
    heads = ["server", "format", *(f"{n} client{'s' * (n > 1)}" for n in counts)]
    heads += [*(f"of raw, {n}" for n in counts if n > 1), f"CPU µs, {max(counts, default=0)}"]
    return document.table(heads, [row for _, _, row in rows], "  " + "r" * (len(heads) - 2))


def _reason(found: Results, peer: str, model: str, route: str) -> str:
    row = found.servers.get((peer, model), {})
    reason = row.get("failed") or row.get("failed_routes", {}).get(route, "")
    return f"failed: {reason}" if reason else ""


def _servers(found: Results) -> str:
    models = list(dict.fromkeys(key[1] for key in found.servers))
    rows: list[list[object]] = []
    for peer in PEERS:
        by_model = [found.servers.get((peer.key, model), {}) for model in models]
        seen = [row for row in by_model if row]
        if seen:
            started = [f"{r['started_s']:.1f}" if "started_s" in r else "-" for r in by_model]
            memory = [
                f"{r['memory_bytes'] / 1e6:.0f}" if "memory_bytes" in r else "-" for r in by_model
            ]
            rows.append([
                peer.title, seen[-1]["version"], seen[-1]["said"], " / ".join(started),
                " / ".join(memory), next((row["failed"] for row in seen if "failed" in row), ""),
            ])  # fmt: skip
    each = " / ".join(models)
    heads = ["server", "version", "configuration", f"first answer, s ({each})"]
    return document.table([*heads, f"memory after it, MB ({each})", "failed"], rows, "   rr")


def number(value: float) -> str:
    """Three digits that matter, thousands with commas."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"

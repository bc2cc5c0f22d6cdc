"""The measured part of docs/serving.md, from the rows of a run."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from benchmarks import document
from benchmarks.serving.catalogue import PEERS
from benchmarks.serving.cells import find, number
from benchmarks.serving.goals import goals
from benchmarks.serving.results import Results

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

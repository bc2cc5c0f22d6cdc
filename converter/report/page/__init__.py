"""A report as one HTML file: no other file, no network, readable without scripts, printable.

Its text comes from a model file that may not be trusted: everything is escaped by the template
engine, and the page forbids any script or style except its own (Content Security Policy, W3C, by
hash). Equal reports give equal pages.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from converter.report.page import drawing, plot
from converter.report.terminal_explain import change, describe_map, numbers, stop

HERE = Path(__file__).parent
# How many surroundings of batch-norms that stay are drawn, to keep the page short.
MOST_DRAWN = 200


def templates(folder: Path) -> Environment:
    """The templates of a folder: values are escaped, and a missing value is an error."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(report: Mapping[str, Any]) -> str:
    """The page for a report of `fold` or `inspect`, which holds `explanations` and `provenance`.

    Raises:
        KeyError: the report lacks a part.
    """
    environment = templates(HERE)
    environment.filters |= {
        "amount": _count,
        "error": _error,
        "described": describe_map,
        "numbers": numbers,
        "change": change,
        "stop": stop,
    }
    style, script = (_read(name) for name in ("style.css", "script.js"))
    told = {explanation["name"]: explanation for explanation in report["explanations"]}
    kept = [d["name"] for d in report["plan"]["decisions"] if not d["folded"]]
    drawn = {
        name: drawing.draw(told[name]["neighbourhood"])
        for name in kept[:MOST_DRAWN]
        if told[name]["neighbourhood"]
    }
    proof = report.get("proof")
    return environment.get_template("report.html").render(
        report=report,
        plan=report["plan"],
        source=report["source"],
        provenance=report["provenance"],
        proof=proof,
        certificate=report.get("certificate"),
        told=told,
        drawn=drawn,
        undrawn=max(0, len(kept) - MOST_DRAWN),
        sizes=_sizes(report["before"], report["after"]),
        uncounted=report["before"]["uncounted"] or report["after"]["uncounted"],
        plot=plot.plot(proof["measurements"]) if proof else None,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _sizes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each number before and after, and its share of the larger one, for the bars."""
    rows = []
    for key, name in (
        ("batchnorms", "batch-norms"),
        ("nodes", "nodes"),
        ("multiply_adds", "multiply-adds of one run"),
        ("parameters", "parameters"),
        ("bytes", "file size, bytes"),
    ):
        was, now = before[key], after[key]
        known = was is not None and now is not None
        most = max(was, now) if known else 0
        rows.append(
            {
                "name": name,
                "before": was,
                "after": now,
                "change": _change(was, now) if known else "",
                "bars": [round(100 * n / most, 2) for n in (was, now)] if most else None,
            }
        )
    return rows


def _change(was: int, now: int) -> str:
    if was == now:
        return "as before"
    if not was:
        return f"{now - was:+,}"
    share = 100 * (now - was) / was
    return f"{now - was:+,} ({share:+,.{0 if abs(share) >= 10 else 1}f} %)"


def _count(number: int | None) -> str:
    return "not known" if number is None else f"{number:,}"


def _error(number: float | None) -> str:
    return "not finite" if number is None else f"{number:.1e}"

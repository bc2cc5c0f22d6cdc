"""The report as one HTML file: no other file, no network, no scripts, light and dark, prints."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from converter.report import page as report_page
from experiments import report as told
from experiments.report import Report

HERE = Path(__file__).parent


def page(report: Report) -> str:
    """The page; equal reports give equal pages. Pictures are in it, as data."""
    environment = report_page.templates(HERE)
    environment.filters |= {
        "percent": told.percent,
        "extent": told.extent,
        "measured": told.measured,
        "steps": told.steps,
        "share": told.share,
        "seconds": told.seconds,
        "pair": told.pair,
        "verdict": told.verdict_of,
        "data_uri": _data_uri,
    }
    style = (report_page.HERE / "style.css").read_text(encoding="utf-8")
    style += (HERE / "page.css").read_text(encoding="utf-8")
    digest = hashlib.sha256(style.encode()).digest()
    return environment.get_template("page.html").render(
        report=report,
        style=style,
        style_hash=f"sha256-{base64.b64encode(digest).decode()}",
        classes=told.VERDICT_CLASS,
    )


def _data_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()

"""The report as Markdown, with its pictures as SVG files beside it, light and dark."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from converter.errors import UserError
from converter.files import atomic
from experiments import report as told
from experiments.report import Report, Section


def write(report: Report, path: Path, pictures: Path) -> None:
    """Write the document, and its pictures into the folder `pictures`. Raises UserError."""
    try:
        pictures.mkdir(parents=True, exist_ok=True)
        for section in report.sections:
            for picture in section.pictures:
                for theme, svg in picture.svg.items():
                    atomic.write_bytes(pictures / file(picture.name, theme), svg.encode())
        where = Path(os.path.relpath(pictures, path.parent))
        atomic.write_bytes(path, f"# {report.title}\n\n{body(report, where)}".encode())
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def file(name: str, theme: str) -> str:
    """The name of a picture's file."""
    return f"{name}-{theme}.svg"


def body(report: Report, pictures: Path) -> str:
    """The document without its heading; `pictures` is relative to where it will be."""
    parts = [f"Made by `{report.command}`. Data: {report.data}. Machine: {report.machine}."]
    claims = [section for section in report.sections if section.outcome]
    if claims:
        parts += ["## Verdicts", _verdicts(claims), report.method]
    parts += [_section(section, pictures) for section in report.sections]
    return "\n\n".join(parts) + "\n"


def _verdicts(sections: Sequence[Section]) -> str:
    rows = [
        [
            f"[{section.name}](#{section.name})",
            section.outcome.claim.sentence,
            f"**{told.verdict_of(section)}**",
            "; ".join(
                f"{finding.part.says}: {told.measured(finding)}"
                for finding in section.outcome.findings
            ),
        ]
        for section in sections
        if section.outcome
    ]
    return table(["claim", "sentence", "verdict", "measured"], rows)


def _section(section: Section, pictures: Path) -> str:
    parts = [f"## {section.name}"]
    if section.outcome:
        claim = section.outcome.claim
        parts += [
            f"{claim.sentence} **{told.verdict_of(section).capitalize()}.**",
            f"Source: {claim.source}. {claim.note}".strip(),
            table(
                ["what must be so", "measured: mean (95 % interval)", "verdict"],
                [
                    [f.part.says, told.measured(f), f.verdict or ""]
                    for f in section.outcome.findings
                ],
            ),
        ]
    lowest, highest = section.seeds
    seeds = str(lowest) if lowest == highest else f"{lowest} to {highest}"
    parts.append(
        f"{section.settings}; {section.images}; {section.done} of {section.total} runs finished, "
        f"{seeds} seeds an arm."
    )
    parts += [
        f'<picture><source srcset="{pictures.as_posix()}/{file(p.name, "dark")}" '
        f'media="(prefers-color-scheme: dark)"><img alt="{p.title}" '
        f'src="{pictures.as_posix()}/{file(p.name, "light")}"></picture>\n\n'
        f"{p.title} Lines are means over the seeds, bands their whole range."
        for p in section.pictures
    ]
    if section.undrawn:
        parts.append(f"{section.undrawn} more settings are in the table only.")
    parts.append(_arms(section))
    parts.append(
        "<details><summary>what enters each layer, and its gradient</summary>\n\n"
        + _layers(section)
        + "\n\n</details>"
    )
    return "\n\n".join(parts)


def _arms(section: Section) -> str:
    heads = ["arm", "seeds", "final accuracy", "from, to", "best", "recalibrated"]
    heads += ["steps to the plain net's best", "share of its steps", "s an epoch"]
    rows = [
        [
            arm.label + (f" ({arm.diverged} diverged)" if arm.diverged else ""),
            len(arm.records),
            told.percent(arm.accuracy),
            told.extent(arm.accuracy),
            told.percent(arm.best),
            told.percent(arm.recalibrated) if arm.recalibrated else "",
            told.steps(arm),
            told.share(arm),
            told.seconds(arm),
        ]
        for arm in section.arms
    ]
    return table(heads, rows, "lrrrrrrrr")


def _layers(section: Section) -> str:
    rows = [
        [
            arm.label,
            f"`{layer.name}`",
            told.pair(layer.mean),
            told.pair(layer.std),
            f"{layer.drift:.3g}",
            told.pair(layer.gradient),
        ]
        for arm in section.arms
        for layer in arm.layers
    ]
    heads = ["arm", "layer", "mean", "deviation", "drift a snapshot", "gradient norm"]
    return table(heads, rows, "llrrrr")


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], sides: str = "") -> str:
    """A table of Markdown; `sides` has an "r" for each column of numbers."""
    marks = ["---:" if side == "r" else ":---" for side in sides.ljust(len(heads))]
    lines = [heads, marks, *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())

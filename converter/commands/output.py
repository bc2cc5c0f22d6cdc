"""Write a report for programs, and for people as a page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter.errors import UserError
from converter.files.atomic import write_bytes

if TYPE_CHECKING:
    import onnx_ir as ir

    from converter.folding import Plan


def write_json(path: Path | None, report: dict[str, Any]) -> None:
    """Write `report` to `path`, if one was given.

    Raises:
        UserError: the place cannot be written to.
    """
    if path is None:
        return
    _write(path, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())


def write_html(
    path: Path | None, report: Mapping[str, Any], original: ir.Model, plan: Plan
) -> None:
    """Write the page of `report`, with every batch-norm explained, if a path was given.

    Raises:
        UserError: the place cannot be written to.
    """
    if path is None:
        return
    from converter.report.explain import Explainer
    from converter.report.page import page  # a template engine is not wanted otherwise

    explainer = Explainer(original, plan)
    told = [explainer.explain(decision) for decision in plan.decisions]
    _write(path, page({**report, "explanations": told}).encode("utf-8", errors="replace"))


def check(paths: Iterable[Path | None], source: Path) -> None:
    """Find mistakes before minutes of work, not after.

    Raises:
        UserError: a folder does not exist, or stands where a file is to be; or the input would
            be overwritten.
    """
    for path in paths:
        if path is None:
            continue
        if not path.parent.is_dir():
            raise UserError(f"the folder {path.parent} does not exist.", "Create it first.")
        if path.is_dir():
            raise UserError(f"{path} is a folder.", "Give the name of a file.")
        if path.exists() and source.exists() and path.samefile(source):
            raise UserError(f"{path} is the input.", "Give another name.")


def _write(path: Path, content: bytes) -> None:
    try:
        write_bytes(path, content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}.") from error

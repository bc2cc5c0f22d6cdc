"""Documents with a part that a command writes: it lies between two markers, the rest is yours."""

from __future__ import annotations

from pathlib import Path

BEGIN = "<!-- made by `{command}`; the text up to the end marker is overwritten -->"
END = "<!-- end of what `{command}` made -->"


def write(path: Path, command: str, made: str, preface: str) -> None:
    """Put `made` between the markers of `command`; a new document begins with `preface`.

    Raises:
        ValueError: the document is there, but not its markers.
    """
    begin, end = BEGIN.format(command=command), END.format(command=command)
    text = path.read_text(encoding="utf-8") if path.is_file() else f"{preface}\n{begin}\n{end}\n"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{path} has no markers of `{command}`: add them, or remove the file")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before}{begin}\n\n{made.strip()}\n\n{end}{after}", encoding="utf-8")


def table(heads: list[str], rows: list[list[object]], right: str = "") -> str:
    """A table of Markdown; `right` has an "r" for each column of numbers."""
    sides = [":" * (side != "r") + "---" + ":" * (side == "r") for side in right.ljust(len(heads))]
    lines = [heads, sides, *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())

"""From rows to the made part of `docs/real.md`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from benchmarks import document
from benchmarks.zoo import certificates
from benchmarks.zoo.results import Row

COMMAND = "python -m benchmarks.real table"
PREFACE = Path(__file__).with_name("preface.md")
_ENDS = {
    "served": "served, answers as the original's",
    "wrong": "served, with other answers than the original's",
    "not served": "published, but not served",
    "refused": "refused by the command, which says why",
    "failed": "ended by a limit, or a crash",
    "not built": "not built by the library",
    "not there": "no such file",
}
_TITLES = {"files": "Trained files of packages", "networks": "Networks of libraries"}
_THINGS = {"files": "files", "networks": "networks"}


def write(path: Path, kept: Mapping[str, Mapping[str, Row]], version: str) -> None:
    """Overwrite the part of `path` that this command makes; `kept` has the rows of each kind."""
    document.write(path, COMMAND, text(kept, version), PREFACE.read_text(encoding="utf-8"))


def text(kept: Mapping[str, Mapping[str, Row]], version: str) -> str:
    parts: list[str] = []
    for kind, by_name in kept.items():
        if rows := [by_name[name] for name in sorted(by_name)]:
            parts += [
                f"## {_TITLES[kind]}",
                _counts(rows, _THINGS[kind], version),
                _rows(rows),
                _doubtful(rows),
                _ended(rows),
                _stay(rows),
            ]
    return "\n\n".join(part for part in parts if part)


def _counts(rows: list[Row], things: str, version: str) -> str:
    ends = Counter(row["status"] for row in rows)
    packages = len({row["package"] for row in rows})
    folded = [row for row in rows if "batchnorms" in row]
    norms, gone = sum(r["batchnorms"] for r in folded), sum(r["folded"] for r in folded)
    maps, taken = sum(r["maps"] for r in folded), sum(r["maps_folded"] for r in folded)
    lines = [
        f"**{len(rows)} {things} of {packages} packages: {ends['served']} served, "
        f"{ends['wrong']} wrong.** Of {norms} batch-norms {gone} are folded, of {maps} other "
        f"constant scales and shifts {taken}.",
        "",
        document.table(
            ["what became of it", things], [[_ENDS[end], ends[end]] for end in _ENDS if ends[end]],
            " r",
        ),
    ]  # fmt: skip
    served = [row for row in rows if row["status"] in ("served", "wrong")]
    if served:
        worst = max(served, key=lambda row: row["error"])
        lines += [
            "",
            f"The largest difference of an answer is {worst['error']:.0e} of the output's largest "
            f"number ({worst['name']}). Seconds and memory are of `converter fold --publish` with "
            "its proof; memory includes what importing torch takes.",
        ]
    asked = [row for row in rows if "certified" in row]
    if asked:
        good = [row for row in asked if row["certified"]]
        most = max((row["largest_move"] for row in good), default=0.0)
        lines += [
            "",
            f"**Certified for every input, from the file as it is: {len(good)} of {len(asked)}**; "
            f"no weight was moved by more than {most:.2f} roundings.",
        ]
    former = sum(row["engine"] != version for row in rows)
    lines += ["", f"Source of converter and service: {version}; {former} rows are by a former one."]
    return "\n".join(lines)


def _rows(rows: list[Row]) -> str:
    heads = [
        "package", "model", "batch-norms", "folded", "other maps", "folded", "proof", "certified",
        "served", "error", "s", "MB",
    ]  # fmt: skip
    lines: list[list[object]] = []
    for row in rows:
        ran = "batchnorms" in row
        answered = row["status"] in ("served", "wrong")
        lines.append(
            [
                f"{row['package']} {row['version']}",
                _shown(row),
                row.get("batchnorms", ""),
                row.get("folded", ""),
                row.get("maps", ""),
                row.get("maps_folded", ""),
                ("proven" if row["proven"] else "not proven") if ran else "",
                certificates.word(row),
                "yes" if row["status"] == "served" else row["status"],
                f"{row['error']:.0e}" if answered else "",
                f"{row['seconds']:.1f}" if "seconds" in row else "",
                row.get("fold_peak_mb", ""),
            ]
        )
    return document.table(heads, lines, "  rrrr   rrr")


def _shown(row: Row) -> str:
    """Its name in the package, with the marks that the preface explains."""
    marks = ("*" * bool(row["needs"] and row["file"])) + ("†" * bool(row["feeds"]))
    return row["name"].partition("/")[2] + marks


def _doubtful(rows: list[Row]) -> str:
    """Those that are not certified, each with the checker's sentence."""
    found = [row for row in rows if not row.get("certified", True)]
    if not found:
        return ""
    lines: list[list[object]] = [[row["name"], row["certificate"]] for row in found]
    return "### Not certified, and what the checker says\n\n" + document.table(
        ["model", "what it says"], lines
    )


def _ended(rows: list[Row]) -> str:
    """Those that are not served, each with the sentence that was said."""
    found = [row for row in rows if row["status"] not in ("served",)]
    if not found:
        return ""
    lines: list[list[object]] = [
        [row["name"], row["status"], _sentence(row) or "nothing"] for row in found
    ]
    return "### Not served, and what was said\n\n" + document.table(
        ["model", "end", "what was said"], lines
    )


def _sentence(row: Row) -> str:
    problems = [text for asked in row.get("asked", []) for text in asked["problems"]]
    return str(row.get("sentence") or row.get("said") or "; ".join(problems) or row.get("why", ""))


def _stay(rows: list[Row]) -> str:
    """Why batch-norms and other maps stay, by the code of the reason."""
    counts: Counter[str] = Counter()
    models: Counter[str] = Counter()
    example: dict[str, str] = {}
    for row in rows:
        for code, (count, sentence) in row.get("reasons", {}).items():
            counts[code] += count
            models[code] += 1
            example.setdefault(code, f"{row['name']}: {sentence}")
    if not counts:
        return ""
    lines: list[list[object]] = [
        [f"`{code}`", count, models[code], example[code]] for code, count in counts.most_common()
    ]
    return "### Why maps stay\n\n" + document.table(
        ["reason", "maps", "models", "an example"], lines, " rr"
    )

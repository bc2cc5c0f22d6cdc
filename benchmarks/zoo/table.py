"""From rows to `docs/zoo.md`: how much is folded, beside what other tools leave, and what is not.

Everything in it is counted from the rows; rows of another converter than the present are told.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks import document
from benchmarks.zoo import certificates, findings
from benchmarks.zoo.catalogue import Architecture, Catalogue
from benchmarks.zoo.names import RIVAL_NAMES
from benchmarks.zoo.results import Row
from benchmarks.zoo.stages import LENIENCY

COMMAND = "python -m benchmarks.zoo --table"
EXPORTED_BY = {"dynamo": "torch.export", "TorchScript": "TorchScript"}
PREFACE = Path(__file__).with_name("preface.md")


def write(
    path: Path, rows: Mapping[str, Row], listed: Catalogue, engine: str, checker: str
) -> None:
    """Overwrite the part of `path` that this command makes."""
    words = text(rows, listed, engine, checker)
    document.write(path, COMMAND, words, PREFACE.read_text(encoding="utf-8"))


def text(rows: Mapping[str, Row], listed: Catalogue, engine: str, checker: str) -> str:
    """`engine`, `checker`: the present ones."""
    known = {architecture.name for architecture in listed.architectures}
    chosen = [rows[name] for name in sorted(rows) if name in known]
    folded = [row for row in chosen if row["status"] == "ok"]
    parts = [
        _coverage(chosen, folded, listed),
        _versions(chosen, listed, engine),
        _exporters(folded),
        _summary(folded),
        findings.correctness(folded),
        certificates.text(folded, checker),
        _fewer(folded),
        findings.wrong_peers(folded),
        findings.reasons(folded),
        findings.weak(folded),
        findings.failures(chosen),
        _by_architecture(folded),
        _not_run(chosen, listed),
    ]
    return "\n\n".join(part for part in parts if part)


def _coverage(chosen: list[Row], folded: list[Row], listed: Catalogue) -> str:
    total = len(listed.architectures)
    by_library = []
    for library, all_of_them in listed.listed.items():
        have = sum(a.name.startswith(library) for a in listed.architectures)
        ran = sum(row["name"].startswith(library) for row in chosen)
        by_library.append(f"{library}: {ran} of {have} (it lists {all_of_them} in all)")
    families = {a.family for a in listed.architectures}
    seen = {row["family"] for row in folded}
    words = [
        f"**Run: {len(chosen)} of the {total} architectures that hold batch-norms** "
        f"({'; '.join(by_library)}).",
        f"Folded: {len(folded)}, from {len(seen)} of {len(families)} families (files of model "
        f"definitions). Not exported or not finished: {len(chosen) - len(folded)}, listed below.",
    ]
    if listed.unbuildable:
        words.append(
            f"{len(listed.unbuildable)} of the libraries' architectures do not build without "
            f"weights and were not counted: {', '.join(sorted(listed.unbuildable))}."
        )
    if len(chosen) < total:
        words.append(
            "`python -m benchmarks.zoo` runs the rest; it goes on where it was stopped, as "
            "long as the converter is the same."
        )
    return "\n".join(words)


def _versions(chosen: list[Row], listed: Catalogue, engine: str) -> str:
    engines = Counter(row["engine"] for row in chosen)
    former = [f"{n} by {name}" for name, n in engines.most_common() if name != engine]
    which = f"rows by that of the day this was written, {engine}: {engines[engine]}"
    if former:
        which += f"; by former ones: {', '.join(former)} (the last column below says which row)"
    libraries = ", ".join(f"{name} {version}" for name, version in listed.versions.items())
    peers: dict[str, set[str]] = defaultdict(set)
    for row in chosen:
        for name, found in row.get("peers", {}).items():
            if found.get("version"):
                peers[name].add(found["version"])
    tools = ", ".join(f"{name} {' and '.join(sorted(v))}" for name, v in sorted(peers.items()))
    return (
        f"Converter (a hash of the source that decides a fold and its proof): {which}. "
        f"{libraries}. Peers: {tools or 'not asked'}."
    )


def _exporters(folded: list[Row]) -> str:
    used = Counter(row["exporter"] for row in folded)
    if not used["TorchScript"]:
        return ""
    return (
        f"Exported by torch.export, as `converter fold` does: {used['dynamo']}. By TorchScript, to "
        f"which it falls back, as that needs a tenth of the time: {used['TorchScript']}."
    )


def _summary(folded: list[Row]) -> str:
    total = sum(row["batchnorms"] for row in folded)
    ours = sum(row["left"] for row in folded)
    clean = sum(row["left"] == 0 for row in folded)
    wrong = sum(row["verdict"] == "wrong" for row in folded)
    rows: list[list[object]] = [
        ["**Foldserve**", len(folded), total, ours, ours, clean, "", wrong, 0]
    ]
    relu = [row["left_through_relu"] for row in folded]
    rows.append(
        [
            "Foldserve --through-relu",
            len(folded),
            total,
            sum(relu),
            ours,
            relu.count(0),
            "",
            sum(row["exact"] > findings.EXACT for row in folded),
            0,
        ]
    )
    for peer in RIVAL_NAMES:
        asked = [row for row in folded if peer in row.get("peers", {})]
        if not asked:
            continue
        good = [row for row in asked if "left" in row["peers"][peer]]
        rows.append(
            [
                peer,
                len(good),
                sum(row["batchnorms"] for row in good),
                sum(row["peers"][peer]["left"] for row in good),
                sum(row["left"] for row in good),
                sum(row["peers"][peer]["left"] == 0 for row in good),
                len(beaten_by(good, peer)),
                sum(not row["peers"][peer]["right"] for row in good),
                len(asked) - len(good),
            ]
        )
    heads = [
        "tool", "architectures", "batch-norms there", "left", "left by Foldserve there",
        "architectures with none left", "leaves fewer than Foldserve", "wrong or unusable result",
        "failed",
    ]  # fmt: skip
    merged = sum(row["merges"] for row in folded)
    scale_shifts = [sum(row["scale_shifts"][i] for row in folded) for i in (0, 1)]
    return "\n\n".join(
        [
            "## Batch-norms that are left",
            document.table(heads, rows, " rrrrrrrr"),
            "Every tool gets the same un-folded file, its constants evaluated; onnxruntime's "
            "level is EXTENDED, its optimised model saved. A peer's result counts as wrong when "
            f"its error is more than {LENIENCY:.0f} times what Foldserve allows itself (or it "
            "does not run); failed: it gave no file.",
            f"Besides batch-norms, {scale_shifts[1]} of {scale_shifts[0]} constant scales and "
            f"shifts were folded, and {merged} sums of parallel branches became one op.",
        ]
    )


def beaten_by(rows: list[Row], peer: str) -> list[Row]:
    """Where a peer leaves fewer than we do, and its result is right."""
    return [
        row
        for row in rows
        if (found := row.get("peers", {}).get(peer, {})).get("right")
        and found["left"] < row["left"]
    ]


def _fewer(folded: list[Row]) -> str:
    rows: list[list[object]] = [
        [row["name"], peer, row["peers"][peer]["left"], row["left"], _codes(row)]
        for peer in RIVAL_NAMES
        for row in beaten_by(folded, peer)
    ]
    head = "## Where a peer leaves fewer"
    if not rows:
        return f"{head}\n\nNowhere."
    heads = ["architecture", "peer", "left by it", "left by Foldserve", "our reasons"]
    return f"{head}\n\n{document.table(heads, rows, '  rr')}"


def _by_architecture(folded: list[Row]) -> str:
    peers = [p for p in RIVAL_NAMES if any(p in row.get("peers", {}) for row in folded)]
    heads = [
        "architecture", "input", "batch-norms", "left", "with --through-relu", *peers,
        "merged sums", "reasons", "proof", "error, original", "folded", "algebra",
        "certified", "largest move", "export s", "fold s", "proof s", "certificate s",
        "exporter", "converter",
    ]  # fmt: skip
    rows: list[list[object]] = [
        [
            row["name"],
            " + ".join("x".join(map(str, sizes)) for sizes in row["input"]),
            row["batchnorms"],
            row["left"],
            row["left_through_relu"],
            *(_of_peer(row, peer) for peer in peers),
            row["merges"] or "",
            _codes(row),
            row["verdict"],
            _relative(row["error_original"], row["max_abs"]),
            _relative(row["error_folded"], row["max_abs"]),
            f"{row['exact']:.0e}",
            certificates.word(row),
            f"{row['largest_move']:.2f}" if row.get("certified") else "",
            f"{row['export_seconds']:.0f}",
            f"{row['fold_seconds']:.1f}",
            f"{row['proof_seconds']:.0f}",
            f"{row['certify_seconds']:.1f}" if "certify_seconds" in row else "",
            EXPORTED_BY[row["exporter"]],
            row["engine"][:6],
        ]
        for row in folded
    ]
    sides = "  rrr" + "r" * len(peers) + "r  " + "rrr rrrrr"
    note = (
        "Errors are the largest differences from float64, relative to the largest output, of the "
        "original and of the folded graph in onnxruntime. A peer's count has a ! where its result "
        "is wrong, is - where it failed, and is empty where it was not asked. Seconds are of a "
        "busy machine."
    )
    return f"## By architecture\n\n{note}\n\n{document.table(heads, rows, sides)}"


def _of_peer(row: Row, peer: str) -> object:
    found = row.get("peers", {}).get(peer)
    if found is None:
        return ""
    if "left" not in found:
        return "-"
    return f"{found['left']}" if found["right"] else f"{found['left']} !"


def _codes(row: Row) -> str:
    ordered = sorted(row["reasons"].items(), key=lambda item: -item[1][0])
    return ", ".join(f"{count} {code}" for code, (count, _) in ordered)


def _relative(error: float, largest: float) -> str:
    return f"{error / largest:.0e}" if largest else f"{error:.0e}"


def _not_run(chosen: list[Row], listed: Catalogue) -> str:
    ran = {row["name"] for row in chosen}
    left: dict[str, list[Architecture]] = defaultdict(list)
    for architecture in listed.architectures:
        if architecture.name not in ran:
            left[architecture.family].append(architecture)
    if not left:
        return ""
    lines = [
        f"* {family}: {', '.join(_short(members))}" for family, members in sorted(left.items())
    ]
    total = sum(map(len, left.values()))
    return f"## Not run yet ({total})\n\n" + "\n".join(lines)


def _short(members: list[Architecture]) -> Iterator[str]:
    for member in members:
        yield member.name.partition(":")[2]

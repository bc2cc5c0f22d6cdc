"""The parts of the document that say what is wrong, what stays and why, and what failed."""

from __future__ import annotations

from collections import Counter, defaultdict

from benchmarks import document
from benchmarks.zoo.reasons import explain
from benchmarks.zoo.results import Row

# Below this, two random inputs give nearly the same output, and an error may hide.
INSENSITIVE = 1e-3
# The algebra is exact: what is left is float64's rounding, magnified by the network.
EXACT = 1e-9


def correctness(folded: list[Row]) -> str:
    """The verdicts of both checks, and every architecture that is not proven."""
    verdicts = Counter(row["verdict"] for row in folded)
    lines = [
        "## Is it right?",
        "Two checks. The proof: both graphs run in onnxruntime in float32 and are measured against "
        "float64, error(folded) <= 2*error(original) + 4*u*max|y|, at batch 1, 2 and 5. The "
        "algebra: the same fold with float64 weights, evaluated in float64 throughout; the "
        f"largest difference relative to the largest output, where above {EXACT:g} is wrong.",
        document.table(
            ["proof", "architectures"],
            [[verdict, verdicts[verdict]] for verdict in ("proven", "not proven", "wrong")],
            " r",
        ),
    ]
    if folded:
        worst = max(folded, key=lambda row: row["exact"])
        over = sum(row["exact"] > EXACT for row in folded)
        lines.append(
            f"Algebra: {over} of {len(folded)} above {EXACT:g}; the largest difference is "
            f"{worst['exact']:.1e} ({worst['name']})."
        )
    unproven: list[list[object]] = [
        [row["name"], row["verdict"], row["why"], f"{row['exact']:.0e}"]
        for row in folded
        if row["verdict"] != "proven"
    ]
    if unproven:
        heads = ["architecture", "proof", "what it says", "algebra"]
        lines.append(document.table(heads, unproven, "   r"))
    return "\n\n".join(lines)


def wrong_peers(folded: list[Row]) -> str:
    """Peers' results that are wrong, and the messages of those that gave none."""
    rows: list[list[object]] = []
    for row in folded:
        for peer, found in row.get("peers", {}).items():
            if "left" in found and not found["right"]:
                what = found.get("problem") or (
                    f"error {found['error_ratio']:.3g} times the allowed one"
                )
                rows.append([row["name"], peer, what])
    errors: Counter[tuple[str, str]] = Counter()
    for row in folded:
        for peer, found in row.get("peers", {}).items():
            if "error" in found:
                errors[peer, found["error"][:120]] += 1
    parts = []
    if rows:
        parts += ["## Peers' wrong or unusable results"]
        parts += [document.table(["architecture", "peer", "what"], rows)]
    if errors:
        parts += ["## Peers' failures"]
        told: list[list[object]] = [[p, e, n] for (p, e), n in errors.most_common(20)]
        parts += [document.table(["peer", "message", "architectures"], told, "  r")]
    return "\n\n".join(parts)


def reasons(folded: list[Row]) -> str:
    """The codes of what stays, the commonest first, each with an example."""
    counts: Counter[str] = Counter()
    where: dict[str, list[Row]] = defaultdict(list)
    for row in folded:
        for code, (count, _) in row["reasons"].items():
            counts[code] += count
            where[code].append(row)
    if not counts:
        return "## Why batch-norms stay\n\nNone stays."
    rows: list[list[object]] = []
    for code, count in counts.most_common():
        most = max(where[code], key=lambda row: row["reasons"][code][0])
        sample = f"{most['name']}, {most['reasons'][code][1]}"
        rows.append([f"`{code}`", count, len(where[code]), explain(code), sample])
    heads = ["reason", "batch-norms", "architectures", "what it means", "an example"]
    check = (
        "To check one: `python -m converter inspect` on the exported file names the op in the "
        "way; the file opens in any viewer of ONNX."
    )
    return f"## Why batch-norms stay\n\n{document.table(heads, rows, ' rr')}\n\n{check}"


def weak(folded: list[Row]) -> str:
    """Networks whose output hardly depends on the input."""
    names = [row["name"] for row in folded if row["sensitivity"] < INSENSITIVE]
    if not names:
        return ""
    return (
        f"Rows that prove little, as two random inputs give outputs within {INSENSITIVE:g} of "
        f"each other: {', '.join(names)}."
    )


def failures(chosen: list[Row]) -> str:
    """What was not exported or not folded, by the class of the error."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in chosen:
        if row["status"] != "ok":
            groups[row["status"], row["error"]["class"]].append(row)
    if not groups:
        return ""
    rows: list[list[object]] = [
        [status, kind, len(members), ", ".join(row["name"] for row in members),
         members[0]["error"]["sentence"][:240]]
        for (status, kind), members in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]  # fmt: skip
    heads = ["what", "error", "architectures", "which", "the first one's message"]
    return f"## Not exported, or not folded\n\n{document.table(heads, rows, '  r')}"

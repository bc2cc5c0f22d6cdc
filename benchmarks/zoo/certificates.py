"""The part of the document that says which folds are certified, and why the others are not."""

from __future__ import annotations

from collections import Counter

from benchmarks import document
from benchmarks.zoo.results import Row


def text(folded: list[Row], checker: str) -> str:
    """Counts, and each fold that is not certified with the checker's sentence.

    `checker`: the present one's hash.
    """
    asked = [row for row in folded if "certified" in row]
    head = "## Is it certified?"
    if not asked:
        return f"{head}\n\nNo row says so yet."
    good = [row for row in asked if row["certified"]]
    families = {row["family"] for row in asked}
    whole = families - {row["family"] for row in asked if not row["certified"]}
    former = Counter(row["checker"] for row in asked if row["checker"] != checker)
    lines = [
        head,
        "The exporter's own file and the folded one compute the same for every input, up to "
        "roundings of the weights: checked without running either, see "
        "[what is proved](trust.md).",
        f"**Certified: {len(good)} of {len(asked)} folds**, all of them in {len(whole)} of "
        f"{len(families)} families."
        + (f" Not asked yet: {len(folded) - len(asked)}." if len(asked) < len(folded) else ""),
    ]
    if former:
        words = ", ".join(f"{n} by {name}" for name, n in former.most_common())
        lines.append(f"The checker of the day this was written is {checker}; former ones: {words}.")
    if good:
        most = max(good, key=lambda row: row["largest_move"])
        seconds = sorted(row["certify_seconds"] for row in good)
        weights = sum(row["certified_weights"] for row in good)
        lines.append(
            f"Of {weights:,} weights none was moved by more than {most['largest_move']:.2f} "
            f"roundings ({most['name']}). It took {seconds[len(seconds) // 2]:.1f} s in the middle "
            f"of the folds, {seconds[-1]:.0f} s at most, on a busy machine."
        )
    bad: list[list[object]] = [
        [row["name"], row["certificate"]] for row in asked if not row["certified"]
    ]
    if bad:
        lines.append(document.table(["architecture", "what the checker says"], bad))
    return "\n\n".join(lines)


def word(row: Row) -> str:
    """Whether a fold is certified, as a cell of a table."""
    if "certified" not in row:
        return ""
    return "yes" if row["certified"] else "no"

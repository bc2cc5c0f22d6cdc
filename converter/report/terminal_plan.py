"""A plan on a terminal: what is folded where, what stays by reason, warnings by kind."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from converter.folding import Decision, Hazard, Plan, Route
from converter.report.reasons import Warnings, groups, warnings, weight_warnings

# How many different warnings of one kind are written out.
WRITTEN_OUT = 3
# Up to this many constant scales and shifts that are not batch-norms are named.
NAMED = 8


def show_plan(console: Console, plan: Plan) -> None:
    """Show a line for every batch-norm that is folded; those that stay are grouped by reason."""
    total = len(plan.batchnorms)
    if not total:
        console.print("\nThere is no batch-norm in this model.")
    else:
        show_folded(console, plan.folded)
        show_kept(console, plan.kept)
        style = "bold yellow" if plan.kept else "bold green"
        console.print(Text(f"\n{len(plan.folded)} of {total} batch-norms folded.", style=style))
    show_scale_shifts(console, plan.scale_shifts)
    show_merges(console, plan)
    for kind in warnings(plan.decisions):
        show_warnings(console, kind)


def show_folded(console: Console, decisions: Sequence[Decision]) -> None:
    if not decisions:
        return
    table = Table(title=None, box=None, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("batch-norm", overflow="fold", ratio=2)
    table.add_column("", no_wrap=True)
    table.add_column("where to", overflow="fold", ratio=5)
    for decision in decisions:
        table.add_row(Text(decision.site.name), Text("folded", style="green"), Text(way(decision)))
    console.print()
    console.print(table)


def way(decision: Decision) -> str:
    """Where a batch-norm went: "backward into Conv conv1, through Transpose t"."""
    outcome = decision.outcome
    assert isinstance(outcome, Route)
    text = f"{outcome.direction} into {' and '.join(outcome.into)}"
    passed = [step.op for step in outcome.steps if step.op not in outcome.into]
    if passed:
        text += f", through {', '.join(passed)}"
    return f"{text}; its {decision.stays} stays, as one node" if decision.stays else text


def show_kept(console: Console, decisions: Sequence[Decision]) -> None:
    """Show each reason once, with its count, the names, and the sentences about the first."""
    for group in groups(decisions):
        first, count = group.names[0], len(group.names)
        console.print()
        if count == 1:
            console.print(Text.assemble((f"kept {first}", "yellow"), f": {group.example}"))
            continue
        console.print(Text(f"kept, {group.summary} ({count}):", style="yellow"))
        console.print(Padding(Text(", ".join(group.names)), (0, 0, 0, 2), expand=False))
        console.print(Padding(Text(f"{first}: {group.example}"), (0, 0, 0, 2), expand=False))


def show_scale_shifts(console: Console, decisions: Sequence[Decision]) -> None:
    """Show constant scales and shifts that are not batch-norms, in one line."""
    if not decisions:
        return
    folded = [decision.site.name for decision in decisions if decision.folded]
    kept = [decision.site.name for decision in decisions if not decision.folded]
    parts = [f"{what}: {_some(names)}" for what, names in (("folded", folded), ("kept", kept))]
    told = "; ".join(part for part, names in zip(parts, (folded, kept), strict=True) if names)
    many = "scales and shifts" if len(decisions) > 1 else "scale and shift"
    console.print(Text(f"{len(decisions)} other constant {many}, {told}."))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def show_merges(console: Console, plan: Plan) -> None:
    """Show the sums of parallel branches that became one convolution."""
    for merge in plan.merges:
        names = ", ".join(branch.name for branch in merge.branches)
        console.print(Text(f"  {merge.name} also does the work of {names}"))


def show_hazards(console: Console, hazards: Sequence[Hazard]) -> None:
    """Show what is suspicious about the folded weights."""
    for kind in weight_warnings(hazards):
        show_warnings(console, kind)


def show_advice(console: Console, found: Sequence[Hazard]) -> None:
    """Show what the next training could leave out."""
    for kind in weight_warnings(found):
        show_warnings(console, kind, label="advice", style="")


def show_warnings(
    console: Console, kind: Warnings, *, label: str = "warning", style: str = "yellow"
) -> None:
    """Show equal sentences once; of different ones of the same kind a few, and the other names."""
    for text, names in kind.sentences[:WRITTEN_OUT]:
        who = names[0] if len(names) == 1 else f"{len(names)} batch-norms ({_some(names)})"
        console.print(Text(f"{label}: {who}: {text}", style=style))
    rest = [name for _, names in kind.sentences[WRITTEN_OUT:] for name in names]
    if rest:
        console.print(
            Text(f"{label}: {kind.code} also in {len(rest)} more: {_some(rest)}", style=style)
        )

"""The report of a fold for people: tables on a terminal, the same text in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

from converter.folding import Decision, Plan, Refusal
from converter.pipeline import FoldResult, Size
from converter.proof import Proof
from converter.sources.loaded import Loaded


def terminal() -> Console:
    """Where results go. A log is as wide as it needs to be; a terminal says how wide it is."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=120)


def show_source(console: Console, loaded: Loaded) -> None:
    console.print(Text.assemble((str(loaded.path), "bold"), f" is {loaded.kind}."))
    for item in loaded.inputs:
        shape = ", ".join(str(size) for size in item.shape)
        console.print(Text(f"  input {item.name}: {item.dtype} ({shape})"))
    for note in loaded.notes:
        console.print(Text(f"  note: {note}"))
    for warning in loaded.warnings:
        console.print(Text(f"  warning: {warning}", style="yellow"))


def show_plan(console: Console, plan: Plan) -> None:
    """A line for every batch-norm: where it goes and which way, or why it stays."""
    if not plan.batchnorms:
        console.print("\nThere is no batch-norm in this model.")
        show_merges(console, plan)
        return
    table = Table(title=None, box=None, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("batch-norm", overflow="fold", ratio=2)
    table.add_column("", no_wrap=True)
    table.add_column("where to, or why not", overflow="fold", ratio=5)
    for decision in plan.batchnorms:
        table.add_row(*_row(decision))
    console.print()
    console.print(table)
    total = len(plan.batchnorms)
    style = "bold green" if not plan.kept else "bold yellow"
    console.print(Text(f"\n{len(plan.folded)} of {total} batch-norms folded.", style=style))
    show_merges(console, plan)


def show_merges(console: Console, plan: Plan) -> None:
    """The sums of parallel branches that became one convolution."""
    for merge in plan.merges:
        names = ", ".join(branch.name for branch in merge.branches)
        console.print(Text(f"  {merge.name} also does the work of {names}"))


def _row(decision: Decision) -> tuple[Text, Text, Text]:
    name = Text(decision.site.name)
    outcome = decision.outcome
    if isinstance(outcome, Refusal):
        return name, Text("kept", style="yellow"), _with_warnings(decision, str(outcome))
    way = f"{outcome.direction} into {' and '.join(outcome.into)}"
    if len(outcome.path) > len(outcome.into):
        passed = [step.split(":")[0] for step in outcome.path[: -len(outcome.into)]]
        way += f", through {', '.join(passed)}"
    return name, Text("folded", style="green"), _with_warnings(decision, way)


def _with_warnings(decision: Decision, text: str) -> Text:
    result = Text(text)
    for warning in decision.site.warnings:
        result.append(f"\nwarning: {warning}", style="yellow")
    return result


def show_proof(
    console: Console, proof: Proof, names: tuple[str, str] = ("original", "folded")
) -> None:
    """Each output on each set of inputs, against float64."""
    if proof.measurements:
        table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
        for heading in ("output", "inputs"):
            table.add_column(heading, overflow="fold")
        for heading in ("max |y|", f"{names[0]} error", f"{names[1]} error", "allowed"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("")
        for m in proof.measurements:
            verdict = (
                Text("equal", style="green") if m.passed else Text("DIFFERS", style="bold red")
            )
            table.add_row(
                m.output,
                m.inputs,
                f"{m.magnitude:.3g}",
                f"{m.reference_error:.1e}",
                f"{m.candidate_error:.1e}",
                f"{m.allowed:.1e}",
                verdict,
            )
        console.print(Text("\nProof: largest errors against float64", style="bold"))
        console.print(table)
        for problem in dict.fromkeys(m.problem for m in proof.measurements if m.problem):
            console.print(Text(f"  {problem}", style="red"))
    show_framework(console, proof)
    for note in proof.notes:
        console.print(Text(f"  note: {note}"))
    show_invariance(console, proof)
    if proof.failure:
        console.print(Text(f"\nNot proven: {proof.failure}", style="bold red"))
    elif proof.passed:
        console.print(Text(f"Proven: {names[1]} equals {names[0]}.", style="bold green"))
    else:
        console.print(Text(f"Not proven: {names[1]} differs.", style="bold red"))


def show_framework(console: Console, proof: Proof) -> None:
    """Whether the exported graph computes what the framework itself does."""
    if not proof.framework:
        return
    worst = max(proof.framework, key=lambda m: m.candidate_error - m.allowed)
    if all(m.passed for m in proof.framework):
        console.print(
            f"Export: the original framework's own outputs agree "
            f"(error {worst.candidate_error:.1e}, allowed {worst.allowed:.1e})."
        )
    else:
        console.print(
            Text(
                f"Export: output {worst.output!r} of the exported graph is not what the original "
                f"framework computes (error {worst.candidate_error:.1e}, allowed "
                f"{worst.allowed:.1e}). {worst.problem}",
                style="bold red",
            )
        )


def show_invariance(console: Console, proof: Proof) -> None:
    invariance = proof.invariance
    if invariance is None:
        return
    if invariance.holds:
        console.print(
            f"Batch invariance: a sample alone equals itself in a batch of 5 "
            f"(difference {invariance.difference:.1e})."
        )
    else:
        console.print(Text(f"Batch invariance does not hold: {invariance.problem}", style="yellow"))


def show_sizes(console: Console, before: Size, after: Size) -> None:
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, was, now in (
        ("batch-norms", before.batchnorms, after.batchnorms),
        ("nodes", before.nodes, after.nodes),
        ("parameters", before.parameters, after.parameters),
        ("file size, bytes", before.bytes, after.bytes),
    ):
        table.add_row(name, f"{was:,}", f"{now:,}", f"{now - was:+,}")
    console.print()
    console.print(table)


def show_fold(console: Console, result: FoldResult) -> None:
    show_plan(console, result.plan)
    for hazard in result.hazards:
        console.print(Text(f"warning: {hazard}", style="yellow"))
    show_proof(console, result.proof)
    show_sizes(console, result.before, result.after)
    console.print(f"Folding took {result.seconds:.2f} s, without loading and proof.")


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """Say what is being done, apart from the results: a spinner on a terminal, lines in a log."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with console.status(what) as status:
            yield lambda text: status.update(text)
    else:
        console.print(Text(f"... {what}"))
        yield lambda text: console.print(Text(f"... {text}"))

"""The report of a fold for people: tables on a terminal, the same text in a log."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from converter.folding import Plan
from converter.pipeline import FoldResult, Size
from converter.proof import Proof
from converter.proof.conclusion import conclusion
from converter.report.advice import advise
from converter.report.certificate import show_certificate
from converter.report.terminal_plan import show_advice, show_hazards, show_plan
from converter.sources.loaded import Loaded

VERDICTS = {
    "equal": Text("equal", style="green"),
    "differs": Text("DIFFERS", style="bold red"),
    "unmeasured": Text("cannot tell", style="yellow"),
}
# Beyond what is allowed, but certified.
_EXCUSED = Text("rounding", style="yellow")


def show_source(console: Console, loaded: Loaded) -> None:
    console.print(Text.assemble((str(loaded.path), "bold"), f" is {loaded.kind}."))
    for item in loaded.inputs:
        shape = ", ".join(str(size) for size in item.shape)
        console.print(Text(f"  input {item.name}: {item.dtype} ({shape})"))
    for note in loaded.notes:
        console.print(Text(f"  note: {note}"))
    for warning in loaded.warnings:
        console.print(Text(f"  warning: {warning}", style="yellow"))


def show_proof(
    console: Console,
    proof: Proof,
    names: tuple[str, str] = ("original", "folded"),
    plan: Plan | None = None,
) -> None:
    """Show the errors of each output on each set of inputs, against float64, and the certificate.

    Args:
        names: what the two graphs are called.
        plan: of the fold, if it was one.
    """
    if proof.unchanged:
        console.print(Text(f"\n{proof.unchanged[:1].upper()}{proof.unchanged[1:]}."))
    elif proof.measurements:
        table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
        for heading in ("output", "inputs"):
            table.add_column(heading, overflow="fold")
        for heading in ("max |y|", f"{names[0]} error", f"{names[1]} error", "allowed"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("")
        excused = set(proof.excused)
        for m in proof.measurements:
            table.add_row(
                m.output,
                m.inputs,
                f"{m.magnitude:.3g}",
                f"{m.reference_error:.1e}",
                f"{m.candidate_error:.1e}",
                f"{m.allowed:.1e}",
                _EXCUSED if m in excused else VERDICTS[m.verdict],
            )
        console.print(Text("\nProof: largest errors against float64", style="bold"))
        console.print(table)
        for problem in dict.fromkeys(m.problem for m in proof.measurements if m.problem):
            console.print(Text(f"  {problem}", style="red" if not proof.passed else "yellow"))
    show_parts(console, proof)
    show_framework(console, proof)
    for note in proof.notes:
        console.print(Text(f"  note: {note}"))
    show_invariance(console, proof)
    show_ran(console, proof)
    style = "bold red"
    if proof.passed:
        style = "bold yellow" if proof.uncovered or proof.unmeasured else "bold green"
    if proof.certificate is not None:
        show_certificate(console, proof.certificate, measured=True, plan=plan)
    before = "\n" if proof.failure else ""
    console.print(Text(before + conclusion(proof, names), style=style))


def show_ran(console: Console, proof: Proof) -> None:
    """Show how many of the branches and loops ran, and how."""
    if not proof.ran:
        return
    forced = sum(ran.forced and not ran.turns for ran in proof.ran)
    alone = sum(ran.alone for ran in proof.ran)
    dead = sum(ran.dead for ran in proof.ran)
    told = [f"{sum(ran.turns > 0 for ran in proof.ran)} ran"]
    told += [f"{forced} ran with the condition set"] if forced else []
    told += [f"{alone} ran alone"] if alone else []
    told += [f"{dead} that no input can choose"] if dead else []
    told += [f"{len(proof.unreached)} never ran"] if proof.unreached else []
    if proof.unreached and proof.certificate:
        told[-1] += ", which the certificate covers"
    console.print(f"Branches and bodies of loops: {len(proof.ran)}, {', '.join(told)}.")


def show_parts(console: Console, proof: Proof) -> None:
    """Show parts of outputs with numbers of several sizes: those that differ, or how many agree."""
    excused = set(proof.excused)
    beyond = [m for m in proof.parts if m.verdict == "differs"]
    for m in (m for m in beyond if m not in excused):  # the notes tell the others
        console.print(
            Text(
                f"  {m.output}, {m.inputs}, {m.part}: max |y| {m.magnitude:.3g}, error "
                f"{m.candidate_error:.1e}, allowed {m.allowed:.1e} at numbers of this size",
                style="red",
            )
        )
    if proof.parts and not beyond:
        console.print(
            f"Numbers of other sizes in one output, each by its own scale: "
            f"{len(proof.parts)} parts, all equal."
        )


def show_framework(console: Console, proof: Proof) -> None:
    """Show whether the exported graph computes what the framework itself does."""
    if not proof.framework:
        return
    worst = max(proof.framework, key=lambda m: (not m.passed, m.candidate_error - m.allowed))
    if worst.verdict == "unmeasured":
        console.print(
            Text(f"Export: could not be compared on its example: {worst.problem}", style="yellow")
        )
    elif all(m.passed for m in proof.framework):
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
            f"Batch invariance: a sample alone equals itself in a batch of {invariance.batch} "
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
        ("multiply-adds of one run", before.multiply_adds, after.multiply_adds),
        ("parameters", before.parameters, after.parameters),
        ("file size, bytes", before.bytes, after.bytes),
    ):
        if was is None or now is None:
            table.add_row(name, *("?" if n is None else f"{n:,}" for n in (was, now)), "")
        else:
            table.add_row(name, f"{was:,}", f"{now:,}", f"{now - was:+,}")
    console.print()
    console.print(table)
    unknown = before.uncounted or after.uncounted
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        console.print(
            Text(f"The multiply-adds are not known: no shape at {', '.join(unknown[:3])}{more}.")
        )


def show_fold(console: Console, result: FoldResult) -> None:
    show_plan(console, result.plan)
    show_hazards(console, result.hazards)
    show_advice(console, advise(result.original))
    show_proof(console, result.proof, plan=result.plan)
    show_sizes(console, result.before, result.after)
    console.print(f"Folding took {result.seconds:.2f} s, without loading and proof.")

"""`inspect`: what `fold` would do, without doing it."""

from __future__ import annotations

from converter.commands import loading, output
from converter.commands.options.inspect import Inspect
from converter.folding import FoldOptions
from converter.pipeline import preview
from converter.report.advice import advise
from converter.report.console import terminal, working
from converter.report.explain import Explainer, select
from converter.report.facts import describe_preview
from converter.report.provenance import describe_provenance
from converter.report.terminal import show_sizes, show_source
from converter.report.terminal_explain import show_explanation
from converter.report.terminal_plan import show_advice, show_hazards, show_plan


def run(asked: Inspect) -> int:
    """0, whatever the plan.

    Raises:
        UserError: the input is at fault (exit code 2).
    """
    console = terminal()
    output.check((asked.reports.json, asked.reports.html), asked.file)
    with working(f"loading {asked.file}") as progress:
        loaded = loading.load_from(asked.file, asked.reading)
        progress("planning")
        found = preview(loaded, FoldOptions(**vars(asked.choice)))
    show_source(console, loaded)
    report = describe_preview(found) | {"provenance": describe_provenance(asked.file)}
    if asked.explain:
        explainer = Explainer(found.original, found.plan)
        told = [explainer.explain(decision) for decision in select(found.plan, asked.explain)]
        report["explanations"] = told
        for explanation in told:
            show_explanation(console, explanation)
    else:
        show_plan(console, found.plan)
        show_hazards(console, found.hazards)
        show_advice(console, advise(found.original))
        show_sizes(console, found.before, found.after)
    output.write_json(asked.reports.json, report)
    output.write_html(asked.reports.html, report, found.original, found.plan)
    return 0

"""`inspect`: what `fold` would do, without doing it."""

from __future__ import annotations

import argparse

from converter.commands import loading, output
from converter.folding import FoldOptions
from converter.pipeline import preview
from converter.report.advice import advise
from converter.report.explain import Explainer, select
from converter.report.facts import describe_preview
from converter.report.provenance import describe_provenance
from converter.report.terminal import show_sizes, show_source, terminal, working
from converter.report.terminal_explain import show_explanation
from converter.report.terminal_plan import show_advice, show_hazards, show_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    loading.add_arguments(parser)
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="as for fold"
    )
    parser.add_argument(
        "--skip", action="append", default=[], metavar="PATTERN", help="as for fold"
    )
    parser.add_argument("--through-relu", action="store_true", help="as for fold")
    parser.add_argument(
        "--explain",
        action="append",
        default=[],
        metavar="NAME",
        help="the way of these batch-norms step by step (layer1.*)",
    )
    output.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0, whatever the plan.

    Raises:
        UserError: the input is at fault (exit code 2).
    """
    console = terminal()
    output.check((args.json, args.html), args.file)
    with working(f"loading {args.file}") as progress:
        loaded = loading.load_from(args)
        progress("planning")
        found = preview(loaded, FoldOptions(args.only, args.skip, args.through_relu))
    show_source(console, loaded)
    report = describe_preview(found) | {
        "provenance": describe_provenance(args.file, args.arguments)
    }
    if args.explain:
        explainer = Explainer(found.original, found.plan)
        told = [explainer.explain(decision) for decision in select(found.plan, args.explain)]
        report["explanations"] = told
        for explanation in told:
            show_explanation(console, explanation)
    else:
        show_plan(console, found.plan)
        show_hazards(console, found.hazards)
        show_advice(console, advise(found.original))
        show_sizes(console, found.before, found.after)
    output.write_json(args.json, report)
    output.write_html(args.html, report, found.original, found.plan)
    return 0

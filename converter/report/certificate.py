"""A certificate in words, and as plain data: what `--certify` adds to a report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from converter.certificate import Certified, NotCertified
from converter.certificate.claim import claim

if TYPE_CHECKING:  # where nothing is measured, nothing of folding is imported
    from converter.folding import Plan

Found = Certified | NotCertified


def sentence(found: Found, *, measured: bool, plan: Plan | None = None) -> str:
    """What was found, in a sentence; of what is not certified, which value of B, and why.

    Args:
        measured: whether the graphs were also run, so that there is a verdict without it.
        plan: of the fold, if it was one. A certificate is for the whole graph: it holds for the
            batch-norms that were folded and for those that stay.
    """
    if isinstance(found, Certified):
        kept = len(plan.kept) if plan is not None else 0
        return f"{claim(found, _count(found, plan), kept)}."
    reason = f"Not certified: {found.reason.rstrip('.')}"
    if measured:
        return f"{reason}."
    return f"{reason}. They may still be equal: without --certify=only it is measured."


def show_certificate(
    console: Console, found: Found, *, measured: bool, plan: Plan | None = None
) -> None:
    """One line, however long, also in a log; of a certificate with the time that it took."""
    told, style = sentence(found, measured=measured, plan=plan), "bold yellow"
    if found:
        told, style = f"{told[:-1]}; {found.seconds:.1f} s.", "bold green"
    console.print(Text(told, style=style), soft_wrap=True)


def describe_certificate(
    found: Found, *, measured: bool, plan: Plan | None = None
) -> dict[str, Any]:
    """`figures` of a certificate; or `where` the first value is that was not found in A."""
    figures = where = None
    if isinstance(found, Certified):
        figures = {
            "batchnorms": _count(found, plan),
            "weights": found.weights,
            "largest_move": found.largest_move,
            "roundings": found.roundings,
            "sizes": [dict(sizes) for sizes in found.sizes],
        }
    elif found.value or found.op:
        where = {
            "value": found.value,
            "op": found.op,
            "channel": found.channel,
            "expected": _finite(found.expected),
            "found": _finite(found.found),
        }
    return {
        "certified": bool(found),
        "sentence": sentence(found, measured=measured, plan=plan),
        "figures": figures,
        "where": where,
        "seconds": found.seconds,
    }


def _count(found: Certified, plan: Plan | None) -> int:
    return found.batchnorms if plan is None else len(plan.batchnorms)


def _finite(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else number

"""The path of one batch-norm on a terminal, from the data of `explain.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text


def show_explanation(console: Console, told: Mapping[str, Any]) -> None:
    """Show its numbers, each attempt step by step, and what absorbed it."""
    verdict = Text("folded", style="green") if told["folded"] else Text("kept", style="yellow")
    console.print()
    console.print(Text.assemble((told["name"], "bold"), " is ", verdict))
    _line(console, numbers(told), 2)
    for warning in told["warnings"]:
        _line(console, f"warning: {warning}", 2, "yellow")
    for attempt in told["attempts"]:
        _show_attempt(console, attempt)
    if told["remainder"]:
        _line(console, f"what stays, as one node: {describe_map(told['remainder'])}", 2)
        _line(console, f"because: {told['because']}" if told["because"] else "", 2)
    for taker in told["absorbed"]:
        _line(console, f"{taker['op']} took it up", 2)
        for constant in taker["constants"]:
            _line(console, change(constant), 4)
        if taker["merged_into"]:
            _line(console, f"and became part of {taker['merged_into']}", 4)


def numbers(told: Mapping[str, Any]) -> str:
    """The statistics in one line."""
    found = told["numbers"]
    if found is None:
        return "no fixed scale and shift"
    signs = ", ".join(
        f"{found[sign]} {sign}" for sign in ("positive", "negative", "zero") if found[sign]
    )
    return f"{describe_map(found)}; gamma: {signs or 'none'}"


def describe_map(found: Mapping[str, Any]) -> str:
    """ "64 channels on axis 1, scale 0.1 to 2, shift -1 to 1"."""
    parts = [f"{found['channels']} channel{'s' * (found['channels'] != 1)} on axis {found['axis']}"]
    for what in ("scale", "shift"):
        if found[what]:
            low, high = found[what]
            parts.append(f"{what} {low:.4g}" + (f" to {high:.4g}" if high != low else ""))
        else:
            parts.append(f"no {what}")
    return ", ".join(parts)


def change(constant: Mapping[str, Any]) -> str:
    """ "conv1.weight 64x3x7x7 changed"."""
    before, after = (
        None if sizes is None else "x".join(map(str, sizes)) or "one number"
        for sizes in (constant["before"], constant["after"])
    )
    shape = after if before in {None, after} else f"{before} to {after}"
    return f"{constant['name']} {shape} {constant['change']}"


def stop(attempt: Mapping[str, Any]) -> str:
    """The reason, and the op in the way if the reason does not name it itself."""
    op, reason = attempt["stopped_at"], str(attempt["reason"])
    return reason if not op or op in reason else f"at {op}: {reason}"


def _show_attempt(console: Console, attempt: Mapping[str, Any]) -> None:
    console.print(Text(f"  {attempt['direction'] or 'not tried'}", style="bold"))
    for index, step in enumerate(attempt["steps"], 1):
        way = f" ({step['way']})" if attempt["direction"] == "both ways" else ""
        _line(console, f"{index}. {step['op']}{way}: {step['formula']}", 4)
        if step["met"] is not None:
            _line(console, f"   with {describe_map(step['met'])}", 4)
        for left in step["left"]:
            _line(console, f"   then {describe_map(left)}", 4)
    if not attempt["succeeded"]:
        _line(console, f"stopped: {stop(attempt)}", 4, "yellow")
        if attempt["hint"]:
            _line(console, f"hint: {attempt['hint']}", 4)


def _line(console: Console, text: str, indent: int, style: str = "") -> None:
    console.print(Padding(Text(text, style=style), (0, 0, 0, indent), expand=False))

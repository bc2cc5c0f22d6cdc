"""Write docs/reference/: the HTTP interface and the command line, as the programs tell them.

    python docs/reference.py

A test compares the files with what this makes, so they cannot fall behind.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from converter import cli
from converter.commands import COMMANDS
from converter.commands.overview import overview
from converter.system.program import MODULE
from service import device, errors
from service.app import create_app
from service.context import Context
from service.models import model
from service.models.registry import Registry
from service.protocols import grpc_messages
from service.settings_read import parse
from service.signing import command as verify_signature
from service.signing import sign_command

HERE = Path(__file__).parent / "reference"
COMPLETION = (
    "python -c \"from converter.cli import parser; print(parser('foldserve').generate_completion("
    "prog_name='foldserve', shell='bash'))\" > ~/.local/share/bash-completion/completions/foldserve"
)


def document() -> dict[str, Any]:
    """The OpenAPI document of a server without models."""
    with tempfile.TemporaryDirectory() as empty:
        load = partial(model.load, choice=device.choose("cpu"), threads=1, capacity_samples=1)
        registry = Registry(Path(empty), load)
        app = create_app(Context(registry, parse([], {})))
        while not hasattr(app, "openapi"):  # the shells around FastAPI
            app = app._app
        return app.openapi()  # type: ignore[no-any-return]


def kinds(content: dict[str, Any]) -> str:
    return ", ".join(f"`{kind}`" for kind in content.get("content", {})) or "-"


def http() -> str:
    """Every route, with what it takes and gives; every error with its status and its code."""
    lines = [
        "# The HTTP interface",
        "",
        "Made by `python docs/reference.py` from `/openapi.json` and the errors of the service.",
        "A running server's `/openapi.json` also knows the inputs of its models.",
        "",
    ]
    found = document()["paths"]
    groups: dict[str, list[str]] = {}
    for path, operations in found.items():
        for method, operation in operations.items():
            tag = operation.get("tags", ["Foldserve"])[0]
            answer = next(v for k, v in operation["responses"].items() if k.startswith("2"))
            groups.setdefault(tag, []).append(
                f"| `{method.upper()}` | `{path}` | {operation['summary']} | "
                f"{kinds(operation.get('requestBody', {}))} | {kinds(answer)} |"
            )
    for tag, rows in sorted(groups.items(), key=lambda item: item[0] != "Foldserve"):
        lines += [
            f"## {tag}",
            "",
            "| | route | | takes | gives |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    lines += ["## Open Inference Protocol, gRPC", ""]
    lines += [f"* `inference.GRPCInferenceService/{name}`" for name in rpcs()]
    lines += [
        "",
        "## Errors",
        "",
        'The body is `{"code": ..., "message": ..., "hint": ...}`; the V2 protocol and TensorFlow',
        'Serving\'s have `{"error": ...}` with the same sentences.',
        "",
        "| status | code | when | hint |",
        "|---:|---|---|---|",
    ]
    for kind in sorted(ladder(errors.ServiceError), key=lambda k: (k.status, k.code)):
        when = (kind.__doc__ or "").partition("\n\n")[0].replace("\n", " ").strip()
        when = " ".join(when.split()).replace("|", "\\|")
        lines.append(f"| {kind.status} | `{kind.code}` | {when} | {kind.default_hint} |")
    return "\n".join(lines) + "\n"


def rpcs() -> list[str]:
    """The methods that the gRPC server answers."""
    names = grpc_messages.classes()
    return sorted(n.removesuffix("Request") for n in names if n.endswith("Request"))


def ladder(kind: type[errors.ServiceError]) -> Iterator[type[errors.ServiceError]]:
    """The classes that are raised: those without subclasses."""
    below = kind.__subclasses__()
    if not below:
        yield kind
    for child in below:
        yield from ladder(child)


def command_line() -> str:
    """The help of `converter` and of each of its commands."""
    lines = [
        "# The command line",
        "",
        "Made by `python docs/reference.py`. The settings of `python -m service` are in",
        "[Operating the service](../service.md#settings).",
        "",
        "For completion of commands and options by Tab, in bash (zsh and fish likewise):",
        "",
        "```sh",
        COMPLETION,
        "```",
        "",
    ]
    helps = {MODULE: overview(MODULE, 96)}
    for name in COMMANDS:
        console = Console(file=io.StringIO(), width=96)
        cli.parser(width=96).help_print([name], console=console)
        helps[f"{MODULE} {name}"] = console.file.getvalue()
    for command in (sign_command, verify_signature):
        helps[command.PROGRAM] = command.parser().format_help()
    for title, text in helps.items():
        shown = [line.rstrip() for line in text.splitlines()]
        lines += [f"## {title}", "", "```text", *shown, "```", ""]
    return "\n".join(lines)


PAGES = {"http.md": http, "cli.md": command_line}

if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (HERE / name).write_text(make())

"""How help looks: a name, and beside it or below it what it means; on narrow terminals too."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

INDENT = 26
NARROW = 64  # columns: below it, meanings stand under the names


class Layout:
    """The help of cyclopts without boxes: a log or a page can take it as it is."""

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """How the command is called."""
        from rich.text import Text

        del options
        if usage:
            console.print(Text.assemble(("Usage: ", "bold"), str(usage).strip()))

    def render_description(
        self, console: Console, options: ConsoleOptions, description: Any
    ) -> None:
        """What it does."""
        from rich.text import Text

        del options
        console.print(Text(f"\n{_plain(description)}"))

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """One group of commands or options."""
        from rich.text import Text

        del options
        if not panel.entries:
            return
        console.print(Text(f"\n{panel.title}", style="bold"))
        if about := _plain(panel.description):
            console.print(Text(about))
        indent = INDENT if console.width >= NARROW else 6
        for entry in panel.entries:
            name = Text.assemble(("  " + _name(entry), "cyan"))
            meaning = list(_meaning(entry).wrap(console, console.width - indent))
            for line in meaning:
                line.rstrip()
            if meaning and len(name) + 2 <= indent:
                name.append(" " * (indent - len(name)))
                name.append_text(meaning.pop(0))
            console.print(name, soft_wrap=True)
            for line in meaning:
                console.print(Text(" " * indent).append_text(line), soft_wrap=True)


def example(command: str, meaning: str, width: int) -> str:
    """A command line that can be copied as it stands, and below it what it does."""
    lines = textwrap.wrap(
        command,
        max(40, width) - 2,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    told = textwrap.wrap(meaning, max(40, width) - 6)
    return "\n".join([" \\\n".join(lines), *(f"      {line}" for line in told)])


def _plain(found: Any) -> str:
    """The words of what cyclopts gives for a text."""
    return str(getattr(found, "primary_renderable", None) or found or "").strip()


def _name(entry: HelpEntry) -> str:
    if entry.positional_label:
        return entry.positional_label
    names = [*entry.positive_shorts, *entry.positive_names]
    metavar = f" {entry.metavar}" if entry.metavar and entry.metavar != "CHOICE" else ""
    return ", ".join([*names, *entry.negative_names]) + metavar


def _meaning(entry: HelpEntry) -> Text:
    """The help, and in brackets the choices and the default."""
    from rich.text import Text

    meaning = Text(" ".join(_plain(entry.description).split()).removesuffix("."))
    extra = [f"one of {', '.join(entry.choices)}"] if entry.choices else []
    extra += [f"default: {entry.default}"] if entry.default is not None else []
    if entry.required and not entry.positional_label:
        extra.append("required")
    if extra:
        meaning.append(f"{' ' if meaning else ''}({'; '.join(extra)})", style="dim")
    return meaning

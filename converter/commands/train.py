"""`python -m converter train`: the options, and what is printed."""

from __future__ import annotations

import json

from converter.commands.options.train import Train
from converter.report.console import Lasting
from converter.report.progress import Live
from converter.training import console, files
from converter.training.options import TrainOptions
from converter.training.trainer import train, unfinished

INTERRUPTED = 130  # what a shell gives for a process that Ctrl-C ended


def run(asked: Train) -> int:
    """Train as it was asked for; the progress goes to stderr, the final table to stdout.

    Returns:
        The exit status: 0, or 130 after Ctrl-C.

    Raises:
        UserError: see `trainer.train`; no checkpoint was written then.
    """
    options = asked.options()
    if asked.json is not None:
        files.require_writable(asked.json)
    stderr = Lasting(stderr=True)
    try:
        with Live(stderr) as live:
            result = train(options, console.Told(live))
    except KeyboardInterrupt:
        stderr.print(_interrupted(options), markup=False, highlight=False, soft_wrap=True)
        return INTERRUPTED
    if asked.json is not None:
        text = json.dumps(result.to_json(), indent=2) + "\n"
        files.write(asked.json, text.encode())
    Lasting().print(console.table(result))
    return 0


def _interrupted(options: TrainOptions) -> str:
    kept = unfinished(options.output)
    if not kept.is_file():
        return "interrupted; nothing was written"
    return f"interrupted; with --resume the same command goes on from {kept}"

"""`foldserve COMMAND`: the one entry point of what is installed, which hands over to two packages.

    foldserve serve ...     python -m service ...
    foldserve fold ...      python -m converter fold ..., and so on with each command of its table
    foldserve sign ..., verify-signature ...      service/signing/

Exit codes are those of the two; 2 also stands for no command and for a wrong one. Nothing is
imported but what the command needs: help is there at once, and the service runs without torch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from foldserve.packages import ours

PROGRAM = "foldserve"
SERVE = "serve"

# Commands of the service besides: the module of each, and what it does.
_OF_SIGNATURES = {
    "sign": ("service.signing.sign_command", "sign a version that was published before"),
    "verify-signature": (
        "service.signing.command",
        "tell whether a published version is signed, and by whom",
    ),
}
_SUMMARY_OF_SERVE = "answer predictions from the models of a folder, over HTTP"

_FIRST_STEPS = """\
Foldserve folds the batch-norms of a trained network into the weights around
them, proves that nothing changed, and serves the ONNX model. Begin with these:

  foldserve inspect model.pt
      what would be folded and what not, and why
  foldserve fold model.pt --publish models/mine
      fold, prove, and write version 1 of the model "mine"
  foldserve serve --models models
      answer predictions on http://127.0.0.1:8000

foldserve --help lists all commands, foldserve fold --help the options of one.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code. `argv` without the program's name, default sys.argv."""
    words = list(sys.argv[1:] if argv is None else argv)
    match words:
        case []:
            sys.stdout.write(_FIRST_STEPS)
            return 2
        case ["-h" | "--help"] | ["help"]:
            sys.stdout.write(_help())
            return 0
        case ["--version" | "-V"]:
            ours("service")
            version = import_module("service.version").program_version()
            sys.stdout.write(f"Foldserve {version}\n")
            return 0
        case ["help", word, *_]:
            return main([word, "--help"])
        case ["serve", *flags]:
            ours("service")
            return int(import_module("service.__main__").main(flags, prog=f"{PROGRAM} {SERVE}"))
        case [word, *flags] if word in _OF_SIGNATURES:
            ours("service")
            return int(import_module(_OF_SIGNATURES[word][0]).main(flags))
        case [word, *_] if word in _of_the_converter():
            return _convert(words)
        case _:
            return _complain(*_unknown(words[0]))


def _convert(words: Sequence[str]) -> int:
    ours("service")  # whose manifest the converter writes
    try:
        return int(import_module("converter.cli").main(words, prog=PROGRAM))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not missing or find_spec(missing):
            raise  # there, but without what is asked of it: not for this hint to mend
        return _complain(
            f"`{PROGRAM} {words[0]}` needs {missing}, which is not installed: "
            "the service does without it, the converter does not.",
            "pip install 'foldserve[converter]'",
        )


def _of_the_converter() -> Mapping[str, str]:
    """Each command of the converter with what it does; none where it is not installed."""
    if not ours("converter"):
        return {}
    table = import_module("converter.commands").COMMANDS
    return {name: row[1] for name, row in table.items()}


def _help() -> str:
    commands = _of_the_converter()
    shown = {name: what for name, what in commands.items() if not what.startswith("moved")}
    signatures = {name: what for name, (_, what) in _OF_SIGNATURES.items()}
    rows = {**shown, SERVE: _SUMMARY_OF_SERVE, **signatures}
    width = max(map(len, rows))
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND ...",
            "",
            "Fold batch normalization into the weights around it, prove it, serve the model.",
            "",
            "commands:",
            *(f"  {name:{width}}  {summary}" for name, summary in rows.items()),
            "",
            "options:",
            f"  {'--version':{width}}  show the version",
            f"  {'--help':{width}}  show this; {PROGRAM} COMMAND --help shows a command's options",
            "",
        ]
    )


def _unknown(word: str) -> tuple[str, str]:
    """What is wrong with the first word, and a hint."""
    import difflib

    if word.startswith("-"):
        hint = f"options follow a command: {PROGRAM} {SERVE} {word}"
        return f"{PROGRAM} itself has no option {word}.", hint
    known = [*_of_the_converter(), SERVE, *_OF_SIGNATURES]
    if "fold" in known and Path(word).is_file():
        return f"{word} is a file, no command.", f"{PROGRAM} fold {word}"
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {PROGRAM} {near[0]}?" if near else f"{PROGRAM} --help lists all commands"
    return f"there is no command {word!r}.", hint


def _complain(message: str, hint: str) -> int:
    sys.stderr.write(f"error: {message}\nhint:  {hint}\n")
    return 2

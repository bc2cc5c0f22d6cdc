"""The errors that a user of the converter can cause, and those that the proof can raise."""

from __future__ import annotations


class UserError(Exception):
    """The input is at fault. The command line prints it without a traceback and exits with 2.

    `message` says what is wrong with which file or option; `hint` says what to do about it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


def first_line(error: BaseException, limit: int = 240) -> str:
    """The first line of an error that says something: torch and onnxruntime write pages.

    TorchScript writes the trace first and what is wrong last.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    text = lines[-1 if "TorchScript interpreter" in lines[0] else 0].removeprefix("RuntimeError: ")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def gist(error: BaseException, limit: int = 240) -> str:
    """The same behind the name of the error's class: "ValueError: too many values"."""
    text = first_line(error, limit)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

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

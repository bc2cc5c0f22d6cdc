"""`compare`: it became `python -m experiments`, and this says so."""

from __future__ import annotations

import shlex

from converter.commands.options.compare import Compare
from converter.errors import UserError


def run(asked: Compare) -> int:
    """Raises UserError, which names the command to type."""
    command = shlex.join(["python", "-m", "experiments", *asked.rest])
    raise UserError(
        "compare is not a command of the converter any more: comparing how networks train is not "
        "part of folding one.",
        f"it is in the source tree of Foldserve, which is not installed by pip; there: {command}",
    )

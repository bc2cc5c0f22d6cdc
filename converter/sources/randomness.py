"""Finds whether a module draws random numbers when it runs, which call does, and where.

torch tags each of its operators that draws (`nondeterministic_seeded`), and passes every operator
through a dispatch mode before its kernel: only draws of NumPy or Python itself are missed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from converter.errors import UserError
from converter.sources.outputs import leaves
from converter.sources.trial import agree

_TORCH = str(Path(torch.__file__).parent)
_HINT = (
    "let it draw nothing in eval mode: `if self.training: ...`, "
    "F.dropout(x, p, training=self.training)"
)


class _Drawn(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each call that draws: {"torch.rand (nets.py:12)": None, ...}."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: dict[str, None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.calls[_place(func.overloadpacket.__name__)] = None
        return func(*args, **(kwargs or {}))


def _place(operator: str) -> str:
    """The torch function that the author called, and the line that calls it."""
    name = operator.rstrip("_")
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_TORCH, "<")):
            return f"{name} ({Path(file).name}:{frame.f_lineno})"
        if file.endswith("functional.py"):
            name = frame.f_code.co_name
        frame = frame.f_back
    return name


def refuse_random(run: Callable[[], Any], output: Any) -> None:
    """Run the module once more on the input that gave `output`.

    A draw without an effect (dropout with p=0) is accepted.

    Raises:
        UserError: when the second output differs from the first.
    """
    with _Drawn() as drawn:
        again = run()
    pairs = zip(leaves(output), leaves(again), strict=False)
    unlike = [
        name
        for (name, first), (_, second) in pairs
        if not agree(first.detach().numpy(), second.detach().numpy())
    ]
    if not unlike:
        return
    calls, which = ", ".join(list(drawn.calls)[:4]), ", ".join(unlike[:3])
    if calls:
        raise UserError(
            f"the model draws random numbers when it runs, in eval mode as well: {calls}. It "
            f"answers the same input differently ({which}): no graph can be compared with it",
            _HINT,
        )
    raise UserError(
        f"the model answers the same input differently each time ({which}), so that no graph can "
        "be compared with it: it draws random numbers, or remembers earlier calls",
        "make its answer a function of the input alone in eval mode",
    )

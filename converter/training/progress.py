"""What the training loop tells while it runs. The default says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converter.training.loop import Epoch


class Progress:
    """Override what you want to hear."""

    def say(self, sentence: str) -> None:
        """Something happened outside the loop: a download, a mirror that failed."""

    def start(self, *, epochs: int, batches: int) -> None:
        """Before the first step: how many epochs, and how many batches each has."""

    def batch(self, epoch: int, batch: int, loss: float) -> None:
        """After a step: both numbers count from 1, `loss` is that batch's."""

    def epoch(self, epoch: Epoch) -> None:
        """After an epoch and its evaluation."""

"""What a network is for: the shape of an image and the number of classes, bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from converter.errors import UserError

LARGEST_CHANNELS = 16
LARGEST_SIDE = 1024
LARGEST_CLASSES = 100_000


@dataclass(frozen=True)
class Task:
    """Images (channels, height, width) to logits of `classes`; MNIST's when nothing is said.

    Raises:
        UserError: for a size that is no integer, or outside of 1 (classes: 2) to the largest.
    """

    channels: int = 1
    height: int = 28
    width: int = 28
    classes: int = 10

    def __post_init__(self) -> None:
        for name, smallest, largest in (
            ("channels", 1, LARGEST_CHANNELS),
            ("height", 1, LARGEST_SIDE),
            ("width", 1, LARGEST_SIDE),
            ("classes", 2, LARGEST_CLASSES),
        ):
            value = getattr(self, name)
            if type(value) is not int or not smallest <= value <= largest:
                raise UserError(
                    f"the network is asked for {name} = {value!r}",
                    f"give an integer from {smallest} to {largest}",
                )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width), without the batch axis."""
        return self.channels, self.height, self.width

    @property
    def pixels(self) -> int:
        """How many numbers an image is."""
        return self.channels * self.height * self.width


def parse_task(input_shape: Sequence[Any] | None, classes: Any) -> Task:
    """A task from what a checkpoint says, None for MNIST's. Raises UserError."""
    if input_shape is None:
        sizes: tuple[Any, Any, Any] = Task().input_shape
    elif isinstance(input_shape, (list, tuple)) and len(input_shape) == 3:
        sizes = (input_shape[0], input_shape[1], input_shape[2])
    else:
        raise UserError(
            f"the network is asked for input_shape = {input_shape!r}",
            "give three sizes: channels, height, width",
        )
    return Task(*sizes, Task.classes if classes is None else classes)

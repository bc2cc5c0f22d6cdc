"""What a user may say about a fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converter.folding.names import check, matches


@dataclass(frozen=True)
class FoldOptions:
    """What a user may say about a fold.

    Attributes:
        only: fold only batch-norms whose name matches one of these patterns (`layer1.*`).
        skip: keep those whose name matches one of these.
        through_relu: let a Relu or Clip become a maximum with one number per channel, where a shift
            has to pass it.
    """

    only: Sequence[str] = ()
    skip: Sequence[str] = ()
    through_relu: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.only, str) or isinstance(self.skip, str):
            raise TypeError('only and skip are lists of patterns: only=["layer1.*"]')

    def leaves(self, name: str) -> bool:
        """Whether the batch-norm of this name is to stay."""
        return bool(self.only and not matches(name, self.only)) or matches(name, self.skip)

    def check(self, names: Sequence[str]) -> None:
        """Let each pattern match one of the names.

        Raises:
            UserError: one matches none.
        """
        check((*self.only, *self.skip), names)

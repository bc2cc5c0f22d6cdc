"""What is taken through the chain: a trained file of a package, or a network of a library."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True)
class Case:
    """One model, and what a user would say about it on the command line.

    Attributes:
        name: unlike all others; `/` between the package and the rest.
        package, version: a distribution on PyPI.
        member: the file's path inside of the wheel; "" for a network.
        words: options of `converter fold`, each with its value. A network is what its `--arch`
            builds, its inputs are of each `--input-shape`.
        feeds: the function of `feeds` that makes inputs such as the model is meant for; they are
            given to `fold --data` and asked of the service. "" for random ones.
        needs: whether the architecture comes from the package's own code, which then runs.
    """

    name: str
    package: str
    version: str
    member: str = ""
    words: tuple[str, ...] = ()
    feeds: str = ""
    needs: bool = False

    def said(self, option: str) -> list[str]:
        """The values that `words` give to an option."""
        pairs = zip(self.words[::2], self.words[1::2], strict=True)
        return [value for key, value in pairs if key == option]

    @property
    def slug(self) -> str:
        """A name for folders and models."""
        return "".join(c if c.isalnum() or c in "-_." else "-" for c in self.name).strip("-._")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        found = json.loads(text)
        return cls(**found | {"words": tuple(found["words"])})


def spelled(value: object) -> str:
    """A value as `--arch-arg` has it: text as it is, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value)

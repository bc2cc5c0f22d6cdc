"""A signed version in memory: what was verified is what is loaded.

Between a check of files and their use somebody may put others in their place. So a version whose
signature is required is read once, its bytes are checked, and session and self-test are made from
these bytes. They are let go as soon as the version is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import cast

from service.manifest import MODEL_FILE
from service.models.external import Buffer, Unreadable, named


@dataclass(frozen=True, slots=True)
class Held:
    """The files of a version, each with the content that was verified; model.onnx as bytes."""

    files: Mapping[str, Buffer]

    @property
    def model(self) -> bytes:
        """The content of model.onnx."""
        return cast(bytes, self.files[MODEL_FILE])

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(map(len, self.files.values()))

    def weights(self) -> dict[str, Buffer]:
        """The content of each file that model.onnx keeps tensors in, by the name it has there.

        Raises:
            Unreadable: it names one that is not among the files of the version.
        """
        found = {}
        for location in sorted(named(self.model)):
            path = PurePosixPath(location)
            if str(path) != path.name or path.name not in self.files:
                raise Unreadable(f"the weights {path.name[:64]!r} are not among the signed files")
            found[location] = self.files[path.name]
        return found

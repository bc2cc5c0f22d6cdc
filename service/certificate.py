"""The certificate of a version: its graph computes what the original computed, for every input.

The converter's checker gives it, `publish` writes it into `provenance.certificate` of model.json,
and the service tells it. It is told, not believed: what is served is decided by hashes and
self-test alone. It lies in `provenance` because services that are older than it refuse other keys.

What it says is written in docs/service.md, "The certificate".
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

KEY = "certificate"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class Lenient(BaseModel):
    """A newer converter may write more than this knows."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class BatchNorms(Lenient):
    """How many batch-norms of the original were folded, and how many stay."""

    folded: Count
    kept: Count


class Figures(Lenient):
    """What was checked.

    `weights`: numbers of the folded graph's weights that were compared, each use once.
    `largest_move`: by how many roundings of its type one of them, or a value, was moved at most;
    `roundings`: by how many one may be. `sizes`: what was tried for the axes of open size.
    """

    weights: Count
    largest_move: Annotated[float, Field(ge=0)]
    roundings: Annotated[float, Field(gt=0)]
    sizes: list[dict[str, int]]


class Where(Lenient):
    """The first value of the folded graph that was not found in the original, and its numbers."""

    value: str
    op: str
    channel: int | None = None
    expected: float | None = None
    found: float | None = None


class Checked(Lenient):
    """A graph as the checker read it.

    `graph`: sha256 of what it computes with: nodes, weights, inputs and outputs, however the file
    stores them. `files`: sha256 of the files that it was read from or is written to; of an
    original, its main file alone; empty where there was none.
    """

    graph: Sha256
    files: dict[str, Sha256] = {}


class Certificate(Lenient):
    """Whether the folded graph was certified, and of which graphs that is said.

    `verdict`: the conclusion of the whole proof. `sentence`: what the checker found, or why it
    found nothing; "not certified" does not mean that the graphs differ. `figures` are those of a
    certificate, `where` the place that stood in its way, if it is one value. `checker`: sha256 of
    the checker's source files.
    """

    certified: bool
    sentence: str = Field(min_length=1)
    verdict: str = ""
    batchnorms: BatchNorms | None = None
    figures: Figures | None = None
    where: Where | None = None
    original: Checked | None = None
    folded: Checked | None = None
    checker: Sha256 | None = None


OF_OTHER_FILES = (
    "Not certified: the certificate in model.json is of other files than those of this version."
)


def read(provenance: dict[str, Any], files: dict[str, str]) -> Certificate | None:
    """The certificate that a manifest holds.

    Args:
        files: the sha256 of each file of the version.

    Returns:
        None if there is none, or one of a form that this does not know. One that names other files
        than those of the version is returned as "not certified", with the reason.
    """
    try:
        found = Certificate.model_validate(provenance.get(KEY))
    except ValidationError:
        return None
    if found.certified:
        named = found.folded.files if found.folded else {}
        if not named or any(files.get(name) != sha256 for name, sha256 in named.items()):
            return Certificate(certified=False, sentence=OF_OTHER_FILES)
    return found

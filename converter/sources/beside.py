"""Files that a model file names: shards of weights, external data.

Only the folder of the model file is read.

Hugging Face's cache is one folder in this sense. It keeps each file once, under its hash, and the
names of a revision are links to those (huggingface_hub, "Understand caching"):

    models--someone--net/blobs/3f2a...
    models--someone--net/snapshots/9c1b.../model.onnx       -> ../../blobs/3f2a...
    models--someone--net/snapshots/9c1b.../model.onnx_data  -> ../../blobs/77e0...

What is named lies next to the link, not next to what the link leads to.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from converter.errors import UserError


def find(path: Path, location: str) -> Path:
    """The file that the model file `path` calls `location`, all links resolved.

    Raises:
        UserError: it does not lie in the folder of the model, or does not exist.
    """
    pure = PurePosixPath(location.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or not location.strip() or "\0" in location:
        raise UserError(
            f"{path} asks for weights outside its folder: {location!r}",
            "such a file may be an attack; save the model again with its weights beside it",
        )
    file = (path.parent / pure).resolve()
    if not file.is_relative_to(path.parent.resolve()) and not _in_cache(path.parent, file):
        raise UserError(
            f"{path} asks for weights outside its folder: {location!r} is a link to {file}",
            "put the weights themselves beside the model",
        )
    if not file.is_file():
        raise UserError(
            f"{path} keeps its weights in {location!r}, which is not there",
            f"put that file into {path.parent}",
        )
    if file.stat().st_nlink > 1:
        raise UserError(
            f"{path} keeps its weights in {location!r}, which has a second name elsewhere (a hard "
            "link), so it may be a file from outside of its folder",
            "copy the model with its weights to a folder of its own",
        )
    return file


def _in_cache(folder: Path, file: Path) -> bool:
    """Whether `folder` lies in a snapshot of Hugging Face's cache, and `file`, whose links are
    resolved, is a blob of the same repository. A `blobs` folder that is a link does not count."""
    for place in (absolute := folder.absolute(), *absolute.parents):
        repository = place.parent.parent
        if place.parent.name == "snapshots" and repository.name.partition("--")[0] in {
            "models",
            "datasets",
            "spaces",
        }:
            return file.parent == repository.resolve() / "blobs"
    return False

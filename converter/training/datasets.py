"""The data sets by what is said on the command line: two names, an `.npz` file, or a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from converter.errors import UserError
from converter.training import download, fashion, image_folder, mnist, npz
from converter.training.data import Dataset
from converter.training.progress import Progress

# name -> (where it comes from, how its folder is read)
NAMED = {
    "mnist": (download.MNIST, mnist.load),
    "fashion-mnist": (download.FASHION_MNIST, fashion.load),
}


def load(
    which: str,
    data_dir: Path | None = None,
    *,
    image_size: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Read a data set into memory.

    Args:
        which: a key of `NAMED`, or the path of an `.npz` file or of a folder of pictures.
        data_dir: for a name: where its files are; None downloads them once, to the cache.
        image_size: (height, width) that pictures of a folder are squeezed to.
        progress: is told of downloads, and of what is suspicious in the data.

    Raises:
        UserError: for data that there is not, that is damaged, or too large.
    """
    if which in NAMED:
        origin, read = NAMED[which]
        if image_size is not None:
            raise UserError(f"the images of {which} have one size", "leave out --image-size")
        return read(data_dir or download.fetch(origin=origin, progress=progress))
    data = _of_path(which, data_dir, image_size)
    if progress is not None:
        for note in data.notes:
            progress.say(f"note: {note}")
    return data


def _of_path(which: str, data_dir: Path | None, image_size: tuple[int, int] | None) -> Dataset:
    path = Path(which)
    if data_dir is not None:
        raise UserError(
            f"--data-dir is for {' and '.join(NAMED)}, the data set is {which}",
            "leave it out: --dataset says where the data is",
        )
    if path.is_dir():
        return image_folder.load(path, image_size)
    if path.suffix == ".npz" and path.is_file():
        if image_size is not None:
            raise UserError("the images of an .npz have one size", "leave out --image-size")
        return npz.load(path)
    raise UserError(
        f"there is no data set {which!r}",
        f"give {', '.join(NAMED)}, an .npz file, or a folder with a sub-folder for each class",
    )


def digest(data: Dataset) -> str:
    """sha256 of all images and labels in their splits."""
    found = hashlib.sha256()
    for split in (data.train, data.validation, data.test):
        if split is not None:
            found.update(str(tuple(split.images.shape)).encode())
            found.update(split.images.numpy().data)
            found.update(split.labels.numpy().data)
    return found.hexdigest()

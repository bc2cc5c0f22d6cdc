"""A folder of pictures, a sub-folder for each class: pets/cat/1.jpg, pets/dog/7.png.

Where the folder holds `train` and `test`, each of these has the classes; else a fifth of the
pictures, the same ones each time, is the test. Pictures become pixels by the code of the service,
so that the network is fed the same when it is served.

Needs the extra `images` (Pillow).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from converter.architectures.task import LARGEST_SIDE
from converter.errors import UserError
from converter.training.data import LARGEST_DATA, Dataset, Split, preprocessing_of, split_off
from converter.training.npz import TEST_SEED, TEST_SHARE
from service.codecs import images as pictures
from service.errors import ServiceError
from service.manifest import Preprocessing, TensorSpec

SUFFIXES = {".png", ".jpg", ".jpeg"}
LARGEST_FILE = 64 << 20  # bytes
LARGEST_PICTURE = 50_000_000  # pixels before it is resized
GRAY = {"1", "L", "I", "I;16"}  # modes of Pillow; PNGs of 16 bits are the last two
TURNED = {5, 6, 7, 8}  # values of the EXIF orientation that exchange width and height

Found = list[tuple[Path, int]]  # a picture and the number of its class


def load(folder: Path, size: tuple[int, int] | None = None) -> Dataset:
    """Read every PNG and JPEG below `folder`.

    Args:
        size: (height, width) that every picture is squeezed to; None when all have one size.

    Raises:
        UserError: without Pillow, for a folder that is not as described, for pictures of
            several sizes, damaged ones, or more of them than memory should hold.
    """
    pil = _pillow()
    train_folder, test_folder = folder / "train", folder / "test"
    apart = train_folder.is_dir() and test_folder.is_dir()
    labels = _classes(train_folder if apart else folder)
    found = [_find(train_folder if apart else folder, labels)]
    if apart:
        if other := set(_classes(test_folder)) ^ set(labels):
            raise UserError(
                f"{train_folder} and {test_folder} do not have the same sub-folders: "
                f"{', '.join(sorted(other)[:5])}{', ...' if len(other) > 5 else ''} is in one only",
                "give both the same, one for each class, with a picture in each",
            )
        found.append(_find(test_folder, labels))
    everything = [path for part in found for path, _ in part]
    if len(everything) < 10:
        raise UserError(f"{folder} has {len(everything)} pictures", "it takes at least 10")

    height, width, gray = _look(pil, everything, size)
    how = Preprocessing(channels="L" if gray else "RGB", height=height, width=width)
    needed = len(everything) * height * width * (1 if gray else 3)
    if needed > LARGEST_DATA:
        raise UserError(
            f"{len(everything)} pictures of {height} by {width} take {needed:,} bytes of memory, "
            f"{LARGEST_DATA:,} are allowed",
            "give a smaller --image-size",
        )
    splits = [_read(part, how) for part in found]
    train, test = splits if apart else split_off(splits[0], TEST_SHARE, TEST_SEED)
    return Dataset(
        train,
        test,
        labels=labels,
        description=f"{len(train)} training and {len(test)} test pictures of a folder",
        preprocessing=preprocessing_of(train.images),
    )


def _classes(folder: Path) -> list[str]:
    names = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if len(names) < 2:
        raise UserError(
            f"{folder} has {len(names)} sub-folders", "it must have one for each class, two or more"
        )
    return names


def _find(folder: Path, labels: list[str]) -> Found:
    found: Found = []
    for number, name in enumerate(labels):
        mine = sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in SUFFIXES)
        if not mine:
            raise UserError(f"{folder / name} holds no picture", "give PNG or JPEG files")
        found += [(path, number) for path in mine]
    return found


def _look(pil: Any, paths: list[Path], size: tuple[int, int] | None) -> tuple[int, int, bool]:
    """Height and width of all pictures, and whether all are gray; only their headers are read."""
    first: tuple[int, int] | None = size
    gray = True
    for path in paths:
        try:
            with pil.open(path, formats=["PNG", "JPEG"]) as image:
                width, height = image.size
                gray = gray and image.mode in GRAY
                if image.getexif().get(0x0112) in TURNED:
                    width, height = height, width
        except (OSError, ValueError, SyntaxError, pil.DecompressionBombError) as error:
            raise UserError(f"{path} is no PNG or JPEG, or damaged: {error}") from error
        if size is None and first is not None and (height, width) != first:
            raise UserError(
                f"{path} is {height} by {width}, others are {first[0]} by {first[1]}",
                f"give all of them one size: --image-size {min(height, width, *first)}",
            )
        first = first or (height, width)
    assert first is not None
    if max(first) > LARGEST_SIDE:
        raise UserError(
            f"the pictures are {first[0]} by {first[1]}, more than {LARGEST_SIDE} a side",
            "give a smaller --image-size, such as 64",
        )
    return (*first, gray)


def _read(found: Found, how: Preprocessing) -> Split:
    channels = 1 if how.channels == "L" else 3
    # An integer input gets the pixels as they are.
    shape: list[int | str] = ["batch", channels, how.height, how.width]
    spec = TensorSpec(name="input", dtype="uint8", shape=shape)
    images = np.empty((len(found), channels, how.height, how.width), np.uint8)
    for place, (path, _) in enumerate(found):
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise UserError(f"{path} has more than {LARGEST_FILE:,} bytes")
            images[place] = pictures.rows([path.read_bytes()], how, spec, LARGEST_PICTURE)[0]
        except ServiceError as error:
            raise UserError(f"{path}: {error}") from error
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    labels = torch.tensor([number for _, number in found], dtype=torch.int64)
    return Split(torch.from_numpy(images), labels)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise UserError(
            "pictures are read by Pillow, which is not installed",
            "install the extra: pip install 'foldserve[images]'",
        ) from error
    return Image

"""Images and labels from an `.npz`: x and y, or x_train, y_train, x_test, y_test.

    x   (N, H, W)            gray
        (N, H, W, 1 or 3)    channels last, as Keras and most image libraries have them
        (N, 1 or 3, H, W)    channels first, as torch has them
        (N, F)               features: an image of one row
    y   (N,) or (N, 1)       integers, 0 to classes - 1

Bytes are pixels 0 to 255; integers of other types must be as small. Floats reach the network as
they are. No object is unpickled, and every array announces its size before it is read.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from converter.architectures.task import LARGEST_CLASSES, LARGEST_SIDE
from converter.errors import UserError
from converter.training.data import (
    LARGEST_DATA,
    Dataset,
    Split,
    preprocessing_of,
    split_off,
)

NAMES = "x and y, or x_train, y_train, x_test and y_test"
TEST_SHARE = 0.2  # where the file has no test images
LARGEST_USUAL = 20.0  # of a float; standardised data stay below
TEST_SEED = 0  # fixed, so that every training of a file is measured on the same images

Array = npt.NDArray[Any]


def load(path: Path) -> Dataset:
    """Read the file. Raises UserError for anything that is not as described above."""
    try:
        with zipfile.ZipFile(path) as archive:
            held = {name.removesuffix(".npy") for name in archive.namelist()}
            if {"x_train", "y_train", "x_test", "y_test"} <= held:
                train, test = (
                    _split(path, archive, f"x_{part}", f"y_{part}") for part in ("train", "test")
                )
            elif {"x", "y"} <= held:
                whole = _split(path, archive, "x", "y")
                if len(whole) < 10:
                    raise UserError(f"{path} has {len(whole)} images", "it takes at least 10")
                train, test = split_off(whole, TEST_SHARE, TEST_SEED)
            else:
                raise UserError(
                    f"{path} holds " + (", ".join(sorted(held)[:10]) or "nothing"),
                    f"it must hold {NAMES}",
                )
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, RuntimeError) as error:
        raise UserError(f"{path} is no .npz file, or damaged: {error}") from error
    if train.images.shape[1:] != test.images.shape[1:] or train.images.dtype != test.images.dtype:
        raise UserError(f"the training and the test images of {path} differ in size or type")
    classes = int(max(train.labels.max(), test.labels.max())) + 1
    if not 2 <= classes <= LARGEST_CLASSES:
        raise UserError(
            f"the labels of {path} go up to {classes - 1}, which makes {classes} classes",
            f"give 2 to {LARGEST_CLASSES} classes",
        )
    numbers = "pixels" if min(train.images.shape[2:]) > 1 else "features"
    return Dataset(
        train,
        test,
        labels=[str(number) for number in range(classes)],
        description=f"{len(train)} training and {len(test)} test images of an .npz file",
        preprocessing=preprocessing_of(train.images),
        notes=tuple(_suspicious(train, classes, numbers)),
    )


def _suspicious(train: Split, classes: int, numbers: str) -> Iterator[str]:
    """What trains without an error, and is seldom what was meant."""
    missing = torch.bincount(train.labels, minlength=classes).eq(0).nonzero().flatten().tolist()
    if missing:
        yield (
            f"{len(missing)} of {classes} classes have no training image "
            f"({', '.join(map(str, missing[:5]))}{', ...' if len(missing) > 5 else ''}): labels "
            "are the numbers 0 to classes - 1; np.unique(y, return_inverse=True)[1] makes them so"
        )
    largest = float(train.images.abs().max())
    if train.images.is_floating_point() and largest > LARGEST_USUAL:
        yield (
            f"the {numbers} go up to {largest:g}, and floats reach the network as they are: scale "
            "them to about -1 to 1, give pixels as uint8, or add --input-norm"
        )
    if not train.images.is_floating_point() and largest <= 1:
        yield (
            f"the {numbers} go up to {largest:g}, and integers are divided by 255: give 0 to 255, "
            "or floats, which are left as they are"
        )


def _split(path: Path, archive: zipfile.ZipFile, x: str, y: str) -> Split:
    images = _images(f"{x!r} of {path}", _read(path, archive, x))
    labels = _read(path, archive, y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(
            f"{y!r} of {path} is {labels.dtype} of shape {labels.shape}",
            "give one integer an image, the number of its class: np.unique(y, return_inverse=True)"
            "[1] of names, y.argmax(1) of one-hot rows, y.astype(int) of whole floats",
        )
    if len(labels) != len(images) or not len(labels):
        raise UserError(f"{path} has {len(images)} images and {len(labels)} labels in {x!r}, {y!r}")
    if labels.min() < 0 or labels.max() > LARGEST_CLASSES:
        raise UserError(
            f"{y!r} of {path} goes from {labels.min()} to {labels.max()}",
            f"give the numbers of the classes, from 0 and below {LARGEST_CLASSES}",
        )
    return Split(images, torch.from_numpy(labels.astype(np.int64)))


def _images(what: str, values: Array) -> Tensor:
    """As (N, C, H, W), uint8 or float32."""
    kind = values.dtype.kind
    if kind in "iu":
        if values.size and (values.min() < 0 or values.max() > 255):
            raise UserError(f"{what} goes from {values.min()} to {values.max()}", "give 0 to 255")
        values = values.astype(np.uint8, copy=False)
    elif kind == "f":
        values = values.astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            bad = ~np.isfinite(values).reshape(len(values), -1).all(1)
            raise UserError(
                f"{what} holds NaN or infinity in {int(bad.sum())} of {len(values)} rows, first in "
                f"row {int(bad.argmax())}",
                "replace these values, or leave the rows out",
            )
    else:
        raise UserError(f"{what} is of type {values.dtype}", "give uint8 pixels, or floats")

    shape = values.shape
    if values.ndim == 2:
        values = values[:, None, None, :]  # (N, 1, 1, F)
    elif values.ndim == 3:
        values = values[:, None]  # (N, 1, H, W)
    elif values.ndim == 4 and shape[1] in {1, 3}:
        pass  # (N, C, H, W)
    elif values.ndim == 4 and shape[3] in {1, 3}:
        values = values.transpose(0, 3, 1, 2)  # (N, C, H, W)
    else:
        raise UserError(f"{what} has shape {shape}", "give (N, H, W), (N, H, W, C) or (N, C, H, W)")
    if not 1 <= min(values.shape[2:]) <= max(values.shape[2:]) <= LARGEST_SIDE:
        raise UserError(f"{what} has shape {shape}", f"give images up to {LARGEST_SIDE} a side")
    return torch.from_numpy(np.array(values, order="C"))  # a copy, which torch may write to


def _read(path: Path, archive: zipfile.ZipFile, name: str) -> Array:
    """One array, after a look at its header: what it claims is not allocated unless it is there."""
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as file:
        try:
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(version)
            if read is None:
                raise ValueError(f"version {version} of the format")
            shape, fortran, dtype = read(file)
        except (ValueError, EOFError) as error:
            raise UserError(f"{name!r} of {path} is no array: {error}") from error
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise UserError(f"{name!r} of {path} holds Python objects, which are not read")
        if size > LARGEST_DATA:
            raise UserError(f"{name!r} of {path} claims {size:,} bytes, {LARGEST_DATA:,} are read")
        if size != entry.file_size - file.tell():
            raise UserError(f"{name!r} of {path} is damaged: its size is not that of its shape")
        flat = np.frombuffer(file.read(size), dtype)
    if flat.size != math.prod(shape):
        raise UserError(f"{name!r} of {path} is damaged: it ends early")
    return flat.reshape(shape, order="F" if fortran else "C")

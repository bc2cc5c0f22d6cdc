"""Images and labels from an `.npz`: x and y, or x_train, y_train, x_test, y_test.

    x   (N, H, W)            gray
        (N, H, W, 1 or 3)    channels last, as Keras and most image libraries have them
        (N, 1 or 3, H, W)    channels first, as torch has them
        (N, F)               features: an image of one row
    y   (N,) or (N, 1)       integers, 0 to classes - 1

Bytes are pixels 0 to 255; integers of other types must be as small. Floats reach the network as
they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from converter.architectures.task import LARGEST_CLASSES, LARGEST_SIDE
from converter.errors import UserError
from converter.files import arrays
from converter.files.arrays import Array, Arrays
from converter.training.data import LARGEST_DATA, Dataset, Split, preprocessing_of, split_off

NAMES = "x and y, or x_train, y_train, x_test and y_test"
TEST_SHARE = 0.2  # where the file has no test images
LARGEST_USUAL = 20.0  # of a float; standardised data stay below
TEST_SEED = 0  # fixed, so that every training of a file is measured on the same images


def load(path: Path) -> Dataset:
    """Read the file. Raises UserError for anything that is not as described above."""
    with arrays.opened(path, f"give an .npz of {NAMES}", largest=LARGEST_DATA) as found:
        if {"x_train", "y_train", "x_test", "y_test"} <= found.keys():
            train = _split(path, found, "x_train", "y_train")
            test = _split(path, found, "x_test", "y_test")
        elif {"x", "y"} <= found.keys():
            whole = _split(path, found, "x", "y")
            if len(whole) < 10:
                raise UserError(f"{path} has {len(whole)} images", "it takes at least 10")
            train, test = split_off(whole, TEST_SHARE, TEST_SEED)
        else:
            raise UserError(
                f"{path} holds " + (", ".join(sorted(found)[:10]) or "nothing"),
                f"it must hold {NAMES}",
            )
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


def _split(path: Path, found: Arrays, x: str, y: str) -> Split:
    images = _images(f"{x!r} of {path}", found[x])
    labels = as_column(found[y])
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


def as_column(labels: Array) -> Array:
    """(N, 1) -> (N,); others as they are."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


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

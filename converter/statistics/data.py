"""Inputs for a network, from the usual sources: MNIST's four files, arrays, folders of images.

One rule for bytes: uint8 is a picture, becomes numbers in [0, 1], and then (x − mean) / std as
the user or the checkpoint says. Everything else goes to the network unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from converter.errors import UserError
from converter.files import arrays
from converter.files.arrays import Array, Arrays
from converter.training import image_folder, mnist, npz
from converter.training.data import LARGEST_DATA, Samples, pixels

# The usual names of arrays in an .npz: of the inputs, and of their labels.
INPUTS = ("x", "x_train", "images", "inputs", "data", "arr_0")
LABELS = {"x": "y", "x_train": "y_train", "images": "labels", "inputs": "labels", "data": "labels",
          "arr_0": "arr_1"}  # fmt: skip
_GIVE = "give a folder with MNIST's files, a folder of images, an .npz (x, y), or an .npy"


@dataclass(frozen=True)
class Population:
    """The samples from which statistics are taken, and on which accuracy is measured.

    Attributes:
        samples: all samples for the statistics.
        test: other samples with labels where the source has some, else None.
        description: what the source is, for reports.
    """

    samples: Samples
    test: Samples | None
    description: str

    @property
    def measured(self) -> Samples | None:
        """The samples for accuracy: `test`, else `samples` if they have labels, else None."""
        return self.test or (self.samples if self.samples.labels is not None else None)

    def pictures(self, path: Path) -> Population:
        """Apply the function `pictures` to both. Raises UserError."""
        test = None if self.test is None else pictures(self.test, path)
        return replace(self, samples=pictures(self.samples, path), test=test)


def read(path: Path, sizes: tuple[int, ...] | None = None) -> Population:
    """Read a folder with MNIST's files or with images, an .npz (x, y), or an .npy of inputs.

    Args:
        sizes: (C, H, W) of the network, to which the pictures of a folder are resized.

    Raises:
        UserError: the path does not exist, is damaged, or holds no samples.
    """
    if path.is_dir():
        return _folder(path, sizes)
    with arrays.opened(path, _GIVE, largest=LARGEST_DATA) as found:
        if "" in found:
            return Population(Samples(_tensor(found[""], path), None), None, path.name)
        return _npz(found, path)


def _folder(path: Path, sizes: tuple[int, ...] | None) -> Population:
    if any((path / name).is_file() for stem in mnist.SHA256 for name in (stem, f"{stem}.gz")):
        found = mnist.load(path)
    else:
        size = (sizes[1], sizes[2]) if sizes and len(sizes) == 3 else None
        found = image_folder.load(path, size)
    return Population(found.train, found.test, f"the training images of {found.description}")


def _npz(found: Arrays, path: Path) -> Population:
    name = next((key for key in INPUTS if key in found), None)
    if name is None and len(found) == 1:
        name = next(iter(found))
    if name is None:
        raise UserError(
            f"{path} holds {', '.join(list(found)[:6]) or 'nothing'}",
            'the inputs must be called "x", their labels "y"',
        )
    x = _tensor(found[name], path)
    y = _labels(found, LABELS.get(name, "y"), len(x), path)
    test = None
    if name == "x_train" and {"x_test", "y_test"} <= found.keys():
        inputs = _tensor(found["x_test"], path)
        test = Samples(inputs, _labels(found, "y_test", len(inputs), path))
    return Population(Samples(x, y), test, path.name)


def _labels(found: Arrays, name: str, count: int, path: Path) -> Tensor | None:
    if name not in found:
        return None
    labels = npz.as_column(found[name])
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise UserError(
            f"{name!r} of {path} is {labels.dtype} {labels.shape}, not one whole number for each "
            f"of {count} inputs"
        )
    return torch.from_numpy(labels.astype(np.int64))


def _tensor(array: Array, path: Path) -> Tensor:
    if not array.ndim or not len(array):
        raise UserError(f"{path} holds no samples: an array of shape {array.shape}")
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise UserError(f"{path} holds {array.dtype}, which is not a type of a network's input")
    return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))))


def shaped(samples: Samples, sizes: tuple[int, ...] | None, path: Path) -> Samples:
    """Bring inputs into the shape that a network takes, where it is clear how.

    For a network with one channel, (N, H, W) gets a channel axis; for one whose images have one
    row, (N, F) gets two axes; for one with C channels, (N, H, W, C) becomes (N, C, H, W).

    Args:
        sizes: of one sample; None where they are not known, and then nothing is done.

    Raises:
        UserError: the shapes contradict each other.
    """
    have = tuple(samples.images.shape[1:])
    if sizes is None or have == sizes:
        return samples
    if (1, *have) == sizes:
        return replace(samples, images=samples.images.unsqueeze(1))
    if (1, 1, *have) == sizes:  # features, which `train` takes as an image of one row
        return replace(samples, images=samples.images[:, None, None])
    if len(have) == 3 and (have[2], have[0], have[1]) == sizes:
        return replace(samples, images=samples.images.permute(0, 3, 1, 2))
    if len(have) == len(sizes) and have[0] == sizes[0]:
        return samples  # another height or width, which most convolutional networks take
    raise UserError(
        f"an input of {path} is {_words(have)}, and the network takes {_words(sizes)}",
        "give data of the shape that it was trained on, or --input-shape if it takes others",
    )


def pictures(samples: Samples, path: Path) -> Samples:
    """Turn integers of any type into pixels, as `train` did for its networks.

    Raises:
        UserError: they are not from 0 to 255.
    """
    x = samples.images
    if x.is_floating_point() or x.dtype == torch.uint8:
        return samples
    if x.dtype == torch.bool or int(x.min()) < 0 or int(x.max()) > 255:
        raise UserError(
            f"the inputs of {path} are {str(x.dtype).removeprefix('torch.')}, from {x.min()} to "
            f"{x.max()}",
            "give pixels from 0 to 255, or floats as the network is to see them",
        )
    return replace(samples, images=x.to(torch.uint8))


@dataclass(frozen=True)
class Preparation:
    """How stored inputs become those of the network.

    Attributes:
        mean, std: of each channel, in [0, 1], for pictures (uint8) only.
        dtype: of the network's floating inputs.
        device: where the network runs.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"

    def apply(self, x: Tensor) -> Tensor:
        """(N, C, ...) as stored -> the same shape, prepared for the network.

        Raises:
            UserError: a number is not finite.
        """
        picture = x.dtype == torch.uint8
        x = x.to(self.device)
        if picture:
            x = pixels(x)
            shape = (1, -1, *[1] * (x.ndim - 2))
            mean, std = (torch.tensor(v, device=x.device) for v in (self.mean, self.std))
            x = (x - mean.view(shape)) / std.view(shape)
        if x.is_floating_point():
            x = x.to(self.dtype)
            if not x.isfinite().all():
                raise UserError(
                    "the data hold NaN or infinity, of which there are no statistics",
                    "clean them first: numpy.isfinite(x) says where",
                )
        return x

    def batches(self, samples: Samples, size: int) -> Iterator[Tensor]:
        """All inputs, `size` at a time, prepared."""
        for piece in torch.split(samples.images, size):
            yield self.apply(piece)


def _words(sizes: tuple[int, ...]) -> str:
    return " by ".join(map(str, sizes)) or "a single number"

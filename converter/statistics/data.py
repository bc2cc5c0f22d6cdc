"""Inputs for a network, from what people have: MNIST's four files, arrays, folders of images.

One rule for bytes: uint8 is a picture, becomes numbers in [0, 1], and then (x − mean) / std as
the user or the checkpoint says. Everything else is taken as the network is to see it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from converter.errors import UserError, first_line
from converter.training import image_folder, mnist
from converter.training.data import LARGEST_DATA, Dataset, pixels

# Names that arrays go by in an .npz: of the inputs, and of their labels.
INPUTS = ("x", "x_train", "images", "inputs", "data", "arr_0")
LABELS = {"x": "y", "x_train": "y_train", "images": "labels", "inputs": "labels", "data": "labels",
          "arr_0": "arr_1"}  # fmt: skip


@dataclass(frozen=True)
class Samples:
    """Inputs (N, ...) of any type that a network takes, and what each shows: int64 (N,)."""

    inputs: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Data:
    """What statistics are taken of, and what accuracy is measured on.

    Attributes:
        train: the population.
        test: other samples with labels where the source has some, else None.
        description: what it is, for people.
    """

    train: Samples
    test: Samples | None
    description: str

    @property
    def measured(self) -> Samples | None:
        """What accuracy can be measured on: `test`, else `train` if it has labels."""
        return self.test or (self.train if self.train.labels is not None else None)

    def pictures(self, path: Path) -> Data:
        """Both as `pictures` makes them. Raises UserError."""
        test = None if self.test is None else pictures(self.test, path)
        return replace(self, train=pictures(self.train, path), test=test)


def read(path: Path, sizes: tuple[int, ...] | None = None) -> Data:
    """Read a folder of MNIST's or an image folder, an .npz (x, y), or an .npy of inputs.

    Args:
        sizes: (C, H, W) of the network, that the pictures of a folder are squeezed to.

    Raises:
        UserError: there is no such thing, it is damaged, or it holds no samples.
    """
    if path.is_dir():
        return _folder(path, sizes)
    with _opened(path) as file:
        if isinstance(file, np.ndarray):
            return Data(Samples(_tensor(file, path)), None, path.name)
        return _npz(file, path)


def _folder(path: Path, sizes: tuple[int, ...] | None) -> Data:
    if any((path / name).is_file() for stem in mnist.SHA256 for name in (stem, f"{stem}.gz")):
        return of_dataset(mnist.load(path))
    size = (sizes[1], sizes[2]) if sizes and len(sizes) == 3 else None
    return of_dataset(image_folder.load(path, size))


def of_dataset(found: Dataset) -> Data:
    """The training images as the population, the test images to measure on."""
    return Data(
        Samples(found.train.images, found.train.labels),
        Samples(found.test.images, found.test.labels),
        f"the training images of {found.description}",
    )


def _opened(path: Path) -> Any:
    """np.load as a block, for arrays and archives alike; nothing is unpickled."""
    try:
        sizes = [path.stat().st_size]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                sizes = [entry.file_size for entry in archive.infolist()]
        if sum(sizes) > LARGEST_DATA:
            raise UserError(f"{path} holds {sum(sizes):,} bytes, {LARGEST_DATA:,} are read")
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"there is no {path}") from error
    except UserError:
        raise
    except Exception as error:  # a damaged file may raise anything
        why = first_line(error)
        if "pickle" in why:  # what numpy takes every other file for, with advice that is none
            why = "it is neither .npz nor .npy, or holds Python objects"
        raise UserError(
            f"{path} is no data that can be read: {why}",
            "give a folder with MNIST's files, a folder of images, an .npz (x, y), or an .npy",
        ) from error
    return nullcontext(found) if isinstance(found, np.ndarray) else closing(found)


def _npz(file: Any, path: Path) -> Data:
    name = next((key for key in INPUTS if key in file), None)
    if name is None and len(file.files) == 1:
        name = file.files[0]
    if name is None:
        raise UserError(
            f"{path} holds {', '.join(file.files[:6]) or 'nothing'}",
            'the inputs must be called "x", their labels "y"',
        )
    try:
        x = _tensor(file[name], path)
        y = _labels(file, LABELS.get(name, "y"), len(x), path)
        test = None
        if name == "x_train" and "x_test" in file:
            inputs = _tensor(file["x_test"], path)
            test = Samples(inputs, _labels(file, "y_test", len(inputs), path))
    except (ValueError, OSError, EOFError) as error:  # pickled or damaged arrays
        raise UserError(f"{path} cannot be read: {error}") from error
    if test is not None and test.labels is None:
        test = None
    return Data(Samples(x, y), test, path.name)


def _labels(file: Any, name: str, count: int, path: Path) -> Tensor | None:
    if name not in file:
        return None
    labels = file[name]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise UserError(
            f"{name!r} of {path} is {labels.dtype} {labels.shape}, not one whole number for each "
            f"of {count} inputs"
        )
    return torch.from_numpy(labels.astype(np.int64))


def _tensor(array: np.ndarray[Any, Any], path: Path) -> Tensor:
    if not array.ndim or not len(array):
        raise UserError(f"{path} holds no samples: an array of shape {array.shape}")
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise UserError(f"{path} holds {array.dtype}, which is no type of a network's input")
    return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))))


def shaped(samples: Samples, sizes: tuple[int, ...] | None, path: Path) -> Samples:
    """Bring inputs into the shape that a network takes, where there is no doubt how.

    (N, H, W) for a network of one channel gets a channel axis, (N, F) for one of images of one row
    two axes; (N, H, W, C) for one of C channels has it moved to the front.

    Args:
        sizes: of one sample, None where nobody knows them: nothing is done then.

    Raises:
        UserError: the shapes contradict each other.
    """
    have = tuple(samples.inputs.shape[1:])
    if sizes is None or have == sizes:
        return samples
    if (1, *have) == sizes:
        return replace(samples, inputs=samples.inputs.unsqueeze(1))
    if (1, 1, *have) == sizes:  # features, an image of one row for `train`
        return replace(samples, inputs=samples.inputs[:, None, None])
    if len(have) == 3 and (have[2], have[0], have[1]) == sizes:
        return replace(samples, inputs=samples.inputs.permute(0, 3, 1, 2))
    if len(have) == len(sizes) and have[0] == sizes[0]:
        return samples  # other heights and widths: most convolutional networks take them
    raise UserError(
        f"an input of {path} is {_words(have)}, and the network takes {_words(sizes)}",
        "give data of the shape that it was trained on, or --input-shape if it takes others",
    )


def pictures(samples: Samples, path: Path) -> Samples:
    """For a network of `train`: integers of any type are pixels, as they were there.

    Raises:
        UserError: they are not from 0 to 255.
    """
    x = samples.inputs
    if x.is_floating_point() or x.dtype == torch.uint8:
        return samples
    if x.dtype == torch.bool or int(x.min()) < 0 or int(x.max()) > 255:
        raise UserError(
            f"the inputs of {path} are {str(x.dtype).removeprefix('torch.')}, from {x.min()} to "
            f"{x.max()}",
            "give pixels from 0 to 255, or floats as the network is to see them",
        )
    return replace(samples, inputs=x.to(torch.uint8))


def some(samples: Samples, limit: int | None, seed: int) -> Samples:
    """At most `limit` of the samples, drawn at random by `seed`, in their order."""
    if limit is None or limit >= len(samples):
        return samples
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    chosen = order[:limit].sort().values
    labels = None if samples.labels is None else samples.labels[chosen]
    return Samples(samples.inputs[chosen], labels)


@dataclass(frozen=True)
class Preparation:
    """From stored inputs to those of the network.

    Attributes:
        mean, std: of each channel, in [0, 1], for pictures (uint8) only.
        dtype: of the network's floating inputs.
        device: where it runs.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"

    def apply(self, x: Tensor) -> Tensor:
        """(N, C, ...) as stored -> the same shape as the network takes it.

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
        for piece in torch.split(samples.inputs, size):
            yield self.apply(piece)


def _words(sizes: tuple[int, ...]) -> str:
    return " by ".join(map(str, sizes)) or "a single number"

"""Images in memory: what every data set is once it is read, whole, as two tensors a split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from converter.architectures.task import Task
from converter.errors import UserError
from service.manifest import Preprocessing

SCALE = 1 / 255  # of a byte


@dataclass(frozen=True)
class Samples:
    """Inputs of a network, and what they show where that is known.

    Attributes:
        images: (N, ...) of any type that a network takes.
        labels: int64 (N,), or None.
    """

    images: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.images)

    def at(self, which: Tensor | slice) -> Self:
        """Only these of them: their numbers, or a slice."""
        labels = None if self.labels is None else self.labels[which]
        return replace(self, images=self.images[which], labels=labels)

    def draw(self, count: int | None, seed: int) -> Self:
        """At most `count` of them, drawn at random by `seed`, in their order; all for None."""
        if count is None or count >= len(self):
            return self
        return self.at(shuffled(len(self), seed)[:count].sort().values)


@dataclass(frozen=True)
class Split(Samples):
    """Images to learn from or to be measured on.

    Attributes:
        images: (N, C, H, W), uint8, or float32 as the network is to see them.
        labels: int64 (N,), 0 to classes - 1.
    """

    labels: Tensor


@dataclass(frozen=True)
class Dataset:
    """The splits, and what to call them.

    Attributes:
        train: what is learned from.
        test: what nothing is decided by.
        labels: the name of each class.
        description: what the data may be called, "MNIST" only when the checksums say so.
        subject: what the images show, the beginning of a sentence.
        attribution: whom to name.
        preprocessing: how a picture becomes an input of the network; None when nobody knows.
        validation: held out of `train`, see `hold_out`.
        notes: sentences about what is suspicious in it.
    """

    train: Split
    test: Split
    labels: list[str]
    description: str
    subject: str = "Images"
    attribution: str = ""
    preprocessing: Preprocessing | None = None
    validation: Split | None = None
    notes: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """What a network for these images must take and give."""
        _, C, H, W = self.train.images.shape
        return Task(C, H, W, len(self.labels))

    @property
    def watched(self) -> Split:
        """What is measured after every epoch: the held-out images, or those of the test."""
        return self.validation or self.test


def pixels(images: Tensor) -> Tensor:
    """uint8 images of any shape -> float32 in [0, 1]; float32 images are as they should be."""
    return images.float() * SCALE if images.dtype == torch.uint8 else images


LARGEST_DATA = 4 << 30  # bytes of images in memory


def preprocessing_of(images: Tensor) -> Preprocessing | None:
    """How a picture becomes an input like `images` (N, C, H, W): known for bytes, gray or RGB."""
    _, C, H, W = images.shape
    if images.dtype != torch.uint8 or C not in {1, 3}:
        return None
    channels: Literal["L", "RGB"] = "L" if C == 1 else "RGB"
    return Preprocessing(
        layout="CHW", channels=channels, height=H, width=W, scale=SCALE, mean=[0.0], std=[1.0]
    )


def shuffled(count: int, seed: int) -> Tensor:
    """The numbers 0 to count - 1 in an order that `seed` decides."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def split_off(whole: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Both parts in the order that they had: what is left, and `share` of it drawn by `seed`."""
    count = round(len(whole) * share)
    order = shuffled(len(whole), seed)
    return whole.at(order[count:].sort().values), whole.at(order[:count].sort().values)


def hold_out(data: Dataset, share: float, seed: int) -> Dataset:
    """Move `share` of the training images, drawn at random by `seed`, to a validation split.

    Raises:
        UserError: when the share is not in [0, 1), or one of the two would be empty.
    """
    if share == 0:
        return data
    if not 0 < share < 1:
        raise UserError(f"--validation is {share}", "give a share from 0, below 1, such as 0.1")
    count = round(len(data.train) * share)
    if not 0 < count < len(data.train):
        raise UserError(
            f"{share:g} of {len(data.train)} training images are {count}",
            "give another --validation",
        )
    train, validation = split_off(data.train, share, seed)
    return replace(data, train=train, validation=validation)

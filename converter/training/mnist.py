"""MNIST: 60,000 training and 10,000 test images of handwritten digits, 28 by 28, in four files.

Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from converter.errors import UserError
from converter.training import idx
from converter.training.data import SCALE, Dataset, Split
from service.manifest import Preprocessing

NAME = "MNIST"
ATTRIBUTION = "MNIST by Yann LeCun, Corinna Cortes and Christopher J. C. Burges, CC BY-SA 3.0"
LABELS = [str(digit) for digit in range(10)]
SIDE = 28

PREPROCESSING = Preprocessing(
    layout="CHW", channels="L", height=SIDE, width=SIDE, scale=SCALE, mean=[0.0], std=[1.0]
)

# The sha256 of the files as the mirrors have them.
COMPRESSED_SHA256 = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
# The sha256 of the uncompressed files: others may compress the same bytes differently.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def load(folder: Path) -> Dataset:
    """Read the four files in `folder`, each compressed (`.gz`) or not.

    Raises:
        UserError: when a file is missing or damaged, when images are not 28 by 28, when there
            are not as many labels as images, or when a label is not a digit.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder", expected_files())
    checksums: dict[str, str] = {}
    train = _split(folder, "train", checksums)
    test = _split(folder, "t10k", checksums)
    original = checksums == SHA256
    count = f"{len(train)} training and {len(test)} test images in MNIST's format"
    return Dataset(
        train,
        test,
        labels=LABELS,
        description=NAME if original else count,
        subject="Handwritten digits" if original else "Images of 28 by 28 pixels",
        attribution=ATTRIBUTION if original else "",
        preprocessing=PREPROCESSING,
    )


def expected_files() -> str:
    """One sentence: what `--data-dir` must hold."""
    return "the data folder must hold " + ", ".join(f"{stem}[.gz]" for stem in SHA256)


def find(folder: Path, stem: str) -> Path:
    """The file `stem` of `folder`, compressed or not. Raises UserError when there is none."""
    for path in (folder / f"{stem}.gz", folder / stem):
        if path.is_file():
            return path
    raise UserError(f"{folder} holds neither {stem}.gz nor {stem}", expected_files())


def _split(folder: Path, prefix: str, checksums: dict[str, str]) -> Split:
    images = _read(folder, f"{prefix}-images-idx3-ubyte", 3, checksums)  # (N, 28, 28)
    labels = _read(folder, f"{prefix}-labels-idx1-ubyte", 1, checksums)  # (N,)
    if images.shape[1:] != (SIDE, SIDE):
        size = " by ".join(map(str, images.shape[1:]))
        raise UserError(f"the {prefix} images in {folder} are {size}, not {SIDE} by {SIDE}")
    if len(images) != len(labels) or not len(images):
        raise UserError(f"{folder} has {len(images)} {prefix} images and {len(labels)} labels")
    if labels.max() >= len(LABELS):
        raise UserError(f"a {prefix} label in {folder} is {labels.max()}, not a digit")
    return Split(
        images=torch.from_numpy(images.copy()).unsqueeze(1),  # (N, 1, 28, 28)
        labels=torch.from_numpy(labels.astype(np.int64)),
    )


def _read(folder: Path, stem: str, rank: int, checksums: dict[str, str]) -> npt.NDArray[np.uint8]:
    content = idx.read(find(folder, stem), rank)
    checksums[stem] = content.sha256
    return content.values

"""Fashion-MNIST: MNIST's shapes and files with articles of clothing.

H. Xiao, K. Rasul, R. Vollgraf 2017 (arXiv 1708.07747).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter.errors import UserError
from converter.training import mnist
from converter.training.data import Dataset

NAME = "Fashion-MNIST"
ATTRIBUTION = (
    "Fashion-MNIST by Han Xiao, Kashif Rasul and Roland Vollgraf (Zalando SE), MIT License"
)
LABELS = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]

# The md5 of the compressed files, as the authors' repository and torchvision publish them.
MD5 = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}


def load(folder: Path) -> Dataset:
    """Read the four files in `folder`, each compressed (`.gz`) or not.

    Raises:
        UserError: see `mnist.load`; and when it is MNIST that the folder holds.
    """
    data = mnist.load(folder)
    if data.description == mnist.NAME:
        raise UserError(f"{folder} holds MNIST, not {NAME}", "give --dataset mnist")
    original = all(_md5(folder / f"{stem}.gz") == checksum for stem, checksum in MD5.items())
    return replace(
        data,
        labels=LABELS,
        description=NAME if original else data.description,
        subject="Articles of clothing" if original else data.subject,
        attribution=ATTRIBUTION if original else "",
    )


def _md5(path: Path) -> str:
    """Of the compressed file; nothing where there is none, as nothing is known of others."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, new_md5).hexdigest()


def new_md5() -> Any:
    """For files that are data: nobody gains by making two of them equal."""
    return hashlib.md5(usedforsecurity=False)

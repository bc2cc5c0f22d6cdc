"""Fashion-MNIST: MNIST's shapes and files with articles of clothing.

H. Xiao, K. Rasul, R. Vollgraf 2017 (arXiv 1708.07747).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

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

# The sha256 of the compressed files.
COMPRESSED_SHA256 = {
    "train-images-idx3-ubyte": "08dc20ab1689590a0bcd66e874647b6ee8464e2d501b5a3f1f78831db19a3fdc",
    "train-labels-idx1-ubyte": "b0197879cbda89f3dc7b894f9fd52b858e68ea4182b6947c9d8c2b67e5f18dcc",
    "t10k-images-idx3-ubyte": "78dcbbfb5a27efaf1b6c1d616caca68560be8766c5bffcb2791df9273a534229",
    "t10k-labels-idx1-ubyte": "42bd18137a62d5998cdeae52bf3a0676ac6b706f5cf8439b47bb5b151ae3dccf",
}


def load(folder: Path) -> Dataset:
    """Read the four files in `folder`, each compressed (`.gz`) or not.

    Raises:
        UserError: see `mnist.load`; and when it is MNIST that the folder holds.
    """
    data = mnist.load(folder)
    if data.description == mnist.NAME:
        raise UserError(f"{folder} holds MNIST, not {NAME}", "give --dataset mnist")
    original = all(
        _sha256(folder / f"{stem}.gz") == known for stem, known in COMPRESSED_SHA256.items()
    )
    return replace(
        data,
        labels=LABELS,
        description=NAME if original else data.description,
        subject="Articles of clothing" if original else data.subject,
        attribution=ATTRIBUTION if original else "",
    )


def _sha256(path: Path) -> str:
    """Of the compressed file; nothing where there is none, as nothing is known of others."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

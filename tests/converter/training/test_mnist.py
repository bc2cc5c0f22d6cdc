"""The four files as a data set, and what is checked about them together."""

from __future__ import annotations

import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from converter.errors import UserError
from converter.training import idx, mnist
from converter.training.data import Dataset, pixels


@pytest.fixture
def folder(tmp_path: Path, subset: Path) -> Path:
    """A copy of the subset that a test may damage."""
    for stem in mnist.SHA256:
        shutil.copy(subset / f"{stem}.gz", tmp_path)
    return tmp_path


def overwrite(folder: Path, stem: str, values: npt.NDArray[np.float64]) -> None:
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    content = struct.pack(">HBB", 0, 8, values.ndim) + sizes + values.astype(np.uint8).tobytes()
    (folder / f"{stem}.gz").write_bytes(gzip.compress(content))


def test_the_subset_is_a_hundred_and_fifty_of_each_digit(data: Dataset) -> None:
    assert data.train.images.shape == (1000, 1, 28, 28)
    assert data.train.images.dtype == torch.uint8
    assert data.train.labels.bincount().tolist() == [100] * 10
    assert data.test.images.shape == (500, 1, 28, 28)
    assert data.test.labels.dtype == torch.int64
    assert data.test.labels.bincount().tolist() == [50] * 10


def test_only_the_original_bytes_may_be_called_mnist(
    subset: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data.description == "1000 training and 500 test images in MNIST's format"
    assert data.attribution == ""
    found = {
        stem: idx.read(mnist.find(subset, stem), 3 if "idx3" in stem else 1).sha256
        for stem in mnist.SHA256
    }
    monkeypatch.setattr(mnist, "SHA256", found)
    renamed = mnist.load(subset)
    assert renamed.description == "MNIST"
    assert "LeCun" in renamed.attribution


def test_pixels_are_scaled_as_the_manifest_says(data: Dataset) -> None:
    p = mnist.PREPROCESSING
    assert (p.layout, p.channels, p.height, p.width) == ("CHW", "L", 28, 28)
    x = pixels(data.test.images)
    assert x.dtype == torch.float32
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)
    as_the_service = (data.test.images.numpy().astype(np.float32) * p.scale - p.mean[0]) / p.std[0]
    assert np.array_equal(x.numpy(), as_the_service)


def test_uncompressed_files_are_found_too(folder: Path) -> None:
    for stem in mnist.SHA256:
        packed = folder / f"{stem}.gz"
        (folder / stem).write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    assert len(mnist.load(folder).train) == 1000


def test_a_missing_file_is_named_with_what_is_expected(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match="holds neither t10k-labels-idx1-ubyte") as raised:
        mnist.load(folder)
    assert "train-images-idx3-ubyte[.gz]" in raised.value.hint


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        mnist.load(tmp_path / "absent")


def test_labels_for_other_images_are_refused(folder: Path) -> None:
    overwrite(folder, "train-labels-idx1-ubyte", np.zeros(999))
    with pytest.raises(UserError, match="1000 train images and 999 labels"):
        mnist.load(folder)


def test_no_images_at_all_are_refused(folder: Path) -> None:
    overwrite(folder, "t10k-images-idx3-ubyte", np.zeros((0, 28, 28)))
    overwrite(folder, "t10k-labels-idx1-ubyte", np.zeros(0))
    with pytest.raises(UserError, match="0 t10k images and 0 labels"):
        mnist.load(folder)


def test_images_of_another_size_are_refused(folder: Path) -> None:
    overwrite(folder, "train-images-idx3-ubyte", np.zeros((1000, 32, 28)))
    with pytest.raises(UserError, match="are 32 by 28, not 28 by 28"):
        mnist.load(folder)


def test_a_label_that_is_no_digit_is_refused(folder: Path) -> None:
    overwrite(folder, "train-labels-idx1-ubyte", np.full(1000, 10))
    with pytest.raises(UserError, match=r"label in .* is 10, not a digit"):
        mnist.load(folder)

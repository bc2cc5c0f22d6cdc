"""Fixtures of the tests that train: the committed subset of MNIST, and one thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from converter.training import mnist
from converter.training.data import Dataset


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads gain nothing on steps this small, and wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def subset() -> Path:
    """The folder with 1,000 training and 500 test images."""
    return Path(__file__).parent / "data" / "mnist"


@pytest.fixture(scope="session")
def data(subset: Path) -> Dataset:
    return mnist.load(subset)

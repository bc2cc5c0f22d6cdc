"""The committed subset of MNIST, and the options of a training that takes a second or two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from converter.training import TrainOptions, mnist
from converter.training.data import Dataset

ROOT = Path(__file__).parents[3]


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
    return ROOT / "tests" / "data" / "mnist"


@pytest.fixture(scope="session")
def data(subset: Path) -> Dataset:
    return mnist.load(subset)


@pytest.fixture(scope="session")
def shipped() -> Path:
    """The checkpoint that ships with the project."""
    return ROOT / "models" / "mnist" / "checkpoint.pt"


@pytest.fixture
def quick(tmp_path: Path, subset: Path) -> Callable[..., TrainOptions]:
    """Options of one epoch on the subset with a narrow network; override any by keyword."""

    def options(**changes: Any) -> TrainOptions:
        chosen: dict[str, Any] = {
            "arch_args": {"width": 4, "hidden": 32},
            "data_dir": subset,
            "output": tmp_path / "out" / "checkpoint.pt",
            "epochs": 1,
            "batch_size": 50,
            "seed": 7,
            "device": "cpu",
            "threads": 1,
        }
        return TrainOptions(**(chosen | changes))

    return options

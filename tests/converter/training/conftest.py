"""The committed subset of MNIST, and the options of a training that takes a second or two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converter.training import TrainOptions
from tests.mnist_subset import data, one_thread, subset

__all__ = ["data", "one_thread", "subset"]

ROOT = Path(__file__).parents[3]


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

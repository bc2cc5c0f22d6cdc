"""A network that knows the digits 0 to 4, a little, to learn others from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from converter import architectures
from converter.architectures.modules import weights_of
from converter.finetuning.subset import only_classes
from converter.sources import checkpoint
from converter.training import mnist
from converter.training.data import Dataset
from converter.training.loop import fit
from converter.training.options import FitOptions
from tests.mnist_subset import one_thread, subset

__all__ = ["one_thread", "subset"]

ARGUMENTS = {"width": 2, "hidden": 16, "classes": 5}


@pytest.fixture(scope="session")
def new_task(subset: Path) -> Dataset:
    return only_classes(mnist.load(subset), ["5", "6", "7", "8", "9"])


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, subset: Path) -> Path:
    """A checkpoint of `cnn`, three batch-norms, trained for an epoch on 0 to 4."""
    data = only_classes(mnist.load(subset), ["0", "1", "2", "3", "4"])
    torch.manual_seed(0)
    module = architectures.build("cnn", **ARGUMENTS)
    fit(module, data, FitOptions(epochs=1, batch_size=50, augment=False))
    content = checkpoint.Checkpoint(
        architecture="cnn",
        arguments=ARGUMENTS,
        state_dict=weights_of(module),
        input_shape=[1, 28, 28],
        labels=data.labels,
        preprocessing=mnist.PREPROCESSING.model_dump(),
        metrics={}, description="Digits.", seed=0, epochs=1, batch_size=50, lr=0.01, threads=1,
        statistics=checkpoint.statistics_of(module), torch=str(torch.__version__),
        dataset=data.description, attribution="",
    )  # fmt: skip
    path = tmp_path_factory.mktemp("base") / "base.pt"
    path.write_bytes(checkpoint.to_bytes(content))
    return path

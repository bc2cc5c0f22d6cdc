"""Layerwise statistics are exact in every network of the table: another pass finds them again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from converter import architectures
from converter.statistics import recalibrate
from converter.statistics.norms import find
from converter.training import mnist
from converter.training.data import pixels

pytestmark = pytest.mark.slow

SUBSET = Path(__file__).parents[3] / "tests" / "data" / "mnist"


@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_another_pass_finds_what_is_stored(name: str) -> None:
    torch.manual_seed(0)
    module = architectures.build(name)
    images = pixels(mnist.load(SUBSET).train.images[:24])
    found = recalibrate(module, lambda: iter(images.split(10)))
    assert {row.name for row in found.rows} == set(find(module).tracked)
    assert found.residual < 1e-5

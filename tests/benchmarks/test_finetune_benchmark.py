"""The table of docs/finetune.md, from lines that are made up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import finetune as benchmark
from benchmarks.finetune import WAYS, Line, made
from converter import architectures
from converter.architectures.modules import weights_of
from converter.finetuning.finetune import Base, Transfer, finetune
from converter.finetuning.subset import first, only_classes
from converter.training import mnist
from converter.training.evaluate import accuracy


def test_a_row_for_each_way_with_the_spread_over_seeds() -> None:
    line = Line("not frozen", 4, 0, 0.9, 0.95, 0.5, 1.25, 0.5, 2.0, (3, 0, True))
    lines = [line, replace(line, seed=1, accuracy=0.8, max_shift=2.5, folded=None)]
    text = made(lines, [0.99, 0.97], 2, (1, 2), 100)
    row = next(part for part in text.splitlines() if part.startswith("| 4 | not frozen"))
    assert "85.00% ± 7.07" in row
    assert "2.50" in row
    assert "0.5 to 2" in row
    assert "frozen statistics" in WAYS
    assert "frozen statistics" not in text  # no line was measured for it
    assert "3 batch-norms became 0, proven" in text
    assert "(test accuracy 98.00% ± 1.41)" in text


@pytest.mark.parametrize("hidden", [0, 4])
def test_the_old_head_is_put_back_on_the_new_network(hidden: int) -> None:
    """With nothing but the head learning, and frozen statistics, it is the old network again."""
    whole = mnist.load(benchmark.HERE / "tests" / "data" / "mnist")
    old = only_classes(whole, benchmark.OLD)
    new = first(only_classes(whole, benchmark.NEW), 40, 0)
    torch.manual_seed(0)
    base = architectures.build(benchmark.ARCHITECTURE, **benchmark.ARGUMENTS).eval()
    start = Base(benchmark.ARCHITECTURE, benchmark.ARGUMENTS, (), weights_of(base))
    how = Transfer(
        only_head=True, hidden=hidden, epochs=1, batch_size=20, lr=0.1, threads=1, device="cpu"
    )
    known = accuracy(base, old.test.images, old.test.labels)
    assert benchmark._old_task(base, old, finetune(start, new, how)) == known

"""Folded graphs with one thing changed: what is certified all the same computes the same.

`python -m benchmarks.certificate` tries many more, of small networks and random graphs, too.
"""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.judged import outcome
from benchmarks.populations import pair
from patterns.suite import REGISTRY

MUTANTS = 60
NAMES = (
    "conv_relu_bn_padded_conv",
    "residual_around_a_conv",
    "dilated_branch",
    "dead_channels",
    "bn_outside_convs_inside_of_an_if",
    "conv_pixel_shuffle_bn",
    "embedding_bn",
    "batched_matmul_bn",
)


@pytest.mark.parametrize("name", NAMES)
def test_no_mutant_is_certified_that_computes_something_else(name: str) -> None:
    graphs = pair(REGISTRY[name], "mixed")
    counts: Counter[str] = Counter()
    for seed in range(MUTANTS):
        found, told = outcome(graphs, seed)
        assert found != "wrong", told
        counts[found] += 1
    assert counts["refused"] >= MUTANTS // 3, counts

"""Every pattern that is folded is certified, from the normalized graph and from the user's."""

from __future__ import annotations

import pytest

from converter.certificate import Certified, certify
from converter.evaluation.normalize import normalize
from converter.folding import FoldOptions, fold_graph
from patterns.registry import VARIANTS, Module, Pattern
from patterns.suite import PATTERNS

pytestmark = pytest.mark.slow

CASES = [
    pytest.param(pattern, variant, id=f"{pattern.family}-{pattern.name}-{variant}")
    for pattern in PATTERNS
    for variant in VARIANTS
]
# Not certified, and why.
NEVER = {
    "flatten_of_unknown_sizes_stays": "the sizes that are tried do not fit to its Gemm",
}


@pytest.mark.parametrize(("pattern", "variant"), CASES)
def test_a_folded_pattern_is_certified(pattern: Pattern, variant: str) -> None:
    model = pattern.model(variant, "float32")
    before = normalize(model)
    after = fold_graph(before, FoldOptions(through_relu=pattern.through_relu)).model
    for original in (before, model):
        found = certify(original, after)
        if pattern.name in NEVER:
            assert not isinstance(found, Certified)
            continue
        assert isinstance(found, Certified), str(found)
        assert found.largest_move <= 3.0


@pytest.mark.parametrize(
    "pattern",
    [pattern for pattern in PATTERNS if not isinstance(pattern, Module)],
    ids=lambda pattern: f"{pattern.family}-{pattern.name}",
)
def test_a_folded_pattern_in_float64_is_certified(pattern: Pattern) -> None:
    """The checker calculates in float64, too, so it allows these a few roundings of its own."""
    model = pattern.model("mixed", "float64")
    after = fold_graph(normalize(model), FoldOptions(through_relu=pattern.through_relu)).model
    found = certify(model, after)
    if pattern.name in NEVER:
        assert not isinstance(found, Certified)
    else:
        assert isinstance(found, Certified), str(found)

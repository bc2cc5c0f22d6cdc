"""Every pattern, in both variants: what folds, what stays and why, and that nothing changed."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converter.evaluation.normalize import normalize
from converter.folding import FoldOptions, Refusal, Route, fold_graph
from converter.proof import Oracle
from patterns.graphs import (
    assert_equal,
    count,
    distance,
    feeds,
    ort_run,
    signature,
)
from patterns.registry import VARIANTS, Module, Pattern, single
from patterns.standing import standing
from patterns.suite import PATTERNS

CASES = [
    pytest.param(
        pattern,
        variant,
        id=f"{pattern.family}-{pattern.name}-{variant}",
        marks=[pytest.mark.slow] if variant == "positive" else [],  # the harder one is always run
    )
    for pattern in PATTERNS
    for variant in VARIANTS
]


@pytest.mark.parametrize(("pattern", "variant"), CASES)
def test_pattern(pattern: Pattern, variant: str) -> None:
    model = pattern.model(variant)
    before = normalize(model)
    folded = fold_graph(before, FoldOptions(through_relu=pattern.through_relu))
    after, kept = folded.model, folded.plan.kept
    why = [f"{d.site.name}: {d.outcome}" for d in kept]

    assert standing(after) - pattern.plain == pattern.remaining(variant), why
    for decision in kept:
        assert codes(decision.outcome) & pattern.reason, why
    if pattern.becomes:
        assert " ".join(node.op_type for node in after.graph) == pattern.becomes
    for op in pattern.keeps:
        assert count(after, op) == count(before, op) > 0, op

    assert signature(after) == signature(before)
    assert count(after) <= count(before)
    if not pattern.grows:
        assert size(after) <= size(before)

    assert_equal(model, after, rtol=pattern.rtol)
    in_onnxruntime(before, after, pattern)


def codes(outcome: Refusal | Route) -> set[str]:
    """Of a refusal, and of what stood in the other way; of what stopped the half that stays."""
    why = outcome.because if isinstance(outcome, Route) else outcome
    assert isinstance(why, Refusal)
    assert str(why)
    return {why.code, *(codes(why.behind) if why.behind else ())}


def in_onnxruntime(before: ir.Model, after: ir.Model, pattern: Pattern) -> None:
    """The folded graph in float32 gives what the un-folded one gives."""
    one, other = single(before), single(after)
    given = feeds(one)
    if any(array.dtype.name == "bfloat16" for array in given.values()):
        return  # onnxruntime has no kernels for it on a CPU
    for expected, found in zip(ort_run(one, given), ort_run(other, given), strict=True):
        assert np.isfinite(expected.astype(float)).all()
        assert distance(expected, found) <= max(2e-4, 4 * pattern.rtol)


def size(model: ir.Model) -> int:
    """Numbers that the graph carries as weights."""
    return sum(
        value.const_value.size
        for graph in (model.graph, *model.graph.subgraphs())
        for value in graph.initializers.values()
        if value.const_value is not None and value.dtype and value.dtype.is_floating_point()
    )


@pytest.mark.parametrize(
    "pattern", [p for p in PATTERNS if isinstance(p, Module)], ids=lambda p: p.name
)
def test_the_folded_module_gives_what_torch_gives(pattern: Module) -> None:
    """From end to end: module, export, fold; against torch's own float64."""
    model, reference = pattern.exported
    assert reference is not None
    after = fold_graph(normalize(model), FoldOptions(through_relu=pattern.through_relu)).model
    found = Oracle(after).run(reference.inputs)
    for name, expected in reference.outputs.items():
        assert distance(expected, found[name]) <= 1e-7  # exporters round constants


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if p.through_relu], ids=lambda p: p.name)
def test_a_relu_is_replaced_only_when_asked_to(pattern: Pattern) -> None:
    """Runtimes fuse a Relu with what stands before it, and a maximum they do not."""
    before = normalize(pattern.model("mixed"))
    after = fold_graph(before).model
    assert standing(after) > pattern.plain + pattern.left_mixed
    assert count(after, "Max") + count(after, "Min") == 0
    assert_equal(before, after)


def test_there_are_enough() -> None:
    assert len(PATTERNS) >= 120
    assert sum(isinstance(p, Module) for p in PATTERNS) >= 40

"""On random graphs a fold is never wrong, never dearer, and touches nothing but its copy."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import event, given

from converter.evaluation.normalize import normalize
from converter.folding import Refusal, fold_graph
from patterns.graphs import (
    assert_equal,
    batchnorms,
    count,
    distance,
    feeds,
    float32,
    ort_run,
    signature,
)
from tests.converter.folding.random_graphs import models

pytestmark = pytest.mark.slow


def content(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


@given(models())
def test_never_wrong(model: ir.Model) -> None:
    given_bytes = content(model)
    normalized = normalize(model)
    assert content(model) == given_bytes
    assert [v.name for v in normalized.graph.outputs] == [v.name for v in model.graph.outputs]
    before = content(normalized)
    folded = fold_graph(normalized)
    after = folded.model
    event(f"{len(folded.plan.folded)} folded, {len(folded.plan.kept)} kept")
    assert content(normalized) == before
    assert signature(after) == signature(normalized)
    assert count(after) <= count(normalized)
    nodes = [decision.site.nodes[0].op_type for decision in folded.plan.kept]
    assert batchnorms(after) == nodes.count("BatchNormalization")
    for seed in (1, 2):
        assert_equal(model, normalized, rtol=1e-12, seed=seed)
        assert_equal(model, after, seed=seed)


@given(models())
def test_folding_again_folds_nothing(model: ir.Model) -> None:
    after = fold_graph(normalize(model)).model
    again = fold_graph(normalize(after))
    assert again.plan.folded == ()
    assert content(fold_graph(after).model) == content(after)
    for decision in again.plan.kept:
        assert isinstance(decision.outcome, Refusal)
        assert decision.outcome.sentence


@given(models())
def test_what_is_folded_runs_in_onnxruntime(model: ir.Model) -> None:
    """The same weights in float32: the graph is whole and gives the same."""
    single = float32(model)
    after = fold_graph(normalize(single)).model
    given_feeds = feeds(single)
    for one, other in zip(ort_run(single, given_feeds), ort_run(after, given_feeds), strict=True):
        assert np.isfinite(one.astype(float)).all()
        assert distance(one, other) < 1e-3

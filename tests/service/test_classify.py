"""Labels and probabilities from scores."""

from __future__ import annotations

import numpy as np
import pytest

from service.manifest import Classification
from service.models.classify import predictions, probabilities

LABELS = ["ant", "bee", "cat"]


def how(activation: str) -> Classification:
    return Classification.model_validate(
        {"output": "s", "labels": LABELS, "activation": activation}
    )


def test_softmax_matches_its_definition():
    scores = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], np.float32)
    e = np.exp(scores.astype(np.float64))
    expected = e / e.sum(axis=1, keepdims=True)
    got = probabilities(scores, "softmax")
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, rtol=1e-15)


def test_softmax_of_huge_logits_does_not_overflow():
    got = probabilities(np.array([[3e38, -3e38, 0]], np.float32), "softmax")
    np.testing.assert_array_equal(got, [[1, 0, 0]])
    half = probabilities(np.array([[65504, 65504, -65504]], np.float16), "softmax")
    np.testing.assert_array_equal(half, [[0.5, 0.5, 0]])


def test_exp_and_none():
    chances = np.array([[0.25, 0.5, 0.25]])
    np.testing.assert_allclose(probabilities(np.log(chances), "exp"), chances, rtol=1e-15)
    np.testing.assert_array_equal(probabilities(chances, "none"), chances)


@pytest.mark.parametrize("activation", ["softmax", "exp", "none"])
def test_one_prediction_for_each_row(activation: str):
    scores = np.log(np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]]))
    if activation == "none":
        scores = np.exp(scores)
    got = predictions(scores, how(activation))
    assert [(p["label"], p["index"]) for p in got] == [("bee", 1), ("ant", 0)]
    assert [p["probability"] for p in got] == pytest.approx([0.7, 0.5])


def test_a_ruled_out_class_is_fine_and_a_broken_row_is_null():
    inf = np.inf
    scores = np.array([[-inf, 1, 1], [np.nan, 9, 0], [inf, 0, 0], [-inf, -inf, -inf]], np.float32)
    first, *broken = predictions(scores, how("softmax"))
    assert first == {"label": "bee", "probability": 0.5, "index": 1}
    assert broken == [{"label": None, "probability": None, "index": None}] * 3


def test_no_rows():
    assert predictions(np.zeros((0, 3), np.float32), how("none")) == []


@pytest.mark.parametrize("activation", ["softmax", "exp", "none"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_row_alone_gets_what_it_gets_among_others(activation: str, dtype: type):
    random = np.random.default_rng(0)
    scores = random.standard_normal((50, 3)).astype(dtype)
    scores[0] = [2, 5, 5]
    scores[1] = [-np.inf, 0, 1]
    scores[2] = [np.nan, 0, 1]
    scores[3] = np.finfo(dtype).max
    together = predictions(scores, how(activation))
    for row, expected in zip(scores, together, strict=True):
        (alone,) = predictions(row[None], how(activation))
        assert (alone["label"], alone["index"]) == (expected["label"], expected["index"])
        chance = expected["probability"]
        assert alone["probability"] == (chance and pytest.approx(chance, rel=1e-14))

"""What `--if-changed` takes for the same model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from converter.publishing.sameness import same_model

CERTIFIED = {"certified": True, "sentence": "Certified.", "checker": "a" * 64, "figures": {"k": 3}}
NOT = {"certified": False, "sentence": "Not certified.", "checker": "a" * 64}
BASE: dict[str, Any] = {
    "name": "net",
    "version": 1,
    "files": {"model.onnx": {"sha256": "1" * 64, "bytes": 3}},
    "provenance": {"source": "net.pt", "certificate": CERTIFIED},
}


def manifest(certificate: Any = CERTIFIED, **changes: Any) -> bytes:
    provenance = {"source": "net.pt"} | (
        {} if certificate is None else {"certificate": certificate}
    )
    return json.dumps(BASE | {"provenance": provenance} | changes).encode()


def test_the_same() -> None:
    assert same_model(manifest(), manifest())
    assert same_model(manifest(serving={"runners": 2}), manifest()), "the operator's"
    assert not same_model(manifest(version=2), manifest())
    assert same_model(manifest(version=2), manifest(), version=False)


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"model.onnx": {"sha256": "2" * 64, "bytes": 3}}},
        {"name": "other"},
        {"metrics": {"accuracy": 1.0}},
        {"provenance": {"source": "other.pt", "certificate": CERTIFIED}},
        {"provenance": []},
    ],
)
def test_whatever_else_differs_makes_another(change: dict[str, Any]) -> None:
    assert not same_model(manifest(**change), manifest())
    assert not same_model(manifest(), manifest(**change))


@pytest.mark.parametrize(
    ("there", "mine", "same"),
    [
        (CERTIFIED, {**CERTIFIED, "checker": "b" * 64}, True),
        (CERTIFIED, {**CERTIFIED, "sentence": "In other words.", "figures": {"k": 2}}, True),
        (NOT, {**NOT, "checker": "b" * 64, "sentence": "For another reason."}, True),
        (None, NOT, True),
        (None, CERTIFIED, False),
        (NOT, CERTIFIED, False),
        ({"certified": "true"}, CERTIFIED, False),
        ("text", CERTIFIED, False),
        (CERTIFIED, NOT, True),
        (CERTIFIED, None, True),
    ],
)
def test_only_a_certificate_that_is_new_counts(there: Any, mine: Any, *, same: bool) -> None:
    """Not the checker's version, its words or its figures."""
    assert same_model(manifest(there), manifest(mine)) is same


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe"])
def test_what_cannot_be_read_is_not_the_same(damaged: bytes) -> None:
    assert not same_model(damaged, manifest())

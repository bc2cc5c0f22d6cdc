"""The ServingRuntime and the InferenceService are what KServe's published package describes."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.deploy.kserve_schemas import Schemas, find_wheel

KSERVE = Path(__file__).parents[2] / "deploy" / "kserve"
NAMES = ["servingruntime.yaml", "inferenceservice.yaml"]


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    wheel = find_wheel()
    if wheel is None:
        assert not os.environ.get("ALL_TOOLS_REQUIRED"), "no wheel of kserve"
        pytest.skip("no wheel of kserve (pip download --no-deps kserve)")
    return Schemas(wheel)


def document(name: str) -> dict[str, Any]:
    (found,) = yaml.safe_load_all((KSERVE / name).read_text())
    return found


def test_every_file_is_tested() -> None:
    assert {path.name for path in KSERVE.iterdir()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_valid(schemas: Schemas, name: str) -> None:
    schemas.validate(document(name))


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("servingruntime.yaml", "spec.protocolVersion", ["v2"]),  # a letter is missing
        ("servingruntime.yaml", "spec.multiModel", "no"),
        ("servingruntime.yaml", "spec.containers", None),
        ("servingruntime.yaml", "spec.containers.0.readynessProbe", {}),
        ("servingruntime.yaml", "spec.containers.0.ports.0.containerPort", "http"),
        ("servingruntime.yaml", "spec.supportedModelFormats.0.autoselect", True),
        ("inferenceservice.yaml", "spec.predictor", None),
        ("inferenceservice.yaml", "spec.predictor.model.storageURI", "pvc://x"),
        ("inferenceservice.yaml", "spec.predictor.model.modelFormat.version", 1),
        ("inferenceservice.yaml", "spec.predictor.minReplica", 1),
        ("inferenceservice.yaml", "spec.predictor.scaleTarget", "32"),
    ],
)
def test_mistakes_are_caught(schemas: Schemas, name: str, path: str, value: Any) -> None:
    broken = copy.deepcopy(document(name))
    *way, last = path.split(".")
    at: Any = broken
    for key in way:
        at = at[int(key) if key.isdigit() else key]
    if value is None:
        del at[last]
    else:
        at[last] = value
    with pytest.raises(jsonschema.ValidationError):
        schemas.validate(broken)

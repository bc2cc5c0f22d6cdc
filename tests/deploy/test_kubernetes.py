"""The manifests are valid against the published schemas, and agree with the service itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import Settings
from service.settings_read import parse

DEPLOY = Path(__file__).parents[2] / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
KUBERNETES = "1.31"


def documents(path: Path) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all(path.read_text()) if d is not None]


def resources(folder: Path) -> Iterator[dict[str, Any]]:
    (kustomization,) = documents(folder / "kustomization.yaml")
    for name in kustomization["resources"]:
        path = folder / name
        yield from resources(path.resolve()) if path.is_dir() else documents(path)


def built(folder: Path) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    kustomize = shutil.which("kustomize")
    if kustomize is None:
        pytest.skip("kustomize is not installed")
    done = subprocess.run(
        [kustomize, "build", folder], capture_output=True, text=True, check=True, timeout=60
    )
    return list(yaml.safe_load_all(done.stdout))


def one(kind: str, among: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [d for d in among if d["kind"] == kind]
    return found


@pytest.fixture
def base() -> list[dict[str, Any]]:
    return list(resources(BASE))


@pytest.fixture
def container(base: list[dict[str, Any]]) -> dict[str, Any]:
    (container,) = one("Deployment", base)["spec"]["template"]["spec"]["containers"]
    return container


def test_every_file_is_a_resource() -> None:
    (kustomization,) = documents(BASE / "kustomization.yaml")
    files = {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(kustomization["resources"])


def test_each_is_valid(base: list[dict[str, Any]]) -> None:
    assert {d["kind"] for d in base} == {
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "PersistentVolumeClaim",
    }
    for document in base:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_the_schemas_catch_mistakes(base: list[dict[str, Any]]) -> None:
    deployment = one("Deployment", base)
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)


@pytest.mark.parametrize("overlay", ["base", "gpu"])
def test_what_kustomize_makes_is_valid(overlay: str) -> None:
    documents = built(DEPLOY / "kubernetes" / overlay)
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    spec = one("Deployment", documents)["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    labels = spec["template"]["metadata"]["labels"]
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
        chosen = one(kind, documents)["spec"]
        selector = chosen.get("podSelector") or chosen["selector"]
        assert (selector.get("matchLabels") or selector).items() <= labels.items()
    env = {e["name"]: e["value"] for e in container["env"]}
    gpus = container["resources"]["limits"].get("nvidia.com/gpu")
    assert (gpus, env.get("FOLDSERVE_DEVICE")) == (
        ("1", "cuda") if overlay == "gpu" else (None,) * 2
    )


@pytest.fixture
def settings(container: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the service makes of the container's environment; a SettingsError if it cannot."""
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    return parse([], os.environ)


def test_settings_are_the_services_own(settings: Settings) -> None:
    assert settings.log_format == "json"


def test_nobody_is_killed_while_it_drains(base: list[dict[str, Any]], settings: Settings) -> None:
    pod = one("Deployment", base)["spec"]["template"]["spec"]
    drain_s = (settings.drain_delay_ms + settings.drain_timeout_ms) / 1000
    assert pod["terminationGracePeriodSeconds"] >= drain_s + 5
    # The endpoints forget a pod within a few seconds of its deletion.
    assert settings.drain_delay_ms >= 2000


def test_it_may_do_nothing_but_serve(base: list[dict[str, Any]], container: dict[str, Any]) -> None:
    pod = one("Deployment", base)["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert one("NetworkPolicy", base)["spec"]["egress"] == []


def test_kserve_starts_it_with_flags_that_it_has() -> None:
    (runtime,) = documents(DEPLOY / "kserve" / "servingruntime.yaml")
    (container,) = runtime["spec"]["containers"]
    settings = parse(container["args"], {})
    assert settings.models == Path("/mnt/models")  # where KServe puts what it has fetched
    (port,) = container["ports"]
    assert settings.port == port["containerPort"] == container["readinessProbe"]["httpGet"]["port"]
    (service,) = documents(DEPLOY / "kserve" / "inferenceservice.yaml")
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in {
        f["name"] for f in runtime["spec"]["supportedModelFormats"]
    }
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]

"""Health, models, documentation and the errors of the framework, on a real server."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
import repository
from repository import linear, publish
from test_predict_route import refused

GET_ROUTES = [
    "/", "/health/live", "/health/ready", "/models", "/models/animals",
    "/models/animals/versions/1",
]  # fmt: skip


def test_index(client: httpx.Client):
    body = client.get("/").json()
    assert body["docs"] == "/docs"
    assert "/predict" in body["predict"]
    for path in (body["docs"], body["openapi"], body["models"], *body["health"]):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("path", [*GET_ROUTES])
def test_head_is_get_without_the_body(client: httpx.Client, path: str):
    head, get = client.head(path), client.get(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize("path", ["/nope", "/nope/", "/models/a/b/c", "/models/a/b/c/", "/%00%ff"])
def test_unknown_routes(client: httpx.Client, path: str):
    refused(client.get(path), 404, "not_found")


def test_a_long_unknown_path_is_cut(client: httpx.Client):
    assert len(client.get("/" + "a" * 5000).text) < 500


@pytest.mark.parametrize("path", GET_ROUTES)
def test_wrong_methods(client: httpx.Client, path: str):
    response = client.post(path, json={})
    refused(response, 405, "method_not_allowed")
    assert "GET" in response.headers["allow"]


def test_ready_tells_what_is_served(client: httpx.Client, zoo: Path):
    body = client.get("/health/ready").json()
    assert body["status"] == "ready"
    assert [m["name"] for m in body["models"]] == sorted(p.name for p in zoo.iterdir())
    assert {m["provider"] for m in body["models"]} == {"CPUExecutionProvider"}


def test_models(client: httpx.Client):
    body = client.get("/models").json()
    assert body["loading"] is False
    animals = next(m for m in body["models"] if m["name"] == "animals")
    assert animals == {
        "name": "animals",
        "state": "serving",
        "version": 1,
        "versions": [1],
        "provider": "CPUExecutionProvider",
        "self_tested": True,
        "certified": None,
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}],
        "outputs": [{"name": "scores", "dtype": "float32", "shape": ["batch", 3]}],
        "rejected": [],
        "older_versions": [],
    }
    one = client.get("/models/animals").json()
    assert animals.items() <= one.items()
    assert one["classification"]["labels"] == ["ant", "bee", "cat"]
    assert one["self_test_errors"]["scores"] < 1e-5
    refused(client.get("/models/nope"), 404, "unknown_model")


def test_openapi_describes_the_models_and_its_example_works(client: httpx.Client):
    document = client.get("/openapi.json").json()
    ours = {path for path in document["paths"] if not path.startswith(("/v1", "/v2"))}
    assert ours == {
        "/", "/health/live", "/health/ready", "/metrics", "/models", "/models/{name}", "/predict",
        "/models/{name}/predict", "/models/{name}/versions/{version}",
        "/models/{name}/versions/{version}/predict",
    }  # fmt: skip
    operation = document["paths"]["/models/{name}/predict"]["post"]
    assert "`x` float32 (batch, 4) → `scores` float32 (batch, 3)" in operation["description"]
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    assert set(examples) >= {"animals", "pair", "embedding", "not", "scalar"}
    for name, example in examples.items():
        response = client.post(f"/models/{name}/predict", json=example["value"])
        assert response.status_code == 200, (name, response.text)
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert set(schema["required"]) <= set(response.json()) <= set(schema["properties"])


def test_the_only_example_of_predict_is_the_default_model(client: httpx.Client):
    document = client.get("/openapi.json").json()
    body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert list(body["examples"]) == ["animals"]


def test_every_route_documents_the_one_error_shape(client: httpx.Client):
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            content = operation["responses"]["default"]["content"]["application/json"]
            shape = "OneTextError" if path.startswith(("/v1", "/v2")) else "Error"
            assert content["schema"] == {"$ref": f"#/components/schemas/{shape}"}, path
            assert "422" not in operation["responses"]
    assert document["components"]["schemas"]["Error"]["required"] == ["code", "message", "hint"]
    assert "HTTPValidationError" not in json.dumps(document)


def test_docs_is_a_page(client: httpx.Client):
    response = client.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert "openapi.json" in response.text


def test_an_empty_repository_is_live_and_not_ready(start, tmp_path: Path):
    served = start(tmp_path)
    with served.client() as client:
        assert client.get("/health/live").json() == {"status": "live"}
        body = refused(client.get("/health/ready"), 503, "not_ready")
        assert body["message"] == "The repository has no model."
        refused(client.post("/predict", json={"inputs": [[1]]}), 503, "model_unavailable")
        assert client.get("/models").json() == {"loading": False, "models": []}
        assert client.get("/openapi.json").status_code == 200
    assert "ready    NO: The repository has no model." in served.out
    assert served.stop() == 0


def test_broken_models_are_named_and_the_good_ones_serve(start, tmp_path: Path):
    publish(tmp_path, "good", linear(), 1)
    publish(tmp_path, "good", linear(), 2)
    (tmp_path / "good" / "2" / "model.onnx").write_bytes(b"other")
    publish(tmp_path, "bad", linear())
    (tmp_path / "bad" / "1" / "model.json").write_text("{}")
    served = start(tmp_path)
    with served.client() as client:
        assert client.get("/health/ready").status_code == 200
        good = client.get("/models/good").json()
        assert good["version"] == 1
        assert good["rejected"][0]["version"] == 2
        assert "model.onnx has 5 bytes" in good["rejected"][0]["reason"]
        bad = client.get("/models/bad").json()
        assert bad["state"] == "unavailable"
        assert "Field required" in bad["rejected"][0]["reason"]
        rows = {"inputs": [[1, 2, 3, 4]]}
        refused(client.post("/models/bad/predict", json=rows), 503, "model_unavailable")
        refused(client.post("/models/good/versions/2/predict", json=rows), 404, "unknown_version")
        assert client.post("/models/good/predict", json=rows).status_code == 200
        assert str(tmp_path) not in client.get("/models").text
    assert "BROKEN   bad: version 1:" in served.out
    assert "version 2 skipped:" in served.out
    assert served.stop() == 0


def test_only_broken_models_is_not_ready(start, tmp_path: Path):
    repository.bare(tmp_path, "bad", linear())
    (tmp_path / "bad" / "1" / "model.onnx").write_bytes(b"junk")
    served = start(tmp_path)
    with served.client() as client:
        body = refused(client.get("/health/ready"), 503, "not_ready")
        assert "'bad'" in body["message"]
    assert served.stop() == 0

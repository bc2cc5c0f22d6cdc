"""/openapi.json is valid OpenAPI, names every route, and its schemas describe real answers."""

from __future__ import annotations

from typing import Any

import httpx
import jsonschema
import openapi_spec_validator
import pytest

from service.protocols import tfs, v2


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    return client.get("/openapi.json").json()


def test_it_is_valid(document: dict[str, Any]):
    openapi_spec_validator.validate(document)
    ids = [op["operationId"] for ops in document["paths"].values() for op in ops.values()]
    assert len(set(ids)) == len(ids)


def test_it_has_every_route_of_the_protocols(document: dict[str, Any]):
    documented = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
        if path.startswith(("/v1", "/v2"))
    }
    routes = [*v2.routes(None).templates, *tfs.routes(None).templates]
    refused = {":classify", ":regress"}
    served = {
        (method, path)
        for method, path in routes
        if "{label}" not in path and not path.endswith(tuple(refused))
    }
    assert documented == served


def test_metrics_are_documented_as_text(document: dict[str, Any]):
    content = document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    assert list(content) == ["text/plain"]


X = [[1.0, 2.0, 3.0, 4.0]]
V2 = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": X}]}
EXCHANGES = [
    ("get", "/health/live", None),
    ("get", "/health/ready", None),
    ("get", "/models", None),
    ("get", "/models/{name}", None),
    ("get", "/models/{name}/versions/{version}", None),
    ("post", "/models/{name}/predict", {"inputs": X}),
    ("post", "/models/{name}/predict", {"inputs": [[1]]}),
    ("post", "/models/{name}/versions/{version}/predict", {"inputs": X}),
    ("get", "/v2", None),
    ("get", "/v2/health/live", None),
    ("get", "/v2/health/ready", None),
    ("get", "/v2/models", None),
    ("get", "/v2/models/stats", None),
    ("get", "/v2/models/{name}/stats", None),
    ("get", "/v2/models/{name}/config", None),
    ("get", "/v1/models", None),
    ("get", "/v2/models/{name}", None),
    ("get", "/v2/models/{name}/ready", None),
    ("get", "/v2/models/{name}/versions/{version}", None),
    ("post", "/v2/models/{name}/infer", V2),
    ("post", "/v2/models/{name}/infer", {"inputs": []}),
    ("post", "/v2/models/{name}/versions/{version}/infer", V2),
    ("post", "/v2/repository/index", {}),
    ("post", "/v2/repository/models/{name}/load", {}),
    ("get", "/v1/models/{name}", None),
    ("get", "/v1/models/{name}/metadata", None),
    ("post", "/v1/models/{name}:predict", {"instances": X}),
    ("post", "/v1/models/{name}:predict", {"inputs": X}),
    ("post", "/v1/models/{name}/versions/{version}:predict", {"inputs": 1}),
]


@pytest.mark.parametrize(("method", "path", "body"), EXCHANGES)
def test_requests_and_answers_have_the_schemas_given(
    client: httpx.Client, document: dict[str, Any], method: str, path: str, body: Any
):
    operation = document["paths"][path][method]
    url = path.replace("{name}", "animals").replace("{version}", "1")
    answer = client.request(method, url, json=body)
    if body is not None and answer.status_code == 200:
        check(document, operation["requestBody"]["content"], body)
    described = operation["responses"]["200" if answer.status_code == 200 else "default"]
    check(document, described["content"], answer.json())


def test_every_example_can_be_sent(client: httpx.Client, document: dict[str, Any]):
    sent = 0
    for path, operations in document["paths"].items():
        body = operations.get("post", {}).get("requestBody", {}).get("content", {})
        for name, example in body.get("application/json", {}).get("examples", {}).items():
            url = path.replace("{name}", name).replace("{version}", "1")
            check(document, body, example["value"])
            answer = client.post(url, json=example["value"])
            assert answer.status_code == 200, (url, answer.text)
            sent += 1
    models = client.get("/models").json()["models"]
    assert sent >= 6 * (len(models) - 1)


def check(document: dict[str, Any], content: dict[str, Any], instance: Any) -> None:
    schema = {
        **content["application/json"]["schema"],
        "components": document["components"],
    }
    jsonschema.Draft202012Validator(schema).validate(instance)

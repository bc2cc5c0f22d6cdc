"""What clients of KServe and Triton do by habit: slashes at the end, lists of names, readiness."""

from __future__ import annotations

from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import repository
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from test_v2_grpc import address, given, typed
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "path",
    [
        "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/animals",
        "/v2/models/animals/ready", "/v2/models/animals/versions/1", "/v1/models",
        "/v1/models/animals", "/v1/models/animals/metadata", "/models", "/models/animals",
        "/models/animals/versions/1", "/health/live", "/health/ready",
    ],
)  # fmt: skip
def test_a_slash_at_the_end_changes_nothing(client: httpx.Client, path: str):
    plain, slash = client.get(path), client.get(f"{path}/")
    assert (slash.status_code, slash.content) == (plain.status_code, plain.content)
    assert plain.status_code == 200
    assert client.get(f"{path}//").status_code == 404


def test_predictions_may_end_in_a_slash_too(client: httpx.Client):
    v2 = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
    for path, body in (
        ("/v2/models/animals/infer", v2),
        ("/v1/models/animals:predict", {"instances": [[1, 2, 3, 4]]}),
        ("/predict", {"inputs": [[1, 2, 3, 4]]}),
        ("/models/animals/predict", {"inputs": [[1, 2, 3, 4]]}),
        ("/models/animals/versions/1/predict", {"inputs": [[1, 2, 3, 4]]}),
    ):
        plain, slash = client.post(path, json=body), client.post(f"{path}/", json=body)
        assert plain.status_code == 200
        assert slash.content == plain.content
        assert client.post(f"{path}//", json=body).status_code == 404
        assert client.get(f"{path}/").status_code == 405


def test_a_path_counts_as_the_same_with_a_slash(client: httpx.Client):
    assert client.get("/metrics/").status_code == 200
    for path in ("/models/animals/", "/predict/"):
        client.get(path)
    page = client.get("/metrics").text
    assert 'route="/models/{name}"' in page
    assert client.get("/docs/").status_code == 404  # its links are relative


def test_health_with_a_slash_needs_no_key_either(start, tmp_path: Path):
    repository.publish(tmp_path, "m", repository.linear())
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-sixteen-letters\n")
    with start(tmp_path, "--api-keys-file", str(keys)).client() as client:
        for path in ("/v2/health/live/", "/v2/health/ready/", "/health/live/", "/health/ready/"):
            assert client.get(path).status_code == 200
        for path in ("/v2/", "/v2/models/", "/v1/models", "/models/", "/metrics/"):
            assert client.get(path).status_code == 401


def test_names_and_life_as_kserve_tells_them(client: httpx.Client):
    assert client.get("/").json()["status"] == "alive"
    names = client.get("/v2/models").json()["models"]
    assert "animals" in names
    assert names == sorted(names)
    assert client.get("/v1/models").json()["models"] == names


@pytest.mark.parametrize(
    ("when", "ready", "said"), [("one", True, None), ("all", False, "No version of model 'bad'")]
)
def test_ready_with_one_model_or_only_with_all(start, tmp_path: Path, when, ready, said):
    repository.publish(tmp_path, "good", repository.linear())
    broken = tmp_path / "bad" / "1"
    broken.mkdir(parents=True)
    (broken / "model.onnx").write_bytes(b"no model")
    served = start(tmp_path, "--ready-when", when, "--grpc-port", "0")
    served.wait_for("  grpc ")
    with served.client() as client:
        assert client.get("/v1/models/good").json()["ready"] is True
        assert client.get("/v1/models/bad").json()["ready"] is False
        assert client.get("/v1/models/bad/versions/1").json()["ready"] is False
        for path in ("/v2/health/ready", "/health/ready"):
            answer = client.get(path)
            assert answer.status_code == (200 if ready else 503)
            if said:
                assert said in answer.text
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/models/good/ready").status_code == 200
        assert f"foldserve_ready {int(ready)}\n" in client.get("/metrics").text
    connected = triton_grpc.InferenceServerClient(address(served))
    assert connected.is_server_ready() is ready
    connected.close()


def test_an_unknown_model_is_told_as_triton_tells_it(start, zoo: Path):
    served = start(zoo, "--grpc-port", "0")
    over_grpc = triton_grpc.InferenceServerClient(address(served))
    over_http = triton_http.InferenceServerClient(served.url.removeprefix("http://"))
    x = np.zeros((1, 4), np.float32)
    entry = triton_http.InferInput("x", [1, 4], "FP32")
    entry.set_data_from_numpy(x)
    for client, tensor in ((over_grpc, given("x", x)), (over_http, entry)):
        with pytest.raises(InferenceServerException) as caught:
            client.infer("nope", [tensor])
        assert caught.value.message().startswith("Request for unknown model")
        with pytest.raises(InferenceServerException) as caught:
            client.infer("animals", [tensor], model_version="newest")
        wanted = "failed to get model version from specified version string 'newest'"
        assert wanted in caught.value.message()
        client.close()


def test_the_form_of_grpc_answers_is_a_setting(start, zoo: Path):
    """Typed contents are answered raw, as Triton does, or typed with --grpc-outputs mirror."""
    request = typed("double", "x", "FP64", [1, 2], fp64_contents=[1.5, -2.5])
    for form in ("raw", "mirror"):
        served = start(zoo, "--grpc-port", "0", "--grpc-outputs", form)
        connected = triton_grpc.InferenceServerClient(address(served))
        answer = connected._client_stub.ModelInfer(request)
        (output,) = answer.outputs
        if form == "raw":
            assert not output.HasField("contents")
            (data,) = answer.raw_output_contents
            assert np.frombuffer(data).tolist() == [-1.5, 2.5]
        else:
            assert not answer.raw_output_contents
            assert list(output.contents.fp64_contents) == [-1.5, 2.5]
        connected.close()


def test_classes_asked_for_in_typed_contents_come_raw(start, zoo: Path):
    request = typed("animals", "x", "FP32", [1, 4], fp32_contents=[1, 2, 3, 4])
    wanted = request.outputs.add(name="scores")
    wanted.parameters["classification"].int64_param = 2
    target = address(start(zoo, "--grpc-port", "0"))
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        answer = call(request)
    (data,) = answer.raw_output_contents
    assert data.count(b":") == 4  # two classes, each as value:index:label
    assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == ("BYTES", [1, 2])

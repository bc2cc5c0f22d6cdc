"""What the versions have done and how they are served, as Triton's clients ask for it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import repository
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from conftest import Served
from onnx import TensorProto
from test_v2_grpc import address, given
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.slow

PICTURE = {"height": 4, "width": 4, "channels": "RGB", "layout": "CHW"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("counted")
    for version in (1, 2):
        repository.publish(root, "m", repository.linear(), version=version, batch_invariant=True)
    repository.publish(root, "log", repository.elementwise("Log", TensorProto.FLOAT))
    repository.publish(root, "fixed", repository.linear(batch=2))
    return root


@pytest.fixture(scope="module")
def served(start, models: Path) -> Served:
    flags = ("--version-policy", "all", "--nan-policy", "error", "--queue-capacity-samples", "64")
    return start(models, "--grpc-port", "0", *flags)


@pytest.fixture(scope="module")
def over_http(served: Served) -> Iterator[triton_http.InferenceServerClient]:
    client = triton_http.InferenceServerClient(served.url.removeprefix("http://"))
    yield client
    client.close()


@pytest.fixture(scope="module")
def over_grpc(served: Served) -> Iterator[triton_grpc.InferenceServerClient]:
    client = triton_grpc.InferenceServerClient(address(served))
    yield client
    client.close()


def rows(count: int) -> triton_http.InferInput:
    entry = triton_http.InferInput("x", [count, 4], "FP32")
    entry.set_data_from_numpy(np.ones((count, 4), np.float32))
    return entry


def entry_of(client: triton_http.InferenceServerClient, version: str) -> dict:
    (entry,) = client.get_inference_statistics("m", version)["model_stats"]
    assert (entry["name"], entry["version"]) == ("m", version)
    return entry


def test_requests_rows_and_batches_are_counted(over_http, over_grpc, served: Served):
    before, other = entry_of(over_http, "2"), entry_of(over_http, "1")
    assert before["last_inference"] == 0
    began_ms = time.time() * 1000
    for count in (1, 3, 3):
        over_http.infer("m", [rows(count)])
    over_grpc.infer("m", [given("x", np.ones((5, 4), np.float32))])
    with served.client() as client:
        client.post("/models/m/predict", json={"inputs": [[1, 2, 3, 4]] * 2})
    after = entry_of(over_http, "2")
    assert after["inference_count"] == 1 + 3 + 3 + 5 + 2
    assert after["execution_count"] == 5
    assert began_ms - 1 <= after["last_inference"] <= time.time() * 1000
    sizes = {batch["batch_size"]: batch["compute_infer"] for batch in after["batch_stats"]}
    assert {size: each["count"] for size, each in sizes.items()} == {1: 1, 2: 1, 3: 2, 5: 1}
    assert all(each["ns"] > 0 for each in sizes.values())
    spans = after["inference_stats"]
    for name in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert spans[name]["count"] == 5, name
        assert spans[name]["ns"] > 0, name
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    assert sum(spans[name]["ns"] for name in parts) < spans["success"]["ns"]
    assert spans["fail"] == spans["cache_hit"] == {"count": 0, "ns": 0}
    assert entry_of(over_http, "1") == other
    over_http.infer("m", [rows(1)], model_version="1")
    assert entry_of(over_http, "1")["inference_count"] == 1
    assert entry_of(over_http, "2") == after


def test_failures_are_counted_apart(over_http):
    (before,) = over_http.get_inference_statistics("log")["model_stats"]
    entry = triton_http.InferInput("x", [1, 2], "FP32")
    entry.set_data_from_numpy(np.zeros((1, 2), np.float32))
    with pytest.raises(InferenceServerException, match="finite"):
        over_http.infer("log", [entry], outputs=[triton_http.InferRequestedOutput("y", False)])
    with pytest.raises(InferenceServerException):
        over_http.infer("log", [rows(1)])
    (after,) = over_http.get_inference_statistics("log")["model_stats"]
    assert after["inference_stats"]["fail"]["count"] == 2
    assert after["inference_count"] == before["inference_count"] == 0
    assert after["execution_count"] == 1  # the second never reached the model


def test_requests_that_come_together_are_fewer_batches(over_http, served: Served):
    before = entry_of(over_http, "2")

    async def together() -> None:
        async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
            body = {"inputs": [[1, 2, 3, 4]]}
            answers = await asyncio.gather(
                *[client.post("/models/m/predict", json=body) for _ in range(20)]
            )
        assert {answer.status_code for answer in answers} == {200}

    asyncio.run(together())
    after = entry_of(over_http, "2")
    assert after["inference_count"] - before["inference_count"] == 20
    batches = [
        (each["batch_size"], each["compute_infer"]["count"]) for each in after["batch_stats"]
    ]
    assert sum(count for _, count in batches) == after["execution_count"]
    assert sum(size * count for size, count in batches) == after["inference_count"]


def test_grpc_tells_the_same(over_http, over_grpc):
    whole = over_http.get_inference_statistics()["model_stats"]
    told = over_grpc.get_inference_statistics().model_stats
    assert [(e.name, e.version) for e in told] == [(e["name"], e["version"]) for e in whole]
    assert {e["name"] for e in whole} == {"m", "log", "fixed"}
    assert len(over_http.get_inference_statistics("m")["model_stats"]) == 2
    (one,) = over_grpc.get_inference_statistics("m", "2").model_stats
    same = entry_of(over_http, "2")
    assert one.inference_count == same["inference_count"]
    assert one.inference_stats.queue.ns == same["inference_stats"]["queue"]["ns"]
    assert [b.batch_size for b in one.batch_stats] == [b["batch_size"] for b in same["batch_stats"]]
    for ask in (over_http.get_inference_statistics, over_grpc.get_inference_statistics):
        with pytest.raises(InferenceServerException, match="unknown model"):
            ask("nope")
        with pytest.raises(InferenceServerException, match="version"):
            ask("m", "9")


def test_a_version_that_is_loaded_anew_begins_at_nought(start, models: Path, tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text("the-key-that-changes-models\n")
    served = start(models, "--admin-keys-file", str(keys))
    client = triton_http.InferenceServerClient(served.url.removeprefix("http://"))
    client.infer("m", [rows(1)])
    assert entry_of(client, "2")["inference_count"] == 1
    headers = {"x-api-key": "the-key-that-changes-models"}
    client.unload_model("m", headers=headers)
    client.load_model("m", headers=headers)
    assert entry_of(client, "2")["inference_count"] == 0
    client.infer("m", [rows(2)])
    assert entry_of(client, "2")["inference_count"] == 2
    client.close()


def test_workers_add_up_what_they_have_done(start, models: Path):
    served = start(models, "--workers", "2")
    with served.client() as client:
        body = {"inputs": [[1, 2, 3, 4]]}
        for _ in range(30):  # each on a connection of its own, whichever worker takes it
            answer = httpx.post(f"{served.url}/models/m/predict", json=body, trust_env=False)
            assert answer.status_code == 200
        end = time.monotonic() + 30
        while True:  # a worker is told of the other once a second
            (entry,) = client.get("/v2/models/m/stats").json()["model_stats"]
            if entry["inference_count"] == 30 or time.monotonic() > end:
                break
            time.sleep(0.1)
        assert entry["inference_count"] == entry["inference_stats"]["success"]["count"] == 30
        page = client.get("/metrics").text
    assert "inference" not in page  # the files of the one kind are not read as the other
    assert len(set(re.findall(r'worker="(\d)"', page))) == 2


def test_the_configuration(over_http, over_grpc):
    told = over_http.get_model_config("m")
    assert told["max_batch_size"] == 64  # rows of a request at most
    assert told["input"] == [
        {"name": "x", "data_type": "TYPE_FP32", "dims": [4], "format": "FORMAT_NONE"}
    ]
    assert told["output"] == [{"name": "scores", "data_type": "TYPE_FP32", "dims": [3]}]
    assert (told["platform"], told["backend"]) == ("onnxruntime_onnx", "onnxruntime")
    assert told["version_policy"] == {"all": {}}
    (group,) = told["instance_group"]
    assert (group["kind"], group["count"] >= 1) == ("KIND_CPU", True)
    assert told["dynamic_batching"]["preferred_batch_size"][0] > 1
    config = over_grpc.get_model_config("m").config
    assert (config.name, config.max_batch_size) == ("m", 64)
    assert triton_grpc.model_config_pb2.DataType.Name(config.input[0].data_type) == "TYPE_FP32"
    assert list(config.input[0].dims) == [4]
    assert config.version_policy.HasField("all")
    assert (
        config.dynamic_batching.preferred_batch_size
        == (told["dynamic_batching"]["preferred_batch_size"])
    )
    fixed = over_http.get_model_config("fixed")
    assert (fixed["max_batch_size"], fixed["input"][0]["dims"]) == (0, [2, 4])
    assert "dynamic_batching" not in fixed
    for ask in (over_http.get_model_config, over_grpc.get_model_config):
        with pytest.raises(InferenceServerException, match="unknown model"):
            ask("nope")


def test_numbers_too_large_for_the_message_are_told_as_the_largest(start, tmp_path: Path):
    repository.publish(tmp_path, "m", repository.linear(), batch_invariant=True)
    flags = ("--queue-capacity-samples", str(10**10), "--max-batch-size", str(10**10))
    served = start(tmp_path, "--grpc-port", "0", "--version-policy", f"specific:1,{10**30}", *flags)
    with triton_grpc.InferenceServerClient(address(served)) as client:
        config = client.get_model_config("m").config
    assert config.max_batch_size == 2**31 - 1
    assert list(config.dynamic_batching.preferred_batch_size) == [2**31 - 1]
    assert list(config.version_policy.specific.versions) == [1]


def test_the_configuration_tells_the_layout_of_pictures(start, tmp_path: Path):
    image = repository.elementwise("Neg", TensorProto.FLOAT, ("batch", 3, 4, 4))
    repository.publish(tmp_path, "image", image, preprocessing=PICTURE)
    with start(tmp_path, "--version-policy", "latest:2").client() as client:
        told = client.get("/v2/models/image/config").json()
        assert told["input"][0]["format"] == "FORMAT_NCHW"
        assert told["input"][0]["dims"] == [3, 4, 4]
        assert told["version_policy"] == {"latest": {"num_versions": 2}}
        assert client.get("/v2/models/image/versions/1/config").json() == told
        extensions = client.get("/v2").json()["extensions"]
        assert {"statistics", "model_configuration"} <= set(extensions)

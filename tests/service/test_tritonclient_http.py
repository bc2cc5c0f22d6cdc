"""NVIDIA's own client for the Open Inference Protocol against our REST routes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import repository
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from conftest import Served
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

X = np.random.default_rng(5).standard_normal((5, 4)).astype(np.float32)


def given(name: str, array: np.ndarray, binary: bool = True, module=triton):
    made = module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array, binary_data=binary)
    return made


@pytest.fixture(scope="module")
def connected(server: Served):
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    yield client
    client.close()


def test_it_finds_the_server_and_the_model(connected):
    assert connected.is_server_live()
    assert connected.is_server_ready()
    assert connected.is_model_ready("animals")
    assert connected.is_model_ready("animals", "1")
    assert not connected.is_model_ready("nope")
    assert "binary_tensor_data" in connected.get_server_metadata()["extensions"]
    assert connected.get_model_metadata("animals")["inputs"][0]["shape"] == [-1, 4]
    rows = connected.get_model_repository_index()
    assert {"name": "animals", "version": "1", "state": "READY", "reason": ""} in rows


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("returned", [True, False])
def test_it_infers_in_every_mix_of_bytes_and_json(connected, sent: bool, returned: bool):
    scores = repository.reference(repository.linear(), {"x": X})["scores"]
    wanted = [triton.InferRequestedOutput("scores", binary_data=returned)]
    for outputs in (wanted, None):
        result = connected.infer("animals", [given("x", X, sent)], outputs=outputs, request_id="r7")
        np.testing.assert_allclose(result.as_numpy("scores"), scores, rtol=1e-5, atol=1e-6)
        assert result.get_response()["id"] == "r7"


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_it_may_compress_what_it_sends(connected, sent: bool, coding: str):
    scores = repository.reference(repository.linear(), {"x": X})["scores"]
    result = connected.infer(
        "animals", [given("x", X, sent)], request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )  # fmt: skip
    np.testing.assert_allclose(result.as_numpy("scores"), scores, rtol=1e-5, atol=1e-6)


def test_two_inputs_and_every_dtype(connected):
    a, b = X[:, :2].copy(), X[:, 2:].copy()
    result = connected.infer("pair", [given("b", b, binary=False), given("a", a)])
    np.testing.assert_array_equal(result.as_numpy("y"), a + b)
    np.testing.assert_array_equal(result.as_numpy("positive"), a + b > 0)
    for model, dtype in (
        ("half", np.float16), ("double", np.float64), ("int64", np.int64), ("int8", np.int8),
    ):  # fmt: skip
        x = np.array([[1, -2]], dtype)
        answer = connected.infer(model, [given("x", x)]).as_numpy("y")
        assert answer.dtype == dtype
        np.testing.assert_array_equal(answer, -x)


def test_classes_arrive_as_text(connected):
    for binary in (True, False):
        wanted = [triton.InferRequestedOutput("scores", binary_data=binary, class_count=3)]
        texts = connected.infer("animals", [given("x", X)], outputs=wanted).as_numpy("scores")
        assert texts.shape == (5, 3)
        labels = {
            str(np.char.decode(t) if isinstance(t, bytes) else t).split(":")[2] for t in texts[0]
        }
        assert labels == {"ant", "bee", "cat"}


def test_a_mistake_becomes_its_exception(connected):
    with pytest.raises(InferenceServerException, match="axis 1 must be 4"):
        connected.infer("animals", [given("x", X[:, :3].copy())])
    with pytest.raises(InferenceServerException, match="no model 'nope'"):
        connected.infer("nope", [given("x", X)])
    with pytest.raises(InferenceServerException, match="cannot be changed over the network"):
        connected.load_model("animals")


def test_its_asyncio_client(server: Served):
    async def talk() -> None:
        url = server.url.removeprefix("http://")
        async with triton_aio.InferenceServerClient(url) as client:
            await repository.asked_row_by_row(client, given, X)

    asyncio.run(talk())


def test_it_loads_and_unloads_with_an_admin_key(start, tmp_path: Path):
    models = tmp_path / "models"
    repository.publish(models, "good", repository.linear())
    key = "the-key-that-changes-models"
    (tmp_path / "admin").write_text(key)
    served = start(models, "--admin-keys-file", str(tmp_path / "admin"))
    headers = {"Authorization": f"Bearer {key}"}
    client = triton.InferenceServerClient(served.url.removeprefix("http://"))
    try:
        with pytest.raises(InferenceServerException, match="no admin key"):
            client.unload_model("good")
        client.unload_model("good", headers=headers)
        assert not client.is_model_ready("good")
        (row,) = client.get_model_repository_index()
        assert (row["state"], row["reason"]) == ("UNAVAILABLE", "it was unloaded")
        repository.publish(models, "good", repository.linear(seed=1), version=2)
        client.load_model("good", headers=headers)
        assert client.get_model_metadata("good")["versions"] == ["2"]
        with pytest.raises(InferenceServerException, match="no folder"):
            client.load_model("nope", headers=headers)
        with pytest.raises(InferenceServerException, match="without parameters"):
            client.load_model("good", headers=headers, config='{"backend":"other"}')
    finally:
        client.close()
    assert served.stop() == 0

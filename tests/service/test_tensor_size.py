"""--max-tensor-bytes: one limit for the decoded tensor, whatever the protocol."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import numpy as np
import pytest
import repository
from onnx import TensorProto

ROWS = 64  # of 3 x 6 x 5 float32: 23,040 bytes
LIMIT = ROWS * 3 * 6 * 5 * 4


@pytest.fixture(scope="module")
def limited(start, tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("limited")
    vision = repository.elementwise("Neg", TensorProto.FLOAT, ("batch", 3, 6, 5))
    repository.publish(root, "vision", vision, preprocessing={"height": 6, "width": 5})
    free = repository.elementwise("Neg", TensorProto.INT64, ("batch", "n"))
    repository.publish(root, "free", free)
    return start(root, "--max-tensor-bytes", str(LIMIT), "--default-model", "vision",
                 "--grpc-port", "0")  # fmt: skip


def tensor(rows: int) -> np.ndarray:
    return np.zeros((rows, 3, 6, 5), np.float32)


def as_json(client: httpx.Client, rows: int) -> httpx.Response:
    return client.post("/predict", json={"inputs": tensor(rows).tolist()})


def as_named_json(client: httpx.Client, rows: int) -> httpx.Response:
    return client.post("/predict", json={"inputs": {"x": tensor(rows).tolist()}})


def as_whole_numbers(client: httpx.Client, rows: int) -> httpx.Response:
    inputs = np.zeros((rows, LIMIT // ROWS // 8), int).tolist()
    return client.post("/models/free/predict", json={"inputs": inputs})


def as_npy(client: httpx.Client, rows: int) -> httpx.Response:
    file = io.BytesIO()
    np.save(file, tensor(rows))
    headers = {"content-type": "application/x-npy"}
    return client.post("/predict", content=file.getvalue(), headers=headers)


def as_bytes(client: httpx.Client, rows: int) -> httpx.Response:
    headers = {"content-type": "application/octet-stream"}
    return client.post("/predict", content=tensor(rows).tobytes(), headers=headers)


def as_pictures(client: httpx.Client, rows: int) -> httpx.Response:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (5, 6)).save(file, "PNG")
    return client.post("/predict", files=[("image", file.getvalue())] * rows)


def v2(rows: int, **more: object) -> dict[str, object]:
    return {"name": "x", "shape": [rows, 3, 6, 5], "datatype": "FP32", **more}


def as_v2_flat(client: httpx.Client, rows: int) -> httpx.Response:
    entry = v2(rows, data=tensor(rows).reshape(-1).tolist())
    return client.post("/v2/models/vision/infer", json={"inputs": [entry]})


def as_v2_nested(client: httpx.Client, rows: int) -> httpx.Response:
    entry = v2(rows, data=tensor(rows).tolist())
    return client.post("/v2/models/vision/infer", json={"inputs": [entry]})


def as_v2_binary(client: httpx.Client, rows: int) -> httpx.Response:
    import json

    content = tensor(rows).tobytes()
    entry = v2(rows, parameters={"binary_data_size": len(content)})
    head = json.dumps({"inputs": [entry]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    return client.post("/v2/models/vision/infer", content=head + content, headers=headers)


def as_tfs_rows(client: httpx.Client, rows: int) -> httpx.Response:
    return client.post("/v1/models/vision:predict", json={"instances": tensor(rows).tolist()})


def as_tfs_columns(client: httpx.Client, rows: int) -> httpx.Response:
    return client.post("/v1/models/vision:predict", json={"inputs": tensor(rows).tolist()})


WAYS = [
    as_json, as_named_json, as_whole_numbers, as_npy, as_bytes, as_pictures, as_v2_flat,
    as_v2_nested, as_v2_binary, as_tfs_rows, as_tfs_columns,
]  # fmt: skip


@pytest.mark.parametrize("ask", WAYS)
def test_the_limit_itself_is_fine_and_a_row_more_is_not(limited, ask):
    with limited.client() as client:
        assert ask(client, ROWS).status_code == 200
        refused = ask(client, ROWS + 1)
    assert refused.status_code == 413, refused.text
    assert f"{LIMIT} are the most" in refused.text


@pytest.mark.parametrize("raw", [True, False])
def test_over_grpc(limited, raw: bool):
    grpcclient = pytest.importorskip("tritonclient.grpc")
    address = next(line.split()[1] for line in limited.out.splitlines() if "  grpc " in line)
    if not raw:
        _typed(address)
        return
    with grpcclient.InferenceServerClient(address) as client:
        for rows in (ROWS, ROWS + 1):
            given = grpcclient.InferInput("x", [rows, 3, 6, 5], "FP32")
            given.set_data_from_numpy(tensor(rows))
            if rows == ROWS:
                assert client.infer("vision", [given]).as_numpy("y").shape == (rows, 3, 6, 5)
                continue
            with pytest.raises(grpcclient.InferenceServerException, match="are the most"):
                client.infer("vision", [given])


def _typed(address: str) -> None:
    import grpc

    from service.protocols import grpc_messages

    classes = grpc_messages.classes()
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(
            f"/{grpc_messages.SERVICE}/ModelInfer",
            request_serializer=classes["ModelInferRequest"].SerializeToString,
            response_deserializer=classes["ModelInferResponse"].FromString,
        )
        for rows in (ROWS, ROWS + 1):
            request = classes["ModelInferRequest"](model_name="vision")
            entry = request.inputs.add(name="x", datatype="FP32", shape=[rows, 3, 6, 5])
            entry.contents.fp32_contents.extend([0.0] * tensor(rows).size)
            if rows == ROWS:
                assert infer(request).model_name == "vision"
                continue
            with pytest.raises(grpc.RpcError) as refused:
                infer(request)
            assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_claim_alone_is_refused_before_anything_is_made_of_it(limited):
    """Terabytes in a shape, in a request of a few bytes."""
    entry = v2(2**40, data=[[1.0]])
    with limited.client() as client:
        refused = client.post("/v2/models/vision/infer", json={"inputs": [entry]})
    assert refused.status_code == 413


def test_self_tests_are_not_bound_by_it(start, tmp_path: Path):
    x = np.zeros((3, 4), np.float32)
    repository.publish(tmp_path, "m", repository.linear(), test={"x": x})
    served = start(tmp_path, "--max-tensor-bytes", "16")
    with served.client() as client:
        assert client.post("/predict", json={"inputs": x[:1].tolist()}).status_code == 200
        assert client.post("/predict", json={"inputs": x.tolist()}).status_code == 413
    assert served.stop() == 0

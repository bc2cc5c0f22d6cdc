"""--response-cache-bytes: the same request has the same bytes again, and nobody else's."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import repository as r
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from service.context import Context
from service.models.registry import Registry
from service.protocols import tfs, v2
from service.protocols.call import Reply
from service.protocols.predict import Predict
from service.protocols.response_cache import Kept, Recall, ResponseCache
from service.settings_read import given as settings_of

if TYPE_CHECKING:
    from conftest import Served

OCTETS = "application/octet-stream"
NPY = "application/x-npy"
X = {"inputs": [[1.0, 2.0, 3.0, 4.0]]}
BYTES = np.array(X["inputs"], np.float32).tobytes()
ENTRY = 512


class Model:
    """As much of a ServedModel as the cache looks at."""

    def __init__(self, serial: int = 0, *, repeatable: bool = True) -> None:
        self.name, self.version = "m", 1
        self.serial, self.repeatable = serial, repeatable


class Models:
    """As much of a Registry."""

    def __init__(self) -> None:
        self.changes = 0
        self.models: list[Any] = [Model()]

    def every_version(self) -> list[Any]:
        return self.models


def cache(limit: int, models: Any = None) -> ResponseCache:
    return ResponseCache(limit, models or Models())


def key(number: int, serial: int = 0) -> tuple[int, bytes]:
    return serial, bytes([number])


MODEL: Any = Model()

# --- the table ---------------------------------------------------------------------------


def test_what_was_asked_for_the_longest_ago_goes_first() -> None:
    kept = cache(3 * (ENTRY + 100))
    for number in range(3):
        kept.put(key(number), MODEL, Reply(bytes(100)), 1)
    assert kept.held == 3 * (ENTRY + 100)
    assert kept.get(key(0), MODEL)
    kept.put(key(3), MODEL, Reply(bytes(100)), 1)
    found = [number for number in range(4) if kept.get(key(number), MODEL)]
    assert found == [0, 2, 3]
    assert kept.held == 3 * (ENTRY + 100)
    kept.put(key(4), MODEL, Reply(bytes(2 * ENTRY + 300)), 1)  # as large as all three
    assert [number for number in range(5) if kept.get(key(number), MODEL)] == [4]


def test_the_bound_is_in_bytes_headers_included_and_holds_for_one_answer() -> None:
    kept = cache(ENTRY + 10)
    kept.put(key(0), MODEL, Reply(bytes(11)), 1)
    assert (kept.held, kept.get(key(0), MODEL)) == (0, None)
    kept.put(key(0), MODEL, Reply(bytes(4), headers=[(b"abc", b"def")]), 1)
    assert kept.held == ENTRY + 10
    kept.put(key(0), MODEL, Reply(b""), 1)  # in its place
    assert kept.held == ENTRY


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4 * ENTRY)), max_size=60))
def test_it_keeps_the_newest_that_fit(puts: list[tuple[int, int]]) -> None:
    """Against a list of what was put last, the newest in front."""
    limit = 4 * ENTRY
    kept, newest = cache(limit), dict[int, int]()
    for number, size in puts:
        kept.put(key(number), MODEL, Reply(bytes(size)), 1)
        if size + ENTRY <= limit:
            newest.pop(number, None)
            newest = {number: size, **newest}
        room, fits = limit, dict[int, int]()
        for each, its in newest.items():
            room -= its + ENTRY
            if room < 0:
                break
            fits[each] = its
        newest = fits
        assert kept.held == sum(newest.values()) + ENTRY * len(newest) <= limit
    found = {n: len(entry.reply.body) for n in range(10) if (entry := kept.get(key(n), MODEL))}
    assert found == newest


def test_errors_are_not_kept() -> None:
    kept = cache(10_000)
    kept.put(key(0), MODEL, Reply(b"no", status=503), 1)
    assert kept.get(key(0), MODEL) is None


def test_answers_of_versions_that_are_not_served_are_dropped() -> None:
    models = Models()
    kept = cache(100_000, models)
    for number in range(5):
        kept.put(key(number, serial=7), MODEL, Reply(bytes(100)), 1)
    models.changes += 1
    kept.put(key(0, serial=0), MODEL, Reply(b""), 1)
    assert kept.held == ENTRY
    assert kept.get(key(0, serial=7), MODEL) is None


def test_it_counts_by_model_and_tells() -> None:
    told: list[tuple[str, int, bool]] = []
    kept = ResponseCache(10_000, Models(), lambda *of: told.append(of[:3]))  # type: ignore[arg-type]
    kept.get(key(0), MODEL)
    kept.put(key(0), MODEL, Reply(b"a", b"text/plain"), 3)
    assert kept.get(key(0), MODEL) == Kept(Reply(b"a", b"text/plain"), 3)
    assert (kept.hits, kept.misses) == ({"m": 1}, {"m": 1})
    assert told == [("m", 1, False), ("m", 1, True)]


def test_a_key_is_of_the_version_the_head_and_the_body() -> None:
    kept = cache(1)
    models: list[Any] = [Model(1), Model(2)]
    heads = [("predict", b"a", None), ("predict", None, b"a"), ("predict",), ("v2", 1), ("v2", 11)]
    found = {
        Recall(kept, *head).key(model, body)
        for model in models for head in heads for body in (b"", b"1", b"a")
    }  # fmt: skip
    assert len(found) == 2 * len(heads) * 3
    same: Any = Model(1)
    assert Recall(kept, "v2", 1).key(models[0], b"x") == Recall(kept, "v2", 1).key(
        same, memoryview(b"x")
    )


def test_a_model_that_draws_random_numbers_has_no_key() -> None:
    random: Any = Model(repeatable=False)
    assert Recall(cache(1000), "v2").key(random, b"") is None


@pytest.mark.parametrize(("size", "on"), [(0, False), (1, True)])
def test_without_the_setting_no_reader_looks_for_anything(
    tmp_path: Path, size: int, on: bool
) -> None:
    settings = settings_of({"models": tmp_path, "response_cache_bytes": size})
    context = Context(Registry(tmp_path, lambda *_: pytest.fail("nothing to load")), settings)
    assert (context.response_cache is not None) == on
    for endpoint in (Predict(context), v2.Infer(context), tfs.Predict(context)):
        scope = {"first_headers": {}, "query_string": b""}
        assert (endpoint.reader(scope).recall is not None) == on
    page = context.metrics.page(context.registry)
    assert ("foldserve_response_cache_bytes" in page) == on


# --- a server ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cached") / "models"
    r.publish(root, "animals", r.linear())
    r.publish(root, "pair", r.pair())
    random = r.graph(
        [
            helper.make_node("RandomUniformLike", ["x"], ["noise"]),
            helper.make_node("Add", ["x", "noise"], ["y"]),
        ],
        [r.value("x", TensorProto.FLOAT, ["batch", 4])],
        [r.value("y", TensorProto.FLOAT, ["batch", 4])],
    )
    r.bare(root, "noise", random)
    r.publish(root, "roots", r.elementwise("Sqrt", TensorProto.FLOAT, ("batch", 4)))
    return root


@pytest.fixture(scope="module")
def server(models: Path, start: Callable[..., Served]) -> Served:
    return start(models, "--response-cache-bytes", "1000000", "--grpc-port", "0")


@pytest.fixture
def client(server: Served) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made


def hits(client: httpx.Client, model: str = "animals") -> int:
    return counted(client, "hits", model)


def counted(client: httpx.Client, what: str, model: str = "animals") -> int:
    page = client.get("/metrics").text
    found = re.search(rf'response_cache_{what}_total{{model="{model}"}} (\d+)', page)
    return int(found[1]) if found else 0


def bytes_of(answer: httpx.Response) -> tuple[int, list[tuple[str, str]], bytes]:
    """All of an answer but its id and its time."""
    headers = [
        pair for pair in answer.headers.multi_items() if pair[0] not in {"x-request-id", "date"}
    ]
    return answer.status_code, headers, answer.content


def v2_binary() -> tuple[bytes, dict[str, str]]:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32"}
    asked = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": len(BYTES)}}],
        "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
    }
    head = json.dumps(asked).encode()
    return head + BYTES, {"inference-header-content-length": str(len(head))}


V2 = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
LARGE = np.random.default_rng(0).standard_normal((200, 4)).tolist()
REQUESTS: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "JSON": ("/models/animals/predict", json.dumps(X).encode(), {}),
    "bytes to bytes": (
        "/models/animals/predict", BYTES, {"content-type": OCTETS, "accept": OCTETS},
    ),
    "bytes to npy": ("/models/animals/predict", BYTES, {"content-type": OCTETS, "accept": NPY}),
    "bytes to JSON": ("/models/animals/predict", BYTES, {"content-type": OCTETS}),
    "V2, JSON": ("/v2/models/animals/infer", json.dumps(V2).encode(), {}),
    "V2, an id": ("/v2/models/animals/infer", json.dumps({**V2, "id": "7"}).encode(), {}),
    "V2, binary": ("/v2/models/animals/infer", *v2_binary()),
    "V1": ("/v1/models/animals:predict", json.dumps({"instances": X["inputs"]}).encode(), {}),
    "200 rows": ("/models/animals/predict", json.dumps({"inputs": LARGE}).encode(), {}),
    "compressed": (
        "/models/animals/predict", gzip.compress(json.dumps({"inputs": LARGE[:9]}).encode()),
        {"content-encoding": "gzip"},
    ),
}  # fmt: skip


def test_the_second_answer_is_the_first_byte_for_byte(client: httpx.Client) -> None:
    """And each is another one than that of all requests before."""
    for name, (path, body, headers) in REQUESTS.items():
        before, made = hits(client), counted(client, "misses")
        first = client.post(path, content=body, headers=headers)
        assert first.status_code == 200, (name, first.text)
        assert hits(client) == before, f"{name}: not asked for before"
        assert counted(client, "misses") == made + 1
        for again in (1, 2):
            second = client.post(path, content=body, headers=headers)
            assert bytes_of(second) == bytes_of(first), name
            assert hits(client) == before + again, name
            assert second.headers["x-request-id"] != first.headers["x-request-id"]


def test_a_body_is_the_same_however_it_comes(client: httpx.Client) -> None:
    text = json.dumps({"inputs": [[9.0, 8.0, 7.0, 6.0]]}).encode()
    first = client.post("/models/animals/predict", content=text)
    before = hits(client)
    chunked = client.post("/models/animals/predict", content=iter([text[:9], text[9:]]))
    packed = client.post(
        "/models/animals/predict", content=gzip.compress(text), headers={"content-encoding": "gzip"}
    )
    assert hits(client) == before + 2
    assert first.content == chunked.content == packed.content
    # By the version's own path, and as the version that is served by default.
    assert client.post("/models/animals/versions/1/predict", content=text).content == first.content
    assert hits(client) == before + 3


def test_outputs_that_are_asked_for_are_another_request(client: httpx.Client) -> None:
    tensors = [
        {"name": name, "shape": [1, 2], "datatype": "FP32", "data": [1.0, -2.0]} for name in "ab"
    ]
    asked: list[dict[str, Any]] = [
        {"inputs": tensors},
        {"inputs": tensors, "outputs": [{"name": "y"}]},
        {"inputs": tensors, "outputs": [{"name": "positive"}]},
        {"inputs": tensors, "parameters": {"binary_data_output": True}},
    ]
    before = hits(client, "pair")
    first = [client.post("/v2/models/pair/infer", json=each) for each in asked]
    assert hits(client, "pair") == before
    assert len({answer.content for answer in first}) == len(asked)
    for each, answer in zip(asked, first, strict=True):
        assert bytes_of(client.post("/v2/models/pair/infer", json=each)) == bytes_of(answer)
    assert hits(client, "pair") == before + len(asked)


def test_one_output_of_a_binary_answer_is_that_of_the_query(client: httpx.Client) -> None:
    body = {"inputs": {"a": [[1.0, 2.0]], "b": [[3.0, -9.0]]}}
    for _ in range(2):
        for output, size in (("y", 8), ("positive", 2)):
            answer = client.post(
                f"/models/pair/predict?output={output}", json=body, headers={"accept": OCTETS}
            )
            assert len(answer.content) == size


def test_errors_come_anew(client: httpx.Client) -> None:
    before, looked = hits(client), counted(client, "misses")
    for body, status in (({"inputs": [[1.0]]}, 400), ({"inputs": "no"}, 400)):
        for _ in range(3):
            assert client.post("/models/animals/predict", json=body).status_code == status
    assert hits(client) == before
    assert counted(client, "misses") == looked


def test_what_is_right_by_one_head_is_wrong_by_another(client: httpx.Client) -> None:
    path, body, headers = REQUESTS["V2, binary"]
    assert client.post(path, content=body, headers=headers).status_code == 200
    longer = {key: str(int(value) + 1) for key, value in headers.items()}
    for other in ({}, longer):
        assert client.post(path, content=body, headers=other).status_code == 400
    path, body, headers = REQUESTS["bytes to bytes"]
    assert client.post(path, content=body, headers=headers).status_code == 200
    for name, value in (("x-dtype", "float64"), ("x-shape", "4,1"), ("content-type", NPY)):
        assert client.post(path, content=body, headers={**headers, name: value}).status_code == 400


def test_random_numbers_are_drawn_anew(client: httpx.Client) -> None:
    answers = {client.post("/models/noise/predict", json=X).content for _ in range(4)}
    assert len(answers) == 4
    assert hits(client, "noise") == counted(client, "misses", "noise") == 0


def test_warnings_are_a_part_of_the_answer(client: httpx.Client) -> None:
    body = {"inputs": [[-1.0, 1.0, 4.0, 9.0]]}
    first, second = (client.post("/models/roots/predict", json=body) for _ in range(2))
    assert hits(client, "roots") == 1
    assert "not finite" in second.json()["warnings"][0]
    assert bytes_of(first) == bytes_of(second)


def test_times_say_that_nothing_was_run(client: httpx.Client) -> None:
    body, asked = {"inputs": [[0.5, 0.25, 0.125, 1.0]]}, {"x-server-timing": "1"}
    first, second = (
        client.post("/models/animals/predict", json=body, headers=asked) for _ in range(2)
    )
    assert "compute;dur=" in first.headers["server-timing"]
    assert "compute" not in second.headers["server-timing"]
    assert first.content == second.content


def test_the_statistics_of_triton_have_hits_and_misses(client: httpx.Client) -> None:
    body = {"inputs": {"a": [[5.0, 5.0]], "b": [[5.0, 5.0]]}}
    path = "/v2/models/pair/stats"

    def told() -> dict[str, Any]:
        found: dict[str, Any] = client.get(path).json()["model_stats"][0]
        return found

    before = told()
    for _ in range(3):
        client.post("/models/pair/predict", json=body)
    after = told()
    grown = {
        name: after["inference_stats"][name]["count"] - before["inference_stats"][name]["count"]
        for name in ("success", "cache_hit", "cache_miss", "compute_infer")
    }
    assert grown == {"success": 3, "cache_hit": 2, "cache_miss": 1, "compute_infer": 1}
    assert after["inference_count"] - before["inference_count"] == 3, "rows, also of hits"
    assert after["execution_count"] - before["execution_count"] == 1


def test_the_configuration_says_which_models_keep_answers(client: httpx.Client) -> None:
    told = {name: client.get(f"/v2/models/{name}/config").json() for name in ("pair", "noise")}
    assert told["pair"]["response_cache"] == {"enable": True}
    assert "response_cache" not in told["noise"]


def test_over_grpc(server: Served, client: httpx.Client) -> None:
    grpcclient = pytest.importorskip("tritonclient.grpc")
    found = re.search(r"^  grpc +(\S+)", server.out, re.MULTILINE)
    assert found
    tensor = grpcclient.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.array([[3.0, 1.0, 4.0, 1.0]], np.float32))
    with grpcclient.InferenceServerClient(found[1]) as made:
        before = hits(client)
        first, second = (made.infer("animals", [tensor]) for _ in range(2))
        assert hits(client) == before + 1
        np.testing.assert_array_equal(first.as_numpy("scores"), second.as_numpy("scores"))
        assert first.get_response() == second.get_response()
        assert made.get_model_config("animals").config.response_cache.enable
        third = made.infer("animals", [tensor], request_id="mine")
        assert third.get_response().id == "mine"
        assert hits(client) == before + 1


def test_what_is_kept_stays_below_the_bound(client: httpx.Client) -> None:
    random = np.random.default_rng(3)
    for _ in range(130):
        x = random.standard_normal((250, 4)).astype(np.float32)
        answer = client.post("/models/animals/predict", json={"inputs": x.tolist()})
        assert answer.status_code == 200
    found = re.search(r"^foldserve_response_cache_bytes (\d+)", client.get("/metrics").text, re.M)
    assert found
    assert 900_000 < int(found[1]) <= 1_000_000


def test_another_version_answers_for_itself(tmp_path: Path, start: Callable[..., Served]) -> None:
    root = tmp_path / "models"
    r.publish(root, "animals", r.linear())
    flags = ("--response-cache-bytes", "100000", "--watch-interval-ms", "100")
    with start(root, *flags).client() as client:
        first = client.post("/predict", json=X).json()
        assert client.post("/predict", json=X).json() == first
        assert hits(client) == 1
        r.publish(root, "animals", r.linear(seed=5), 2)
        end = time.monotonic() + 30
        while (now := client.post("/predict", json=X).json())["model"]["version"] == 1:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert now["outputs"] != first["outputs"]
        # The same number again, with other files.
        (root / "animals" / "2" / "model.onnx").write_bytes(r.linear(seed=9).SerializeToString())
        r.seal(root / "animals" / "2")
        end = time.monotonic() + 30
        while client.post("/predict", json=X).json() == now:
            assert time.monotonic() < end
            time.sleep(0.02)
        expected = r.reference(r.linear(seed=9), {"x": np.array(X["inputs"], np.float32)})["scores"]
        got = client.post("/predict", json=X).json()["outputs"]["scores"]
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_key_is_asked_for_before_anything_is_looked_up(
    models: Path, tmp_path: Path, start: Callable[..., Served]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("the-first-of-all-keys\nthe-second-of-all-keys\n")
    one, other = ({"x-api-key": f"the-{which}-of-all-keys"} for which in ("first", "second"))
    server = start(models, "--response-cache-bytes", "100000", "--api-keys-file", str(keys))
    with server.client() as client:
        first = client.post("/models/animals/predict", json=X, headers=one)
        for wrong in ({}, {"x-api-key": "a-key-that-is-none-of-them"}):
            refused = client.post("/models/animals/predict", json=X, headers=wrong)
            assert refused.status_code == 401
        second = client.post("/models/animals/predict", json=X, headers=other)
        assert bytes_of(first) == bytes_of(second), "one key's answer is another one's"
        page = client.get("/metrics", headers=one).text
        assert 'foldserve_response_cache_hits_total{model="animals"} 1' in page
        assert 'foldserve_response_cache_misses_total{model="animals"} 1' in page

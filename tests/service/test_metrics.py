"""GET /metrics: what is counted, in a format that Prometheus's own parser reads."""

from __future__ import annotations

import contextlib
import math
import socket
import tempfile
import time
from pathlib import Path

import httpx
import pytest
import repository
from prometheus_client.parser import text_string_to_metric_families
from repository import linear, publish
from test_predict_route import refused

from service import playground
from service.budget import Budget
from service.errors import TooManyBytes
from service.exchange import Exchange
from service.telemetry.exposition import Exposition, Histogram, merge

pytestmark = pytest.mark.slow

BODY = {"inputs": [[1, 2, 3, 4]]}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(text: str) -> Samples:
    """Every sample by name and labels; a name or a label set that comes twice is an error."""
    found: Samples = {}
    families = set()
    for family in text_string_to_metric_families(text):
        assert family.name not in families
        assert family.documentation
        assert family.type in {"counter", "gauge", "histogram"}
        families.add(family.name)
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


# --- the writer -------------------------------------------------------------------------


def test_labels_and_texts_survive_the_parser():
    page = Exposition({"worker": "0"})
    wild = 'a"b\\c\nd{e},f'
    page.family("one_total", "counter", "a \\ text\nof two lines")
    page.sample(1, {"text": wild})
    page.family("two", "gauge", "floats")
    for number in (0.1, 1e-9, 1e300, 2**60, -1.5, 0):
        page.sample(number, {"n": str(number)})
    samples = parse(page.text())
    assert value(samples, "one_total", worker="0", text=wild) == 1
    for number in (0.1, 1e-9, 1e300, 2**60, -1.5, 0):
        assert value(samples, "two", worker="0", n=str(number)) == number


def test_a_histogram_is_cumulative_and_a_bound_belongs_to_its_bucket():
    values = Histogram((1, 2, 4))
    for v in (0.5, 1, 1.5, 4, 4.1, 100):
        values.observe(v)
    page = Exposition()
    page.family("h", "histogram", "h")
    page.histogram(values, {"m": "x"})
    samples = parse(page.text())
    counts = {le: value(samples, "h_bucket", m="x", le=le) for le in ("1", "2", "4", "+Inf")}
    assert counts == {"1": 2, "2": 3, "4": 4, "+Inf": 6}
    assert value(samples, "h_count", m="x") == 6
    assert value(samples, "h_sum", m="x") == pytest.approx(111.1)


def test_pages_merge_into_one_that_keeps_families_together():
    pages = []
    for worker in ("0", "1"):
        page = Exposition({"worker": worker})
        page.family("a_total", "counter", "a")
        page.sample(int(worker) + 1)
        if worker == "1":
            page.family("b", "gauge", "b")
            page.sample(5)
        pages.append(page.text())
    samples = parse(merge(pages))
    assert value(samples, "a_total", worker="0") == 1
    assert value(samples, "a_total", worker="1") == 2
    assert value(samples, "b", worker="1") == 5


# --- the server -------------------------------------------------------------------------


def test_what_was_asked_is_what_is_counted(start, tmp_path: Path):
    publish(tmp_path, "m", linear(), 1)
    publish(tmp_path, "m", linear(), 2)
    publish(tmp_path, "m", linear(), 3)
    (tmp_path / "m" / "3" / "model.onnx").write_bytes(b"other")
    served = start(tmp_path, "--max-in-flight-bytes", "123456789")
    with served.client() as client:
        for _ in range(3):
            assert client.post("/predict", json=BODY).status_code == 200
        assert client.post("/models/m/predict", json=BODY).status_code == 200
        assert client.post("/models/m/versions/2/predict", json=BODY).status_code == 200
        refused(client.post("/models/m/versions/9/predict", json=BODY), 404, "unknown_version")
        refused(client.post("/predict", json={"inputs": [[1]]}), 400, "wrong_shape")
        for path in ("/a", "/b", "/c"):
            refused(client.get(path), 404, "not_found")
            refused(client.post(f"/models{path}/predict", content=b""), 404, "unknown_model")
        client.get("/v2/models/m")
        response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = parse(response.text)

    def requests(route: str, model: str, code: int) -> float:
        name = "foldserve_requests_total"
        return value(samples, name, route=route, model=model, code=str(code))

    one, version = "/models/{name}/predict", "/models/{name}/versions/{version}/predict"
    assert requests("/predict", "m", 200) == 3
    assert requests("/predict", "m", 400) == 1
    assert requests(one, "m", 200) == 1
    assert requests(version, "m", 200) == 1
    assert requests("/v2/models/{name}", "", 200) == 1
    assert requests("other", "", 404) == 3
    routes = {dict(labels).get("route") for _, labels in samples}
    assert not any(route and ("/a" in route or "/c" in route) for route in routes)
    assert value(samples, "foldserve_refused_total", reason="wrong_shape") == 1
    assert value(samples, "foldserve_refused_total", reason="unknown_version") == 1
    assert value(samples, "foldserve_requests_in_flight") == 1  # the one that asks
    assert value(samples, "foldserve_connections_open") == 1
    assert value(samples, "foldserve_bodies_held_bytes") == 0
    assert value(samples, "foldserve_ready") == 1
    states = {"3": "rejected", "2": "serving", "1": "older"}
    for v, state in states.items():
        assert value(samples, "foldserve_model_version", model="m", version=v, state=state) == 1
    for stage in ("decode", "queue", "batch_wait", "compute", "encode"):
        assert value(samples, f"foldserve_{stage}_seconds_count", model="m") == 5
        assert 0 <= value(samples, f"foldserve_{stage}_seconds_sum", model="m") < 60
    assert value(samples, "foldserve_compute_seconds_sum", model="m") > 0
    assert value(samples, "foldserve_batch_rows_sum", model="m") == 5
    assert value(samples, "foldserve_queue_rows", model="m", version="2") == 0
    assert value(samples, "foldserve_queue_capacity_rows", model="m", version="2") == 256
    took = "foldserve_request_seconds_count"
    assert value(samples, took, route="/predict", model="m") == 4
    assert value(samples, took, route="other", model="") == 3
    assert 0 < value(samples, "foldserve_load_seconds", model="m", version="2") < 60
    assert value(samples, "foldserve_budget_bytes") == 123456789
    for what in ("model", "keys", "certificate"):
        assert value(samples, "foldserve_failed_reloads_total", what=what) == 0
    build = next(dict(k[1]) for k in samples if k[0] == "foldserve_build_info")
    assert set(build) == {"version", "python"}
    assert value(samples, "process_resident_memory_bytes") > 1e6
    assert not any(math.isnan(v) for v in samples.values())
    assert served.stop() == 0


def test_versions_and_keys_that_fail_while_it_serves_are_counted(start, tmp_path: Path):
    models, keys = tmp_path / "models", tmp_path / "keys"
    publish(models, "m", linear(), 1)
    publish(models, "m", linear(), 2)
    (models / "m" / "2" / "model.onnx").write_bytes(b"other")  # at the start: no reload
    keys.write_text("0123456789abcdef")
    served = start(models, "--api-keys-file", str(keys), "--watch-interval-ms", "200")
    with served.client(headers={"x-api-key": "0123456789abcdef"}) as client:
        until(client, "foldserve_failed_reloads_total", 0, what="model")
        publish(models, "m", linear(), 3)
        (models / "m" / "3" / "model.onnx").write_bytes(b"other")
        keys.write_text("short")
        until(client, "foldserve_failed_reloads_total", 1, what="model")
        until(client, "foldserve_failed_reloads_total", 1, what="keys")
        assert client.post("/predict", json=BODY).json()["model"]["version"] == 1
    assert served.stop() == 0


def test_any_worker_shows_the_counts_of_all(start, tmp_path: Path):
    publish(tmp_path, "m", linear())
    served = start(tmp_path, "--workers", "2")
    asked = 0
    answers: set[str] = set()
    with contextlib.ExitStack() as stack:
        # Each connection goes to one worker, by chance: enough of them reach both.
        clients = [stack.enter_context(served.client()) for _ in range(20)]
        for client in clients:
            asked += client.post("/predict", json=BODY).status_code == 200
        client = clients[0]
        end = time.monotonic() + 60
        while True:
            samples = parse(client.get("/metrics").text)
            counts = {
                worker: value(samples, "foldserve_requests_total", worker=worker,
                              route="/predict", model="m", code="200")
                for worker in ("0", "1")
            }  # fmt: skip
            answers = {w for w in ("0", "1") if value(samples, "foldserve_ready", worker=w)}
            if sum(counts.values()) == asked and len(answers) == 2:
                break
            assert time.monotonic() < end, counts
            time.sleep(0.05)
    assert asked == 20
    folders = set(Path(tempfile.gettempdir()).glob("foldserve-*/*.prom"))
    assert served.stop() == 0
    assert any(not path.exists() for path in folders)


@pytest.mark.parametrize(
    ("setting", "without_key", "with_key"),
    [("key", 401, 200), ("open", 200, 200), ("off", 401, 404)],
)
def test_who_may_read_them(start, tmp_path: Path, setting, without_key, with_key):
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef")
    publish(tmp_path / "models", "m", linear())
    served = start(tmp_path / "models", "--api-keys-file", str(keys), "--metrics", setting)
    with served.client() as client:
        assert client.get("/metrics").status_code == without_key
        headers = {"x-api-key": "0123456789abcdef"}
        assert client.get("/metrics", headers=headers).status_code == with_key
    assert served.stop() == 0


def test_a_client_that_left_is_counted_as_such(start, tmp_path: Path):
    publish(tmp_path, "slow", repository.slow(3_000))
    served = start(tmp_path)
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    with served.client() as client:
        until(client, "foldserve_requests_total", 1, route="/predict", model="slow", code="499")
    assert served.stop() == 0


def until(client: httpx.Client, name: str, wanted: float, **labels: str) -> None:
    """Ask again until a sample has the wanted value; the test's own time-out ends it."""
    for _ in range(20_000):
        if value(parse(client.get("/metrics").text), name, **labels) == wanted:
            return
    raise AssertionError(f"{name} never became {wanted}")


def test_an_answer_that_nobody_reads_does_not_stay_for_ever(start, tmp_path: Path):
    from onnx import TensorProto

    wide = repository.elementwise("Identity", TensorProto.FLOAT, ("batch", "n"))
    publish(tmp_path, "wide", wide)
    served = start(tmp_path, "--body-timeout-ms", "500", "--max-body-bytes", "30000000")
    host, port = served.url.removeprefix("http://").split(":")
    body = b'{"inputs": [[' + b"0.123456789," * 1_500_000 + b"1]]}"
    with socket.socket() as connection, served.client() as client:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect((host, int(port)))
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)
        assert connection.recv(12) == b"HTTP/1.1 200"  # and not a byte more
        until(client, "foldserve_refused_total", 1, reason="answer_not_read")
        until(client, "foldserve_connections_open", 1)
    assert served.stop() == 0


# --- memory for bodies ------------------------------------------------------------------


def test_bodies_share_a_budget():
    budget = Budget(100)
    one, two, three = (Exchange(str(i), budget) for i in range(3))
    one.hold(60)
    two.hold(40)
    with pytest.raises(TooManyBytes) as caught:
        three.hold(1)
    assert caught.value.retry_after_s
    one.release()
    one.release()
    three.hold(60)
    assert budget.held == 100
    two.release()
    three.release()
    assert budget.held == 0
    lone = Exchange("lone", budget)
    lone.hold(1000)  # its own limit is --max-body-bytes
    lone.hold(1000)
    lone.release()
    assert budget.held == 0


def test_bodies_beyond_the_budget_are_refused_before_they_are_read(start, tmp_path: Path):
    publish(tmp_path, "m", linear())
    served = start(tmp_path, "--max-in-flight-bytes", "1000")
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as holder:
        holder.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 990\r\n\r\n{")
        with served.client() as client:
            until(client, "foldserve_bodies_held_bytes", 990)
            response = client.post("/predict", json=BODY)
            refused(response, 503, "too_many_bytes")
            assert response.headers["retry-after"] == "1"
            assert client.get("/health/ready").status_code == 200
            holder.close()
            until(client, "foldserve_bodies_held_bytes", 0)
            assert client.post("/predict", json=BODY).status_code == 200
    assert served.stop() == 0
    assert served.err == ""


# --- X-Timeout-Ms -----------------------------------------------------------------------


def test_the_clients_own_time_limit(start, tmp_path: Path):
    publish(tmp_path, "slow", repository.slow(4_000))
    served = start(tmp_path)
    row = {"inputs": [[1]]}
    with served.client() as client:
        for path in ("/predict", "/models/slow/predict"):
            response = client.post(path, json=row, headers={"x-timeout-ms": "1"})
            refused(response, 504, "deadline_exceeded")
        long = {"x-timeout-ms": "999999999999"}  # the server's own limit is shorter
        assert client.post("/predict", json=row, headers=long).status_code == 200
        for wild in ("0", "-1", "1.5", "1e3", "abc", "", "9" * 13, "٣"):
            response = client.post("/predict", json=row, headers={"x-timeout-ms": wild.encode()})
            refused(response, 400, "invalid_timeout")
    assert served.stop() == 0


# --- browsers ---------------------------------------------------------------------------


def test_headers_for_browsers(client: httpx.Client):
    for path in ("/", "/models", "/nope", "/health/live"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in headers
    assert client.post("/predict", json=BODY).headers["x-content-type-options"] == "nosniff"
    assert client.get("/docs").headers["content-security-policy"] == playground.POLICY


def test_other_pages_get_nothing_by_default(client: httpx.Client):
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in client.get("/models", headers=asked).headers
    assert "access-control-allow-origin" not in client.options("/predict", headers=asked).headers


def test_the_origins_that_are_named_may_read(start, tmp_path: Path):
    publish(tmp_path, "m", linear())
    served = start(tmp_path, "--cors-origins", "https://a.example,http://localhost:3000")
    with served.client() as client:
        for origin in ("https://a.example", "http://localhost:3000"):
            asked = {
                "origin": origin,
                "access-control-request-method": "POST",
                # All that the service reads: docs/protocols.md and docs/service.md.
                "access-control-request-headers": "content-type,x-api-key,x-shape,x-dtype,"
                "x-timeout-ms,x-server-timing,x-request-id,traceparent,tracestate,"
                "inference-header-content-length,authorization,accept",
            }
            answer = client.options("/predict", headers=asked)
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == origin
            raw = {"accept": "application/octet-stream", "x-server-timing": "1"}
            answer = client.post("/predict", json=BODY, headers={"origin": origin, **raw})
            assert answer.headers["access-control-allow-origin"] == origin
            readable = answer.headers["access-control-expose-headers"].split(", ")
            assert {"x-shape", "x-dtype", "server-timing", "x-request-id"} <= set(readable)
            assert set(readable) & set(answer.headers) >= {"x-shape", "x-dtype", "server-timing"}
        for origin in ("https://a.example.evil", "http://a.example", "null", "https://b.example"):
            answer = client.post("/predict", json=BODY, headers={"origin": origin})
            assert "access-control-allow-origin" not in answer.headers
    assert served.stop() == 0

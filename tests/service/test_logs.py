"""What is logged, in which form, and what a client cannot write into it."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import grpc
import pytest
import repository
from repository import linear, publish

from service.exchange import Exchange
from service.telemetry.access_log import AccessLog
from service.telemetry.logs import FIELDS, FORMAT, Json, Text

GOOD = {"inputs": [[1, 2, 3, 4]]}


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("foldserve.x", logging.WARNING, __file__, 1, message, (), None)
    made.__dict__.update(extra)
    return made


def test_a_message_cannot_begin_a_line_of_its_own():
    text = Text(FORMAT).format(record("a\nb\rc"))
    assert text.count("\n") == text.count("\r") == 0
    assert text.endswith("foldserve.x: a\\nb\\rc")
    assert json.loads(Json().format(record("a\nb")))["message"] == "a\nb"


def test_json_lines_have_time_level_fields_and_traceback():
    try:
        raise ValueError("odd")
    except ValueError:
        made = record("it failed", exc_info=sys.exc_info(), **{FIELDS: {"rows": 3, "p": Path("q")}})
    event = json.loads(Json().format(made))
    assert event["time"].endswith("Z")
    assert (event["level"], event["logger"]) == ("warning", "foldserve.x")
    assert (event["message"], event["rows"], event["p"]) == ("it failed", 3, "q")
    assert "ValueError: odd" in event["exception"]


def test_a_server_that_logs_json_and_every_request(start, tmp_path: Path):
    publish(tmp_path, "m", linear())
    served = start(tmp_path, "--log-format", "json", "--access-log-every-requests", "1")
    with served.client() as client:
        ids = {"x-request-id": "my-own-id"}
        assert client.post("/predict", json=GOOD, headers=ids).status_code == 200
        assert client.post("/predict", json={"inputs": [[1]]}).status_code == 400
        assert client.get("/no/such%0aroute").status_code == 404
    assert served.stop() == 0
    events = [json.loads(line) for line in served.err.splitlines()]
    assert all(event["logger"] == "foldserve.access" for event in events)
    good, bad, lost = events
    assert good["request_id"] == "my-own-id"
    assert {event["client"] for event in events} == {"127.0.0.1"}
    assert not any("key" in event for event in events)
    assert (good["method"], good["route"], good["status"]) == ("POST", "/predict", 200)
    assert (good["model"], good["version"], good["rows"], good["batch_rows"]) == ("m", 1, 1, 1)
    assert good["duration_ms"] >= good["compute_ms"] > 0
    assert good["body_bytes"] > 10
    assert (bad["status"], bad["error"]) == (400, "wrong_shape")
    assert (lost["route"], lost["status"], lost["error"]) == ("other", 404, "not_found")
    assert "such" not in json.dumps(lost)


def test_lines_name_the_key_and_do_not_quote_it(start, tmp_path: Path):
    publish(tmp_path / "models", "m", linear())
    key, other = "first-key-of-the-team", "second-key-of-the-team"
    (tmp_path / "keys").write_text(f"{key} team-a\n{other}\n")
    served = start(
        tmp_path / "models", "--log-format", "json", "--access-log-every-requests", "1",
        "--api-keys-file", str(tmp_path / "keys"), "--grpc-port", "0",
    )  # fmt: skip
    with served.client() as client:
        for each in (key, other, "no-key-of-anybody-here"):
            client.post("/predict", json=GOOD, headers={"x-api-key": each})
    target = next(line for line in served.out.splitlines() if line.startswith("  grpc "))
    with grpc.insecure_channel(target.split()[1]) as channel:
        method = channel.unary_unary("/inference.GRPCInferenceService/ServerMetadata")
        method(b"", metadata=(("authorization", f"Bearer {key}"),), timeout=30)
    assert served.stop() == 0
    events = [json.loads(line) for line in served.err.splitlines()]
    assert [event.get("key") for event in events] == ["team-a", "api-line-2", None, "team-a"]
    assert [event["status"] for event in events] == [200, 200, 401, 200]
    assert {event["client"] for event in events} == {"127.0.0.1"}
    assert events[-1]["route"] == "grpc ServerMetadata"
    assert not any(each in served.err for each in (key, other, "no-key"))


def test_it_is_silent_by_default_and_failures_have_their_id(start, tmp_path: Path):
    publish(tmp_path, "broken", repository.slow(1))
    publish(tmp_path, "m", linear())
    served = start(tmp_path)
    with served.client() as client:
        assert client.post("/models/m/predict", json=GOOD).status_code == 200
        assert client.get("/nope").status_code == 404
    assert served.stop() == 0
    assert served.err == ""


def exchanges(count: int, status: int = 200) -> list[Exchange]:
    made = [Exchange(f"id-{i}") for i in range(count)]
    for exchange in made:
        exchange.status = status
        exchange.finished = exchange.started
    return made


def test_one_line_for_so_many_requests_and_one_for_every_failure(
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.INFO)
    log = AccessLog(10)
    for exchange in [*exchanges(25), *exchanges(3, 500)]:
        log(exchange, {"method": "GET"})
    log.close()
    statuses = [r.__dict__[FIELDS]["status"] for r in caplog.records]
    assert statuses == [200, 200, 500, 500, 500]


def test_lines_that_come_too_fast_are_dropped_and_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("service.telemetry.access_log._CAPACITY_LINES", 5)
    monkeypatch.setattr("service.telemetry.access_log._PAUSE_S", 3600)
    caplog.set_level(logging.INFO)
    log = AccessLog(1)
    for exchange in exchanges(12):
        log(exchange, {"method": "GET"})
    log.close()
    assert len(caplog.records) == 6
    assert caplog.records[-1].getMessage().startswith("7 requests have no line")


def test_lines_that_wait_hold_nothing_of_the_heads(monkeypatch: pytest.MonkeyPatch):
    """When nobody reads the log ten thousand wait, each of a head of up to --max-header-bytes."""
    monkeypatch.setattr("service.telemetry.access_log._PAUSE_S", 3600)
    log = AccessLog(1)
    (exchange,) = exchanges(1)
    value = b"v" * 30_000
    scope = {"method": "GET" * 99, "client": ("10.0.0.1", 5), "headers": [(b"x-api-key", value)]}
    held = sys.getrefcount(value)
    log(exchange, scope)
    scope.clear()
    (line,) = log._lines
    assert line[1:] == (("GET" * 99)[:16], "10.0.0.1", "")
    assert sys.getrefcount(value) < held
    log.close()

"""Traces: one span a request, its stages inside it, the client's trace around it."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from repository import linear, publish

from service.batching.limits import Ran
from service.exchange import Exchange
from service.telemetry import tracing
from service.telemetry.tracing import Tracing, TracingUnavailable

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
GOOD = {"inputs": [[1, 2, 3, 4]]}


def observed(status: int = 200, headers: list[tuple[bytes, bytes]] | None = None, **fields):
    """The spans of one request, the request's own last."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    exchange = Exchange("my-id")
    exchange.status = status
    exchange.route = "/predict"
    base = exchange.started
    exchange.finished = base + 1
    if "ran" in fields:
        moments = [base + fields.pop(name) for name in ("free", "ran", "computed")]
        exchange.batch = Ran(fields.pop("rows_in_batch"), 1, *moments)
    for name, value in fields.items():
        moment = name in {"read", "decoded", "answered", "encoded"}
        setattr(exchange, name, base + value if moment else value)
    Tracing(provider)(exchange, {"method": "POST", "headers": headers or []})
    return exporter.get_finished_spans()


def milliseconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e6


def test_a_prediction_has_its_stages():
    *stages, whole = observed(
        model="m", version=3, rows=2, rows_in_batch=8,
        read=0.1, decoded=0.2, free=0.2, ran=0.3, computed=0.7, answered=0.8, encoded=0.9,
    )  # fmt: skip
    assert whole.name == "POST /predict"
    assert whole.kind is SpanKind.SERVER
    assert whole.parent is None
    assert milliseconds(whole) == pytest.approx(1000, abs=0.01)
    assert whole.attributes == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "http.request.body.size": 0,
        "foldserve.request_id": "my-id",
        "foldserve.model": "m",
        "foldserve.model_version": 3,
        "foldserve.rows": 2,
        "foldserve.batch_rows": 8,
    }
    assert [(s.name, round(milliseconds(s))) for s in stages] == [
        ("decode", 100), ("queue", 0), ("batch_wait", 100), ("compute", 400), ("encode", 100),
    ]  # fmt: skip
    for stage in stages:
        assert stage.parent is not None
        assert stage.parent.span_id == whole.context.span_id


def test_the_clients_trace_goes_on():
    parent = (b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())
    (whole,) = observed(headers=[(b"host", b"x"), parent, (b"tracestate", b"a=1")])
    assert f"{whole.context.trace_id:032x}" == TRACE
    assert whole.parent is not None
    assert f"{whole.parent.span_id:016x}" == PARENT
    assert whole.context.trace_state.get("a") == "1"


@pytest.mark.parametrize("wild", [b"", b"00-xyz", b"\xff" * 200, b"00-" + b"0" * 32 + b"-x-01"])
def test_a_wild_traceparent_begins_a_new_trace(wild: bytes):
    (whole,) = observed(headers=[(b"traceparent", wild)])
    assert whole.parent is None


def test_a_trace_that_is_not_sampled_stays_so():
    parent = (b"traceparent", f"00-{TRACE}-{PARENT}-00".encode())
    assert observed(headers=[parent]) == ()


@pytest.mark.parametrize(("status", "code"), [(400, StatusCode.UNSET), (503, StatusCode.ERROR)])
def test_errors(status: int, code: StatusCode):
    (whole,) = observed(status, error="queue_full")
    assert whole.status.status_code is code
    assert whole.attributes is not None
    assert whole.attributes["error.type"] == "queue_full"


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingUnavailable, match=r"foldserve\[otel\]"):
        tracing.over_http("http://127.0.0.1:4318/v1/traces", "0")


class Collector(http.server.BaseHTTPRequestHandler):
    """Keeps the spans that it is sent."""

    spans: list[object]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_sends_its_spans_before_it_ends(start, tmp_path: Path):
    publish(tmp_path, "m", linear())
    handler = type("Mine", (Collector,), {"spans": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        served = start(
            tmp_path, "--otlp-endpoint", f"http://127.0.0.1:{collector.server_port}/v1/traces"
        )
        with served.client() as client:
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            assert client.post("/predict", json=GOOD, headers=headers).status_code == 200
        assert served.stop() == 0
        collector.shutdown()
        thread.join()
    mine = [span for span in handler.spans if span.trace_id.hex() == TRACE]
    names = {span.name for span in mine}
    assert names == {"POST /predict", "decode", "queue", "batch_wait", "compute", "encode"}
    assert served.err == ""


def test_a_grpc_call_is_observed_as_well(start, tmp_path: Path):
    tritonclient = pytest.importorskip("tritonclient.grpc")
    publish(tmp_path, "m", linear())
    served = start(
        tmp_path, "--grpc-port", "0", "--log-format", "json", "--access-log-every-requests", "1"
    )
    served.wait_for("  ready ")
    line = next(line for line in served.out.splitlines() if line.startswith("  grpc "))
    with tritonclient.InferenceServerClient(line.split()[-1].removeprefix("grpc://")) as client:
        assert client.is_server_live()
    assert served.stop() == 0
    (event,) = (json.loads(text) for text in served.err.splitlines())
    assert (event["route"], event["status"]) == ("grpc ServerLive", 200)

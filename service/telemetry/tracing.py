"""OpenTelemetry traces: a span for each request, and one inside it for each of its stages.

    POST /predict                 http.route, foldserve.model, foldserve.rows, ...
      decode  queue  batch_wait  compute  encode

The spans are made after the answer, from the times that the exchange has anyway; a `traceparent`
of the client (W3C Trace Context) is their parent. What is sampled is decided by the SDK's own
variables, OTEL_TRACES_SAMPLER and the like; OTEL_SERVICE_NAME names the service. Needs the extra
`otel`, and is off without --otlp-endpoint.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.types import Scope

from service.exchange import Exchange

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

_PARENT = (b"traceparent", b"tracestate")
_FAULT_OF_THE_SERVER = 500
_FLUSH_MS = 2000


class TracingUnavailable(Exception):
    """Traces were asked for and cannot be had; the text says what to install."""


class Tracing:
    """An observer of the gate."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("foldserve")
        self._propagator = TraceContextTextMapPropagator()
        # time.monotonic() has no epoch: this is where it began, on the clock of the day.
        self._epoch_ns = time.time_ns() - int(time.monotonic() * 1e9)

    def __call__(self, exchange: Exchange, scope: Scope) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in _PARENT
        }
        method = scope["method"]
        span = self._tracer.start_span(
            f"{method} {exchange.route}",
            self._propagator.extract(carrier),
            SpanKind.SERVER,
            _attributes(exchange, method),
            start_time=self._at(exchange.started),
        )
        if exchange.status >= _FAULT_OF_THE_SERVER:
            span.set_status(Status(StatusCode.ERROR, exchange.error))
        inside = set_span_in_context(span)
        for name, begin, end in exchange.stages():
            stage = self._tracer.start_span(name, inside, start_time=self._at(begin))
            stage.end(self._at(end))
        span.end(self._at(exchange.finished))

    def close(self) -> None:
        """Send what is left."""
        self._provider.force_flush(_FLUSH_MS)
        self._provider.shutdown()

    def _at(self, seconds: float) -> int:
        return self._epoch_ns + int(seconds * 1e9)


def over_http(endpoint: str, version: str) -> Tracing:
    """Traces that are sent to `endpoint` by OTLP over HTTP, in batches, from a thread.

    Raises:
        TracingUnavailable: the extra is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise TracingUnavailable(
            '--otlp-endpoint needs OpenTelemetry: pip install "foldserve[otel]".'
        ) from None
    defaults = Resource({"service.name": "foldserve", "service.version": version})
    provider = TracerProvider(resource=defaults.merge(_resource_of_the_environment()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    return Tracing(provider)


def _resource_of_the_environment() -> Resource:
    from opentelemetry.sdk.resources import OTELResourceDetector

    return OTELResourceDetector().detect()


def _attributes(exchange: Exchange, method: str) -> dict[str, str | int]:
    """By the semantic conventions where there are some."""
    attributes: dict[str, str | int] = {
        "http.request.method": method[:16],
        "http.route": exchange.route,
        "http.response.status_code": exchange.status,
        "http.request.body.size": exchange.body_bytes,
        "foldserve.request_id": exchange.request_id,
    }
    if exchange.error:
        attributes["error.type"] = exchange.error
    if exchange.model:
        attributes["foldserve.model"] = exchange.model
        attributes["foldserve.model_version"] = exchange.version
        attributes["foldserve.rows"] = exchange.rows
    if exchange.computed:
        attributes["foldserve.batch_rows"] = exchange.rows_in_batch
    return attributes

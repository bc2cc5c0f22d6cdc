"""grpc.health.v1, which Kubernetes and load balancers ask over gRPC.

    Check("")                                readiness, as ServerReady
    Check("inference.GRPCInferenceService")  the same
    Check("liveness"), Check("readiness")    by the names that Kubernetes suggests
    any other service                        NOT_FOUND
    Watch(...)                               the same now, and again at each change; SERVICE_UNKNOWN
                                             for any other service

Source: grpc/health/v1/health.proto; gRPC, doc/health-checking.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from service.errors import InvalidBody
from service.protocols.grpc_messages import SERVICE
from service.protocols.grpc_streams import Next, Streams

PACKAGE = "grpc.health.v1"
HEALTH = f"{PACKAGE}.Health"
MESSAGES = {
    "HealthCheckRequest": "service:string=1",
    "HealthCheckResponse": "status:HealthCheckResponse.ServingStatus=1",
    "HealthCheckResponse.ServingStatus": "enum UNKNOWN=0 SERVING=1 NOT_SERVING=2 SERVICE_UNKNOWN=3",
}

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
_LOOK_S = 0.25
_SERVICES = frozenset({"", SERVICE, "readiness"})


def status(service: str, *, ready: bool) -> int | None:
    """SERVING or NOT_SERVING; None for a service that is not known here."""
    if service == "liveness":
        return SERVING
    if service not in _SERVICES:
        return None
    return SERVING if ready else NOT_SERVING


class Watch:
    """The method Watch, for `Streams.handler`.

    Args:
        streams: ends it when the server stops.
        ready: whether the server should get traffic.
    """

    def __init__(
        self, streams: Streams, classes: Mapping[str, type[Any]], ready: Callable[[], bool]
    ) -> None:
        self._streams = streams
        self._request = classes["HealthCheckRequest"]
        self._response = classes["HealthCheckResponse"]
        self._ready = ready

    async def __call__(self, next_message: Next) -> AsyncIterator[bytes]:
        if (message := await next_message()) is None:
            return
        try:
            service = self._request.FromString(message).service
        except DecodeError:
            raise InvalidBody("The message cannot be read as a HealthCheckRequest.") from None
        told = None
        closing = False
        while True:
            known = status(service, ready=self._ready() and not closing)
            if told != (now := SERVICE_UNKNOWN if known is None else known):
                told = now
                yield self._response(status=now).SerializeToString()
            if closing:
                return
            closing = await self._streams.until_closing(_LOOK_S)

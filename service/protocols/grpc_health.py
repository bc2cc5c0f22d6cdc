"""grpc.health.v1, which Kubernetes and load balancers ask over gRPC.

    Check("")                                readiness, as ServerReady
    Check("inference.GRPCInferenceService")  the same
    Check("liveness"), Check("readiness")    by the names that Kubernetes suggests
    any other service                        NOT_FOUND

`Watch` is not served, which its clients take for "healthy" (gRPC health checking protocol).

Source: grpc/health/v1/health.proto. An enum goes over the wire as an int32.
"""

from __future__ import annotations

from service.protocols.grpc_messages import SERVICE

PACKAGE = "grpc.health.v1"
HEALTH = f"{PACKAGE}.Health"
MESSAGES = {"HealthCheckRequest": "service:string=1", "HealthCheckResponse": "status:int32=1"}

SERVING, NOT_SERVING = 1, 2
_SERVICES = frozenset({"", SERVICE, "readiness"})


def status(service: str, *, ready: bool) -> int | None:
    """SERVING or NOT_SERVING; None for a service that is not known here."""
    if service == "liveness":
        return SERVING
    if service not in _SERVICES:
        return None
    return SERVING if ready else NOT_SERVING

"""5xx: the server cannot answer, or not now."""

from __future__ import annotations

from service.errors.base import ServiceError


class InferenceFailed(ServiceError):
    """The session raised; the request fails, the owner of the model lives on."""

    code = "inference_failed"
    default_hint = "The server's log has the reason under this request's X-Request-ID."


class NonFiniteOutput(ServiceError):
    """An output holds NaN or infinity and --nan-policy is `error`."""

    code = "non_finite_output"
    default_hint = "Check the inputs; with --nan-policy null such numbers are answered as null."


class NotReady(ServiceError):
    """GET /health/ready while something is missing."""

    status = 503
    code = "not_ready"
    default_hint = "Wait and ask again; GET /models has the reasons."


class ModelUnavailable(ServiceError):
    """The model exists, but no version of it could be loaded, or its owner has died."""

    status = 503
    code = "model_unavailable"
    default_hint = "GET /models has the reason for each version."


class ModelLoading(ServiceError):
    """The server has just started and is still loading."""

    status = 503
    code = "model_loading"
    default_hint = "Try again in a moment; GET /health/ready tells when."


class QueueFull(ServiceError):
    """The queue of the model has no room for the rows of this request."""

    status = 503
    code = "queue_full"
    default_hint = "The server is overloaded: try again after Retry-After seconds."


class TooManyConnections(ServiceError):
    """More than --max-connections connections are open."""

    status = 503
    code = "too_many_connections"
    default_hint = "Close idle connections and try again, or raise --max-connections."


class TooManyBytes(ServiceError):
    """What the requests under way hold fills --max-in-flight-bytes."""

    status = 503
    code = "too_many_bytes"
    default_hint = "The server is overloaded: try again after Retry-After seconds."


class ShuttingDown(ServiceError):
    """The server is stopping and takes no new work."""

    status = 503
    code = "shutting_down"
    default_hint = "Send the request to another instance, or again after the restart."


class ReplicaLost(ServiceError):
    """On Ray: the replicas that were given the request have ended before they answered."""

    status = 503
    code = "replica_lost"
    default_hint = "Send the request again; if it always ends so, the log of the replica tells why."


class DeadlineExceeded(ServiceError):
    """The answer was not ready within --request-timeout-ms."""

    status = 504
    code = "deadline_exceeded"
    default_hint = "Send fewer rows, try again when the server is less busy, or raise the timeout."

"""Every error that a client can meet: one ladder, one JSON shape.

A class carries its HTTP status, a code that programs may rely on, and a default hint that
says what to do. The body is always the flat object {"code", "message", "hint"}. Messages
speak of names, shapes, types and positions; never of tensor values or of file paths.
"""

from __future__ import annotations

from typing import ClassVar


class ServiceError(Exception):
    """Base of the ladder. Raise a class below it, never this one.

    Args:
        message: what happened, one sentence for a person.
        hint: what to do about it; the class has a default.
        retry_after_s: whole seconds for the Retry-After header, for overload and start-up.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    default_hint: ClassVar[str] = "This is a defect of the server. Its log has the details."

    def __init__(
        self, message: str, *, hint: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, str]:
        """The JSON body, the same three keys for every error of the server."""
        return {"code": self.code, "message": self.message, "hint": self.hint}

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers that belong to this error, besides the content type."""
        if self.retry_after_s is None:
            return []
        return [(b"retry-after", str(self.retry_after_s).encode())]


# --- 4xx: the request -------------------------------------------------------------------


class BadRequest(ServiceError):
    """The request cannot be understood. Raise one of the classes below."""

    status = 400
    code = "bad_request"
    default_hint = "See /docs for the shape of a request."


class EmptyBody(BadRequest):
    """The body has no bytes, or only white space."""

    code = "empty_body"
    default_hint = 'Send a JSON object such as {"inputs": [[...]]}.'


class InvalidUtf8(BadRequest):
    """The body is not UTF-8, the only encoding that JSON has."""

    code = "invalid_utf8"
    default_hint = "Encode the body as UTF-8."


class MalformedJson(BadRequest):
    """The body is UTF-8 but no JSON document."""

    code = "malformed_json"
    default_hint = "Check the body with a JSON validator at the position named."


class NonFiniteLiteral(BadRequest):
    """The body spells NaN or Infinity, which JSON does not have."""

    code = "nan_literal"
    default_hint = "JSON has no NaN and no Infinity: replace those values before you send them."


class DuplicateKey(BadRequest):
    """A key, for example the name of an input, occurs twice in one object."""

    code = "duplicate_key"
    default_hint = "Give each input once."


class InvalidBody(BadRequest):
    """The JSON document is not the object that the route expects."""

    code = "invalid_body"
    default_hint = 'Send {"inputs": [[...]]}, or {"inputs": {"<name>": [...]}} by name.'


class MissingInput(BadRequest):
    """An input of the model is not in the request."""

    code = "missing_input"
    default_hint = "Give every input of the model; GET /models/<name> lists them."


class UnknownInput(BadRequest):
    """The request names an input that the model does not have."""

    code = "unknown_input"
    default_hint = "GET /models/<name> lists the inputs of the model."


class UnknownOutput(BadRequest):
    """The request asks for an output that the model does not have."""

    code = "unknown_output"
    default_hint = "GET /models/<name> lists the outputs of the model."


class NullValue(BadRequest):
    """A tensor holds null."""

    code = "null_value"
    default_hint = "A tensor has no missing values: replace null by a number."


class WrongType(BadRequest):
    """An element (text, true, 1.5, an object) does not suit the dtype of the input."""

    code = "wrong_type"
    default_hint = "Send plain JSON numbers; true and false only for a bool input."


class OutOfRange(BadRequest):
    """A number does not fit the dtype of the input (it would overflow or become infinite)."""

    code = "out_of_range"
    default_hint = "Check the units and the scale of the values."


class RaggedInput(BadRequest):
    """The nested lists have different lengths or depths."""

    code = "ragged_input"
    default_hint = "All lists of one level must have the same length."


class WrongRank(BadRequest):
    """The tensor has more or fewer axes than the input."""

    code = "wrong_rank"
    default_hint = "Compare the number of nested lists with the expected shape."


class WrongShape(BadRequest):
    """The rank is right but a size is not."""

    code = "wrong_shape"
    default_hint = "Resize or pad the data to the expected shape."


class EmptyBatch(BadRequest):
    """The request has no rows, or an axis of size zero."""

    code = "empty_batch"
    default_hint = "Send at least one row."


class BatchMismatch(BadRequest):
    """Two inputs of the request disagree about a size that they share."""

    code = "batch_mismatch"
    default_hint = "All inputs of a request must have the same number of rows."


class MalformedHttp(BadRequest):
    """What came over the connection is no HTTP request; the connection closes."""

    code = "malformed_http"
    default_hint = "Speak HTTP/1.1, without TLS, and wait for the answers."


class InvalidTimeout(BadRequest):
    """X-Timeout-Ms is not a whole number of milliseconds."""

    code = "invalid_timeout"
    default_hint = "Send X-Timeout-Ms as a whole number of milliseconds from 1, or leave it out."


class InvalidImage(BadRequest):
    """A picture cannot be decoded."""

    code = "invalid_image"
    default_hint = "Send a complete PNG or JPEG file."


class ModelNotChosen(BadRequest):
    """POST /predict with several models and no default."""

    code = "model_not_chosen"
    default_hint = "POST to /models/<name>/predict, or start the server with --default-model."


class Unauthorized(ServiceError):
    """The server asks for a key, and the request has none that is valid."""

    status = 401
    code = "unauthorized"
    default_hint = "Send a key of this server as Authorization: Bearer <key>, or as X-API-Key."

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"www-authenticate", b"Bearer")]


class Forbidden(ServiceError):
    """The key is valid, but not for this."""

    status = 403
    code = "forbidden"
    default_hint = "Use a key of --admin-keys-file."


class AdminClosed(Forbidden):
    """The server was started without admin keys: routes that change it are closed."""

    code = "admin_closed"
    default_hint = "Start the server with --admin-keys-file, or change the models on disk."


class NotFound(ServiceError):
    """No route has this path."""

    status = 404
    code = "not_found"
    default_hint = "GET / lists the routes, /docs explains them."


class UnknownModel(NotFound):
    """The repository has no model of this name."""

    code = "unknown_model"
    default_hint = "GET /models lists what is served."


class UnknownVersion(NotFound):
    """The model is served, but not in this version."""

    code = "unknown_version"
    default_hint = "GET /models/<name> tells which version is served and why others are not."


class NotWithWorkers(ServiceError):
    """A change that only the process that got the request would see."""

    status = 409
    code = "not_with_workers"
    default_hint = "Remove the model's folder from the repository: every worker notices."


class MethodNotAllowed(ServiceError):
    """The route exists, for other methods."""

    status = 405
    code = "method_not_allowed"
    default_hint = "The Allow header lists the methods of this route."


class HeaderTimeout(ServiceError):
    """The headers did not arrive within --header-timeout-ms."""

    status = 408
    code = "header_timeout"
    default_hint = "Send the headers at once."


class NotAcceptable(ServiceError):
    """The answer cannot be written in the media type that the client accepts."""

    status = 406
    code = "not_acceptable"
    default_hint = "Accept application/json."


class BodyTimeout(ServiceError):
    """The body did not arrive within --body-timeout-ms."""

    status = 408
    code = "body_timeout"
    default_hint = "Send the body without pauses, or raise --body-timeout-ms."


class BodyTooLarge(ServiceError):
    """The body is larger than --max-body-bytes."""

    status = 413
    code = "body_too_large"
    default_hint = "Send fewer rows at a time, or raise --max-body-bytes."


class TensorTooLarge(ServiceError):
    """One tensor of the request would take more than --max-tensor-bytes."""

    status = 413
    code = "tensor_too_large"
    default_hint = "Send fewer rows at a time, or raise --max-tensor-bytes."


class ImageTooLarge(ServiceError):
    """The pictures of a request have more pixels than --max-image-pixels."""

    status = 413
    code = "image_too_large"
    default_hint = "Make the images smaller, or raise --max-image-pixels."


class TooManySamples(ServiceError):
    """One request has more rows than the whole queue may hold."""

    status = 413
    code = "too_many_samples"
    default_hint = "Split the request, or raise --queue-capacity-samples."


class UnsupportedMediaType(ServiceError):
    """The content type, charset or content encoding is none that the route reads."""

    status = 415
    code = "unsupported_media_type"
    default_hint = "Send JSON with the header Content-Type: application/json."


class InputRefused(ServiceError):
    """The request was in order, and a node of the graph refused its values or sizes."""

    status = 422
    code = "input_refused"
    default_hint = "Check the values (indices) and the open sizes against what the model expects."


class HeadersTooLarge(ServiceError):
    """The request line and headers exceed --max-header-bytes, or are too many."""

    status = 431
    code = "headers_too_large"
    default_hint = "Send fewer or shorter headers, or raise --max-header-bytes."


class ClientError(ServiceError):
    """A 4xx that the framework raised and that has no class of its own."""

    status = 400
    code = "client_error"
    default_hint = "See /docs."


# --- 5xx: the server --------------------------------------------------------------------


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
    """The bodies of the requests under way fill --max-in-flight-bytes."""

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

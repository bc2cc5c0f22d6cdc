"""4xx: a request is refused for its head, its size or its key."""

from __future__ import annotations

from service.errors.base import ServiceError
from service.errors.body import BadRequest


class MalformedHttp(BadRequest):
    """What came over the connection is no HTTP request; the connection closes."""

    code = "malformed_http"
    default_hint = (
        "Speak HTTP/1.1, over TLS only if the server has a certificate, and wait for the answers."
    )


class InvalidTimeout(BadRequest):
    """X-Timeout-Ms is not a whole number of milliseconds."""

    code = "invalid_timeout"
    default_hint = "Send X-Timeout-Ms as a whole number of milliseconds from 1, or leave it out."


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


class NotAcceptable(ServiceError):
    """The answer cannot be written in the media type that the client accepts."""

    status = 406
    code = "not_acceptable"
    default_hint = "Accept application/json."


class HeaderTimeout(ServiceError):
    """The headers did not arrive within --header-timeout-ms."""

    status = 408
    code = "header_timeout"
    default_hint = "Send the headers at once."


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
    """The route does not read this content type, charset or content encoding."""

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
    """A 4xx of the framework for which there is no class here."""

    status = 400
    code = "client_error"
    default_hint = "See /docs."

"""400: what the body of a request says cannot be understood, or does not fit the model."""

from __future__ import annotations

from service.errors.base import ServiceError


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


class InvalidImage(BadRequest):
    """A picture cannot be decoded."""

    code = "invalid_image"
    default_hint = "Send a complete PNG or JPEG file."

"""The base of all errors: what a client is told, and how."""

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


def defect() -> ServiceError:
    """What a client is told of an exception that nobody expected; the log has the rest."""
    return ServiceError("Something went wrong inside the server.")

"""A request that is turned away: a status, a code for programs and a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping

from shared.encoding import to_json
from shared.errors import EventStreamError, MalformedMessageId

TRY_AGAIN_SECONDS = 2


class Refusal(EventStreamError):
    """The request can't be served."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after_seconds: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})
        if retry_after_seconds is not None:
            self.headers["Retry-After"] = str(retry_after_seconds)

    @property
    def body(self) -> str:
        """The JSON answer."""
        return to_json({"success": False, "message": str(self), "error": self.code})


def unavailable(what: str) -> Refusal:
    """503: something that this needs can't be reached just now."""
    message = f"{what} can't be reached just now. Please try again."
    return Refusal(503, "unavailable", message, retry_after_seconds=TRY_AGAIN_SECONDS)


def internal_error() -> Refusal:
    """500: a fault of ours, or of a server that we asked."""
    return Refusal(500, "internal_server_error", "Something went wrong here. It has been logged.")


def bad_message_id() -> Refusal:
    """400: what should be the id of a message is none."""
    return Refusal(400, "bad_message_id", str(MalformedMessageId()))


def no_such_message() -> Refusal:
    """404: whether it is another user's is not told."""
    return Refusal(404, "not_found", "There is no such message.")


def too_large(limit_bytes: int) -> Refusal:
    """413: more bytes than an upload may have."""
    message = f"An upload may have {limit_bytes / 1024 / 1024:g} MiB; this one has more."
    return Refusal(413, "too_large", message)


def body_too_large(limit_bytes: int) -> Refusal:
    """413: more bytes than the body of a request that is no upload may have."""
    message = f"The body of this request may have {limit_bytes // 1024} KiB; this one has more."
    return Refusal(413, "too_large", message)

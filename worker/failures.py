"""What a user is told of an exception: a code, a sentence, and whether trying again may help."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from enum import Enum
from typing import Any, ClassVar, TypeVar

import psycopg
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery.exceptions import Ignore, Reject
from kombu.exceptions import OperationalError

from shared.errors import PostgresUnavailable, RedisUnavailable
from shared.facts import ErrorInfo

log = logging.getLogger(__name__)

T = TypeVar("T")

INTERNAL = ErrorInfo("internal_error", "Something went wrong while this was being processed.")
WORKER_LOST = ErrorInfo("worker_lost", "Processing stopped unexpectedly. Please try again.", True)
UNKNOWN_TASK = ErrorInfo("unknown_task", "No worker knows how to process this.")
REJECTED = ErrorInfo("rejected", "This was refused and is not processed.")
_AWAY = ErrorInfo("unavailable", "A server that this needs can't be reached just now.", True)
_TOO_LONG = ErrorInfo("time_limit", "Processing took too long and was stopped.", True)
_TOO_LARGE = ErrorInfo("out_of_memory", "Processing this takes more memory than there is.")
_IGNORED = ErrorInfo("ignored", "Processing was given up without a result.")

_known: dict[type[BaseException], ErrorInfo] = {
    PostgresUnavailable: _AWAY,
    RedisUnavailable: _AWAY,
    psycopg.OperationalError: _AWAY,
    OperationalError: _AWAY,
    SoftTimeLimitExceeded: _TOO_LONG,
    TimeLimitExceeded: _TOO_LONG,
    MemoryError: _TOO_LARGE,
    WorkerLostError: WORKER_LOST,
    Reject: REJECTED,
    Ignore: _IGNORED,
}


class IngestError(Exception):
    """This source could not be processed.

    The text is the sentence its user reads: no paths, no stack. `code` is for programs,
    `retryable` says whether trying again may help, and `details` is merged into the payload of
    `source.ingest.failed`.
    """

    code: ClassVar[str] = "ingest_failed"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None, *, details: Mapping[str, Any] | None = None):
        super().__init__(message or _docstring(type(self)))
        self.details = _used(type(self), "details", lambda: dict(details or {})) or {}


def register_error(
    exception: type[BaseException], code: str, message: str, *, retryable: bool = False
) -> None:
    """Has an exception that is not your own, or one of its subclasses, told to users as this.

    Without it, an exception that is no `IngestError` is told as `internal_error`.

    Args:
        exception: the class; of several that fit, the nearest counts.
        code: for programs, such as `source_unreachable`.
        message: the sentence that the user reads: no paths, no stack.
        retryable: whether trying again may help.

    Raises:
        TypeError: the exception is no class of exceptions, or a text is none.
        ValueError: the code or the message is empty.
    """
    if not (isinstance(exception, type) and issubclass(exception, BaseException)):
        raise TypeError(f"An exception is registered by its class, not by {exception!r}.")
    for name, text in (("code", code), ("message", message)):
        if not isinstance(text, str):
            raise TypeError(f"The {name} of {exception.__name__} is text, not {text!r}.")
        if not text.strip():
            raise ValueError(f"The {name} of {exception.__name__} is empty.")
    _known[exception] = ErrorInfo(code, message, bool(retryable))


def describe(exception: Any) -> tuple[ErrorInfo, dict[str, Any]]:
    """An exception as its user may see it, and details for the payload. The rest is for the log.

    What an author's class has that is of no use here is left out and logged: the end of a run is
    worth more than what it says.
    """
    if isinstance(exception, IngestError):
        return _own_words(exception)
    for kind in type(exception).__mro__:
        if kind in _known:
            return _known[kind], {}
    return INTERNAL, {}


def _own_words(error: IngestError) -> tuple[ErrorInfo, dict[str, Any]]:
    kind = type(error)
    code = _used(kind, "code", lambda: _code(error.code)) or IngestError.code
    message = _used(kind, "text", lambda: _sentence(error)) or _docstring(kind)
    retryable = _used(kind, "retryable", lambda: bool(error.retryable)) or False
    details = _used(kind, "details", lambda: dict(getattr(error, "details", {})))
    return ErrorInfo(code, message, retryable), details or {}


def _used(kind: type[IngestError], name: str, read: Callable[[], T]) -> T | None:
    try:
        return read()
    except Exception:  # the author's own code, or what it left there
        log.exception("the %s of %s can't be told, and is left out", name, kind.__qualname__)
        return None


def _code(code: object) -> str:
    text = code.value if isinstance(code, Enum) else code
    if not isinstance(text, str):
        raise TypeError("a code is text")
    return text


def _sentence(error: IngestError) -> str:
    """Its text. One whose own `__init__` leaves out ours has arguments there, and no sentence."""
    has_own_text = type(error).__str__ is not BaseException.__str__
    return str(error).strip() if has_own_text or hasattr(error, "details") else ""


def _docstring(kind: type[IngestError]) -> str:
    """The first line of the nearest docstring, which Python has no class inherit."""
    for base in kind.__mro__:
        text = base.__doc__.strip() if isinstance(base.__doc__, str) else ""
        is_signature = is_dataclass(base) and text.startswith(f"{base.__name__}(")
        if text and not is_signature and issubclass(base, IngestError):
            return text.split("\n")[0]
    return INTERNAL.message

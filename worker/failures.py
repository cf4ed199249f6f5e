"""What a user is told of an exception: a code, a sentence, and whether trying again may help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import psycopg
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery.exceptions import Ignore, Reject
from kombu.exceptions import OperationalError

from shared.errors import PostgresUnavailable, RedisUnavailable
from shared.facts import ErrorInfo

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
        super().__init__(message or (type(self).__doc__ or "").strip().split("\n")[0])
        self.details = dict(details or {})


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
    """
    _known[exception] = ErrorInfo(code, message, retryable)


def describe(exception: Any) -> tuple[ErrorInfo, dict[str, Any]]:
    """An exception as its user may see it, and details for the payload. The rest is for the log."""
    if isinstance(exception, IngestError):
        error = ErrorInfo(exception.code, str(exception), exception.retryable)
        return error, exception.details
    for kind in type(exception).__mro__:
        if kind in _known:
            return _known[kind], {}
    return INTERNAL, {}

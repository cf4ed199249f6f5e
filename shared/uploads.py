"""Uploads: what a user sends, stored as one source for a run to ingest, and for later ones.

Processes share no disk: the bytes travel through Postgres from web to worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shared import upload_files
from shared.errors import EventStreamError
from shared.text import is_storable, label
from shared.upload_files import Connection, Readable, StoredFile, UploadGone, UploadTooLarge

__all__ = ["Stored", "UnusableName", "Upload", "UploadGone", "UploadTooLarge", "discard", "store"]


class UnusableName(EventStreamError):
    """A user id or Idempotency-Key can't hold a NUL character or half a surrogate pair."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that comes in. The name is a label; nothing is ever opened by it."""

    name: str
    media_type: str
    stream: Readable


@dataclass(frozen=True, slots=True)
class Stored:
    """A source and a run of it; `created` is False for what an Idempotency-Key had named before."""

    source_id: str
    run_id: str
    task_id: str
    name: str
    created: bool


def store(
    connection: Connection,
    *,
    user_id: str,
    name: str,
    files: Iterable[Upload],
    source_id: str,
    run_id: str,
    task_id: str,
    idempotency_key: str | None = None,
    max_bytes: int,
) -> Stored:
    """Stores an upload as a new source, whole or not at all.

    The same user and Idempotency-Key get what the first call stored, and no file is read again;
    of two calls at once the later waits for the earlier (a unique constraint decides).

    Args:
        connection: the rows are there for others when its transaction is committed.
        user_id: who owns the source.
        name: the source's name, as its user sees it.
        files: read one after another.
        source_id: a uuid.
        run_id: names the run that will ingest it.
        task_id: the id of that run's task.
        idempotency_key: what the client calls this upload.
        max_bytes: the most that all files may have together.

    Raises:
        UploadTooLarge: nothing was stored.
        UnusableName: nothing was stored.
    """
    if not all(map(is_storable, (user_id, idempotency_key or ""))):
        raise UnusableName
    with connection.transaction():
        row = connection.execute(
            "INSERT INTO sources (id, user_id, name, run_id, task_id, idempotency_key)"
            " VALUES (%s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (user_id, idempotency_key) DO NOTHING"
            " RETURNING id::text, run_id, task_id, name, true",
            (source_id, user_id, label(name), run_id, task_id, idempotency_key),
        ).fetchone()
        if row is None:
            return _earlier(connection, user_id, idempotency_key)
        count = _store_files(connection, source_id, run_id, files, max_bytes)
        connection.execute("UPDATE sources SET files = %s WHERE id = %s", (count, source_id))
        return Stored(*row)


def discard(connection: Connection, source_id: str) -> None:
    """Deletes a source that no worker will hear of, with all that was stored of it."""
    connection.execute("DELETE FROM sources WHERE id = %s", (source_id,))


def _earlier(connection: Connection, user_id: str, idempotency_key: str | None) -> Stored:
    row = connection.execute(
        "SELECT id::text, coalesce(first_run_id, run_id), coalesce(first_task_id, task_id),"
        " name, false FROM sources WHERE user_id = %s AND idempotency_key = %s",
        (user_id, idempotency_key),
    ).fetchone()
    if row is None:  # it was deleted in this moment
        raise UploadGone
    return Stored(*row)


def _store_files(
    connection: Connection, source_id: str, run_id: str, files: Iterable[Upload], max_bytes: int
) -> int:
    left, count = max_bytes, 0
    for count, upload in enumerate(files, 1):
        file = StoredFile("", source_id, run_id, count - 1, 0, upload.name, upload.media_type, 0)
        left -= upload_files.add(connection, file, upload.stream, max_bytes=left).size
    return count

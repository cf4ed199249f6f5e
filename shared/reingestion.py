"""Another run of a source that was uploaded: of the same files, which are kept for it.

What the new run makes of them takes the place of what the earlier one made when it is all there;
until then, and where the new run does not complete, the earlier documents stay.
"""

from __future__ import annotations

from uuid import UUID

from shared import upload_files
from shared.errors import EventStreamError
from shared.text import is_storable
from shared.upload_files import Connection
from shared.uploads import Stored, UnusableName, UploadGone


class NoSuchSource(EventStreamError):
    """There is no such source."""


def renew(
    connection: Connection,
    *,
    user_id: str,
    source_id: str,
    run_id: str,
    task_id: str,
    idempotency_key: str | None = None,
) -> Stored:
    """Gives a source another run, whose files are those that were uploaded.

    The same source and Idempotency-Key get the run that the first call made. Of two calls at once
    the later waits until the earlier's transaction is over. The arguments are `store`'s.

    Raises:
        NoSuchSource: it was not uploaded, or by another user.
        UploadGone: its files are not kept any more.
        UnusableName: nothing was changed.
    """
    if not all(map(is_storable, (user_id, idempotency_key or ""))):
        raise UnusableName
    if not _is_id(source_id):
        raise NoSuchSource
    with connection.transaction():
        row = connection.execute(
            "SELECT name, files FROM sources WHERE id = %s AND user_id = %s FOR UPDATE",
            (source_id, user_id),
        ).fetchone()
        if row is None:
            raise NoSuchSource
        name, count = row
        known = connection.execute(
            "SELECT run_id, task_id FROM reingestions"
            " WHERE source_id = %s AND idempotency_key = %s",
            (source_id, idempotency_key),
        ).fetchone()
        if known is not None:
            return Stored(source_id, known[0], known[1], name, created=False)
        if not count or upload_files.hand_over(connection, source_id, run_id) != count:
            raise UploadGone
        _make_latest(connection, source_id, run_id, task_id, idempotency_key)
    return Stored(source_id, run_id, task_id, name, created=True)


def forget(connection: Connection, stored: Stored) -> None:
    """Frees the Idempotency-Key of a run that no worker will hear of."""
    connection.execute(
        "DELETE FROM reingestions WHERE source_id = %s AND run_id = %s",
        (stored.source_id, stored.run_id),
    )


def _make_latest(
    connection: Connection, source_id: str, run_id: str, task_id: str, idempotency_key: str | None
) -> None:
    connection.execute(
        "UPDATE sources SET first_run_id = coalesce(first_run_id, run_id),"
        " first_task_id = coalesce(first_task_id, task_id), run_id = %s, task_id = %s"
        " WHERE id = %s",
        (run_id, task_id, source_id),
    )
    if idempotency_key is not None:
        connection.execute(
            "INSERT INTO reingestions (source_id, idempotency_key, run_id, task_id)"
            " VALUES (%s, %s, %s, %s)",
            (source_id, idempotency_key, run_id, task_id),
        )


def _is_id(source_id: str) -> bool:
    """Whether this can be the id of a source that was uploaded; a team's own may be anything."""
    try:
        return str(UUID(source_id)) == source_id
    except ValueError:
        return False

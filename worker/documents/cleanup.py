"""What a run leaves behind is removed: the uploaded bytes, and the whole texts."""

from __future__ import annotations

from datetime import timedelta

from shared import uploads
from shared.connections import postgres
from shared.runs import RunRef
from shared.settings import get_settings
from shared.signals import run_ended
from worker.documents import store


def delete_uploads(run_id: str) -> None:
    """Deletes what a run no longer needs when it has ended; its chunks stay.

    Raises:
        PostgresUnavailable: nothing was deleted; `prune` does it later.
    """
    with postgres() as connection:
        uploads.delete(connection, run_id)
        store.forget_texts(connection, run_id)


def prune() -> int:
    """Deletes what ended runs left because a process died; returns how many files.

    A run that waits is given up after `INGEST_QUEUE_TIMEOUT_SECONDS`; twice that is past all use.
    """
    older_than = timedelta(seconds=2 * get_settings().ingest_queue_timeout_seconds)
    with postgres() as connection:
        store.prune_texts(connection, older_than)
        return uploads.prune(connection, older_than)


@run_ended.connect
def on_run_ended(ref: RunRef, status: str) -> None:
    """Cleans up as soon as the step that ends a run was done by this process."""
    delete_uploads(ref.run_id)

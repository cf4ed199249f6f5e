"""What a run leaves behind is removed: unpacked files, whole texts, what was never shown.

The uploaded files stay for `UPLOAD_RETENTION_SECONDS`, so that the source can be ingested again.
"""

from __future__ import annotations

from datetime import timedelta

from shared import upload_files
from shared.connections import postgres
from shared.run_states import run_status
from shared.runs import TERMINAL
from shared.settings import get_settings
from worker.documents import store


def sweep() -> int:
    """Deletes what ended runs no longer need; what searches find stays. Returns how many runs.

    It asks for the state of runs and waits for no signal, so it does not matter who ended a run,
    or whether that process still lives. A run that Redis does not know counts as ended when no
    queue holds it any more: after twice `INGEST_QUEUE_TIMEOUT_SECONDS`.

    Raises:
        RedisUnavailable, PostgresUnavailable: the next sweep does it.
    """
    older_than = timedelta(seconds=2 * get_settings().ingest_queue_timeout_seconds)
    with postgres() as connection:
        kept = store.left_over(connection, older_than, _retention())
    ended = [run_id for run_id, user_id, is_old in kept if _has_ended(user_id, run_id, is_old)]
    for run_id in ended:
        clean_up(run_id)
    return len(ended)


def clean_up(run_id: str) -> None:
    """Deletes what a run that has ended no longer needs."""
    with postgres() as connection:
        upload_files.delete_members(connection, run_id)
        upload_files.delete_older(connection, run_id, _retention())
        store.forget_texts(connection, run_id)
        store.forget_staged(connection, run_id)


def _retention() -> timedelta:
    return timedelta(seconds=get_settings().upload_retention_seconds)


def _has_ended(user_id: str, run_id: str, is_old: bool) -> bool:
    status = run_status(user_id, run_id)
    return is_old if status is None else status in TERMINAL

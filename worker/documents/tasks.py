"""The tasks of the built-in pipeline: unpack, parse side by side, index. The work is elsewhere.

Each may run twice, in parallel too, and leaves the same state. Database trouble is retried for
some twenty minutes; what is wrong with a file is not, since it stays wrong.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import psycopg
from celery import chord, shared_task

from shared.errors import PostgresUnavailable
from worker.documents.cleanup import sweep
from worker.documents.indexing import index
from worker.documents.parsing import parse
from worker.documents.unpacking import unpack
from worker.ingest import stage

INGEST = {
    "user": "user_id",
    "source": "source_id",
    "stages": {"parse": 6, "chunk": 1, "index": 3},
}
# 2, 4, 8 ... seconds, at most 5 minutes apart, each cut short at random.
TRACKED: dict[str, Any] = {
    "bind": True,
    "ingest": INGEST,
    "acks_late": True,
    "autoretry_for": (psycopg.OperationalError, PostgresUnavailable),
    "retry_backoff": 2,
    "retry_backoff_max": 300,
    "retry_jitter": True,
    "max_retries": 12,
}
PARSE_SECONDS = 600


@shared_task(name="worker.documents.ingest_source", **TRACKED)
def ingest_source(self: Any, *, user_id: str, source_id: str, run_id: str) -> None:
    """Starts a run: one task a file, and one that waits for them all.

    The documents travel through Postgres; messages carry ids alone.
    """
    files = unpack(run_id)
    who = {"user_id": user_id, "source_id": source_id}
    with stage("parse", parts=len(files), unit="files"):
        members = [parse_file.si(**who, file_id=file.id) for file in files]
        raise self.replace(chord(members, index_source.si(**who, run_id=run_id)))


@shared_task(
    name="worker.documents.parse_file",
    soft_time_limit=PARSE_SECONDS,
    time_limit=PARSE_SECONDS + 60,
    **TRACKED,
)
def parse_file(self: Any, *, user_id: str, source_id: str, file_id: str) -> dict[str, Any]:
    """Reads one file; returns what became of it, also when that is an error."""
    return asdict(parse(file_id))


@shared_task(name="worker.documents.index_source", **TRACKED)
def index_source(self: Any, *, user_id: str, source_id: str, run_id: str) -> dict[str, Any]:
    """Makes what was read searchable; its result is the run's."""
    return index(user_id, source_id, run_id)


@shared_task(name="worker.documents.sweep", ignore_result=True)
def sweep_uploads() -> int:
    """Deletes the bytes of runs that have ended."""
    return sweep()

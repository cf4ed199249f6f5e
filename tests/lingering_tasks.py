"""A team's task that runs until it is let go, for the tests of cancelling."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path

from celery import Task, shared_task

from worker.ingest import track


@shared_task(
    base=Task,
    name="tests.linger",
    ingest={"user": "user_id", "source": "source_id"},
    acks_late=True,
)
def linger(user_id: str, source_id: str, folder: str) -> None:
    """Says in a folder that its body began, and waits there for a file named `go`."""
    place = Path(folder)
    (place / f"{source_id}.begun").touch()
    for _ in track(count(), unit="looks"):
        if (place / "go").exists():
            return
        time.sleep(0.02)

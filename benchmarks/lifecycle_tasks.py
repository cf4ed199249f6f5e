"""A task that does nothing, with the `ingest` option and without, for the benchmark's worker.

Another does what tracking can't do without: it asks Redis something at its start and at its end.

How long each execution takes its process, from `task_prerun` until everybody has heard of
`task_postrun`, goes into files of the folder that `BENCHMARK_FOLDER` names.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Task, shared_task, signals

from shared.connections import app_redis, ask

KEPT = 50  # of each kind in memory, before they are written
_began = 0.0
_seconds: dict[str, list[float]] = {}


@shared_task(base=Task, name="benchmark.tracked", ingest={"user": "user_id", "source": "source_id"})
def tracked(user_id: str, source_id: str) -> None:
    """Does nothing, and its user is told of it."""


@shared_task(name="benchmark.untracked")
def untracked(user_id: str, source_id: str) -> None:
    """Does nothing."""


@shared_task(name="benchmark.pinging")
def pinging(user_id: str, source_id: str) -> None:
    """Sends two bare PINGs, as a tracked task reports twice."""
    ask(app_redis(), "PING")
    ask(app_redis(), "PING")


def begin(**_: Any) -> None:
    global _began
    _began = time.perf_counter()


def end(sender: Any, **_: Any) -> None:
    found = _seconds.setdefault(sender.name, [])
    found.append(time.perf_counter() - _began)
    if len(found) == KEPT:
        file = Path(os.environ["BENCHMARK_FOLDER"]) / f"{sender.name}-{os.getpid()}"
        with file.open("a") as out:
            out.writelines(f"{seconds}\n" for seconds in found)
        found.clear()


if "BENCHMARK_FOLDER" in os.environ:  # after the project's own receivers, which came first
    signals.task_prerun.connect(begin, weak=False)
    signals.task_postrun.connect(end, weak=False)

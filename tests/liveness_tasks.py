"""A team's own tasks that are long, silent, interrupted or cancelled, for `WORKER_IMPORTS`."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Task, shared_task
from celery.utils.log import get_task_logger

from shared.facts import Failed, Retrying, Succeeded
from shared.runs import submit
from worker import execution as executions
from worker.execution import current
from worker.ingest import Ingest, IngestError, cancelled, stage, track

INGEST = Ingest(user="user_id", source="source_id")
LONGEST_SECONDS = 60.0

log = logging.getLogger(__name__)
task_log = get_task_logger(__name__)


class Unreadable(IngestError):
    """This file can't be read."""

    code = "unreadable"


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def call_c(seconds: float) -> None:
    """One call of C code, within which no Python runs in this thread."""
    ctypes.CDLL(None).sleep(int(seconds))


def compute(seconds: float) -> None:
    """One long computation in C that releases the GIL."""
    began = time.monotonic()
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 100_000)
    rounds = int(100_000 * seconds / (time.monotonic() - began))
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", rounds)


def hold_the_gil(seconds: float) -> None:
    """One call of C code that lets no other thread of the process run."""
    ctypes.PyDLL(None).sleep(int(seconds))


RELEASED: dict[str, Callable[[float], None]] = {"sleep": sleep, "c": call_c, "compute": compute}
SILENCE = {**RELEASED, "held": hold_the_gil}


@shared_task(base=Task, name="tests.silent", ingest=INGEST, acks_late=False)
def silent(user_id: str, source_id: str, way: str, seconds: float) -> None:
    """Says nothing for long."""
    SILENCE[way](seconds)


def _mark(path: str, text: str) -> None:
    with open(path, "a") as file:
        file.write(text + "\n")


def _loop(path: str) -> None:
    with stage("loop"):
        for number in track(range(int(LONGEST_SECONDS / 0.05)), unit="steps"):
            if number == 0:
                _mark(path, str(os.getpid()))
            time.sleep(0.05)


def _until_stopped(path: str, loop: Callable[[str], None]) -> None:
    try:
        loop(path)
    except BaseException as error:
        _mark(path, type(error).__name__)
        raise
    _mark(path, "done")


@shared_task(base=Task, name="tests.loop_early", ingest=INGEST, acks_late=False)
def loop_early(user_id: str, source_id: str, path: str) -> None:
    """Counts for a minute, its message acknowledged before; says how that ended."""
    _until_stopped(path, _loop)


@shared_task(base=Task, name="tests.loop_late", ingest=INGEST, acks_late=True)
def loop_late(user_id: str, source_id: str, path: str) -> None:
    """Counts for a minute, its message acknowledged after; says how that ended."""
    _until_stopped(path, _loop)


@shared_task(base=Task, name="tests.loop_asking", ingest=INGEST)
def loop_asking(user_id: str, source_id: str, path: str) -> None:
    """Asks again and again whether it is to stop."""
    _mark(path, str(os.getpid()))
    deadline = time.monotonic() + LONGEST_SECONDS
    while not cancelled() and time.monotonic() < deadline:
        time.sleep(0.05)
    _mark(path, "Cancelled" if cancelled() else "done")


@shared_task(
    base=Task,
    bind=True,
    name="tests.interrupted_end",
    ingest=INGEST,
    soft_time_limit=1,
    max_retries=1,
)
def interrupted_end(self: Any, user_id: str, source_id: str, ending: str, path: str) -> None:
    """Its soft time limit passes while its end is being reported."""
    if self.request.retries:
        return

    def slow(ref: Any, fact: Any) -> Any:
        if not isinstance(fact, (Succeeded, Failed, Retrying)):
            return submit(ref, fact)
        vars(executions)["submit"] = submit
        try:
            time.sleep(LONGEST_SECONDS)
        except Exception as error:
            _mark(path, type(error).__name__)
            raise
        return None

    vars(executions)["submit"] = slow
    if ending == "failed":
        raise Unreadable
    if ending == "retrying":
        raise self.retry(exc=Unreadable(), countdown=3)


@shared_task(base=Task, name="tests.forks", ingest=INGEST)
def forks(user_id: str, source_id: str) -> dict[str, bool]:
    """Forks a process that uses what its parent uses."""
    assert current() is not None
    child = os.fork()
    if child == 0:
        with stage("not here"):
            os._exit(0 if current() is None else 1)
    return {"harmless": os.waitpid(child, 0)[1] == 0}


@shared_task(base=Task, name="tests.logs", ingest=INGEST)
def logs(user_id: str, source_id: str, fails: bool) -> None:
    """Writes lines by each kind of logger."""
    log.warning("a line of a module's logger")
    task_log.warning("a line of a task's logger")
    log.warning("a line with a user of its own", extra={"user_id": 7, "run": "mine"})
    print("a line on standard output")
    if fails:
        raise RuntimeError("it fails")


@shared_task(name="tests.logs_untracked")
def logs_untracked() -> None:
    """Writes a line that is none of our business."""
    log.warning("a line of an untracked task")


def read(path: Path) -> list[str]:
    """What a task has marked in a file so far."""
    return path.read_text().split() if path.exists() else []

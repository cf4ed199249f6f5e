"""A team's own tasks, loaded by `WORKER_IMPORTS`, for the tests of the lifecycle."""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Task, chord, shared_task

from worker.execution import Execution, current
from worker.ingest import IngestError, progress, stage, track


def current_execution() -> Execution:
    execution = current()
    assert execution is not None
    return execution


INGEST = {"user": "user_id", "source": "source_id"}


class Unreadable(IngestError):
    """This file can't be read."""

    code = "unreadable"


@shared_task(base=Task, name="tests.count", ingest={**INGEST, "stages": {"count": 3, "sum": 1}})
def count(user_id: str, source_id: str, number: int) -> dict[str, Any]:
    """Two stages, one tracked and one by hand."""
    with stage("count"):
        items = list(track(range(number), unit="items"))
    with stage("sum"):
        progress(1, 2)
        total = sum(items)
    return {"total": total}


@shared_task(base=Task, name="tests.fail", ingest=INGEST)
def fail(user_id: str, source_id: str, secret: str) -> None:
    """An exception whose text is not for users."""
    raise RuntimeError(f"/srv/{secret}")


@shared_task(base=Task, name="tests.refuse", ingest=INGEST)
def refuse(user_id: str, source_id: str) -> None:
    """An error that is for users."""
    raise Unreadable(details={"failed_files": [{"name": "a"}]})


@shared_task(base=Task, bind=True, name="tests.retry_once", ingest=INGEST, max_retries=2)
def retry_once(self: Any, user_id: str, source_id: str) -> dict[str, int]:
    """Fails at its first attempt."""
    if self.request.retries == 0:
        raise self.retry(exc=Unreadable(), countdown=0.2)
    return {"retries": self.request.retries}


@shared_task(base=Task, bind=True, name="tests.retry_within", ingest=INGEST, max_retries=3)
def retry_within(self: Any, user_id: str, source_id: str, limit: int | None) -> None:
    """Fails at its first attempt, and says for this call how many retries there may be."""
    if self.request.retries == 0:
        raise self.retry(countdown=0.2, max_retries=limit)


@shared_task(
    base=Task,
    name="tests.retry_by_itself",
    ingest=INGEST,
    autoretry_for=(Unreadable,),
    retry_kwargs={"max_retries": 1, "countdown": 0.2},
)
def retry_by_itself(user_id: str, source_id: str) -> None:
    """Fails at every attempt."""
    raise Unreadable


@shared_task(base=Task, bind=True, name="tests.give_up", ingest=INGEST, max_retries=1)
def give_up(self: Any, user_id: str, source_id: str) -> None:
    """Fails at every attempt."""
    raise self.retry(exc=Unreadable(), countdown=0.2)


@shared_task(base=Task, bind=True, name="tests.die_once", ingest=INGEST)
def die_once(self: Any, user_id: str, source_id: str, marker: str) -> dict[str, bool]:
    """Kills its own process the first time."""
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"survived": True}


@shared_task(
    base=Task, bind=True, name="tests.fan_out", ingest={**INGEST, "stages": {"part": 4, "join": 1}}
)
def fan_out(self: Any, user_id: str, source_id: str, number: int) -> None:
    """Replaces itself by a chord."""
    who = {"user_id": user_id, "source_id": source_id}
    with stage("part", parts=number, unit="parts"):
        members = [part.s(**who, number=n) for n in range(number)]
        raise self.replace(chord(members, join.s(**who)))


@shared_task(base=Task, name="tests.part", ingest=INGEST)
def part(user_id: str, source_id: str, number: int) -> int:
    """One member."""
    with stage("part"):
        return sum(track(range(number), unit="steps"))


@shared_task(base=Task, name="tests.join", ingest=INGEST)
def join(sums: list[int], user_id: str, source_id: str) -> dict[str, int]:
    """The chord's body."""
    with stage("join"):
        return {"total": sum(sums)}


@shared_task(base=Task, name="tests.member_fails", ingest=INGEST, bind=True)
def member_fails(self: Any, user_id: str, source_id: str) -> None:
    """A chord whose body never runs."""
    who = {"user_id": user_id, "source_id": source_id}
    raise self.replace(chord([part.s(**who, number=1), refuse.si(**who)], join.s(**who)))


@shared_task(base=Task, name="tests.mark", ingest=INGEST)
def mark(user_id: str, source_id: str, path: str) -> dict[str, str]:
    """Leaves a line that says its body ran."""
    with open(path, "a") as file:
        file.write(f"{source_id}\n")
    return {"marked": path}


@shared_task(base=Task, name="tests.send_off", ingest=INGEST)
def send_off(user_id: str, source_id: str, path: str) -> None:
    """Publishes a task of its own source and does not wait for it."""
    mark.apply_async(kwargs={"user_id": user_id, "source_id": source_id, "path": path}, countdown=1)


@shared_task(base=Task, name="tests.slow", ingest=INGEST)
def slow(user_id: str, source_id: str) -> None:
    """Counts slower than progress may go out."""
    with stage("slow"):
        for _ in track(range(4), unit="steps"):
            time.sleep(0.4)


@shared_task(base=Task, name="tests.odd_numbers", ingest=INGEST)
def odd_numbers(user_id: str, source_id: str) -> dict[str, Any]:
    """Reports what is no progress, and returns what is no JSON."""
    with stage('a "stage"\n'):
        for done, total in ((math.nan, 3), (-5, 10), (15, 10), ("x", None), (1, math.inf), (1, 0)):
            progress(done, total)  # type: ignore[arg-type]
            current_execution().send_progress(always=True)
    return {"good": 1, "bad": math.nan, "worse": b"x", "percent": 7}


@shared_task(name="tests.untracked")
def untracked(number: int) -> int:
    """None of our business; the helpers do nothing in it."""
    with stage("x"):
        progress(1, 2)
        return sum(track(range(number)))

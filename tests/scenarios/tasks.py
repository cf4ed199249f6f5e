"""A team's tasks, each with something happening to it.

Every task is there twice: `scenario.NAME` acknowledges its message early, `scenario.NAME.late`
once it is done.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from billiard.exceptions import SoftTimeLimitExceeded
from celery import Task, chord, shared_task
from celery.exceptions import Ignore, Reject

from shared.connections import app_redis
from shared.outbox import Outbox
from tests.scenarios.app import MARKS, SIGNAL
from worker.ingest import IngestError, progress, stage, track

INGEST = {"user": "user_id", "source": "source_id"}
_POLL_SECONDS = 0.05
_ENDLESS_SECONDS = 60.0
_SOON_SECONDS = 0.3
_FROZEN_SECONDS = 1.0

Body = Callable[..., Any]


def tracked(**options: Any) -> Callable[[Body], Body]:
    """Makes a body two tracked tasks, of early and of late acknowledgement."""

    def register(body: Body) -> Body:
        name = f"scenario.{body.__name__}"
        common: dict[str, Any] = {"base": Task, "bind": True, "ingest": INGEST} | options
        declare: Any = shared_task
        declare(name=name, **common)(body)
        declare(name=f"{name}.late", acks_late=True, **common)(body)
        return body

    return register


def mark(user_id: str, text: object) -> None:
    """Leaves a word of what a body did, for the test to read."""
    app_redis().rpush(MARKS + user_id, str(text))


def wait_for_signal(user_id: str) -> None:
    """Returns once the test says so."""
    while not app_redis().exists(SIGNAL + user_id):
        time.sleep(_POLL_SECONDS)


def comes_again(task: Any) -> bool:
    """Whether this message was delivered before."""
    return bool(task.request.delivery_info.get("redelivered"))


def kill_this_process() -> NoReturn:
    time.sleep(_SOON_SECONDS)  # by then an early acknowledgement is made
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit


class Unreadable(IngestError):
    """This file can't be read."""

    code = "unreadable"


class Unpicklable(Exception):
    """Holds what no pickle takes."""

    def __init__(self, text: str) -> None:
        super().__init__(text, threading.Lock())


class Unprintable(Exception):
    """Can't be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


@tracked()
def succeed(task: Any, user_id: str, source_id: str) -> dict[str, int]:
    mark(user_id, "ran")
    return {"answer": 42}


@tracked()
def count(task: Any, user_id: str, source_id: str) -> None:
    with stage("count"):
        for _ in track(range(4)):
            time.sleep(0.1)
    with stage("sum"):
        progress(1, 1)


@tracked()
def fail(task: Any, user_id: str, source_id: str) -> None:
    raise RuntimeError("/srv/secret")


@tracked()
def refuse(task: Any, user_id: str, source_id: str) -> None:
    raise Unreadable


@tracked(max_retries=2)
def retry_once(task: Any, user_id: str, source_id: str, countdown: float = 0.2) -> None:
    mark(user_id, task.request.retries)
    if task.request.retries == 0:
        raise task.retry(exc=Unreadable(), countdown=countdown)


@tracked(max_retries=1)
def give_up(task: Any, user_id: str, source_id: str) -> None:
    raise task.retry(exc=Unreadable(), countdown=0.2)


@tracked(autoretry_for=(OSError,), retry_backoff=False, default_retry_delay=0.2, max_retries=3)
def retry_by_itself(task: Any, user_id: str, source_id: str) -> None:
    if task.request.retries == 0:
        raise OSError("not yet")


@tracked(max_retries=2)
def retry_and_return(task: Any, user_id: str, source_id: str) -> None:
    mark(user_id, task.request.retries)
    if task.request.retries == 0:
        task.retry(exc=Unreadable(), countdown=0.5, throw=False)


@tracked(max_retries=2)
def retry_when_told(task: Any, user_id: str, source_id: str) -> None:
    if task.request.retries == 0:
        wait_for_signal(user_id)
        raise task.retry(exc=Unreadable(), countdown=0.2)


@tracked()
def ignore(task: Any, user_id: str, source_id: str) -> None:
    raise Ignore


@tracked()
def reject(task: Any, user_id: str, source_id: str) -> None:
    raise Reject("no", requeue=False)


@tracked()
def requeue(task: Any, user_id: str, source_id: str) -> None:
    if not comes_again(task):
        raise Reject("later", requeue=True)


@tracked()
def leave(task: Any, user_id: str, source_id: str) -> None:
    if not comes_again(task):
        sys.exit(1)


@tracked()
def unpicklable(task: Any, user_id: str, source_id: str) -> None:
    raise Unpicklable("holds a lock")


@tracked()
def unprintable(task: Any, user_id: str, source_id: str) -> None:
    raise Unprintable


@tracked()
def return_no_json(task: Any, user_id: str, source_id: str) -> object:
    return object()


@tracked(time_limit=1)
def run_too_long(task: Any, user_id: str, source_id: str) -> None:
    time.sleep(_ENDLESS_SECONDS)


@tracked(time_limit=1, acks_on_timeout=False)
def run_too_long_once(task: Any, user_id: str, source_id: str) -> None:
    if not comes_again(task):
        time.sleep(_ENDLESS_SECONDS)


@tracked(soft_time_limit=1)
def be_interrupted(task: Any, user_id: str, source_id: str) -> None:
    time.sleep(_ENDLESS_SECONDS)


@tracked(soft_time_limit=1)
def mind_the_limit(task: Any, user_id: str, source_id: str) -> None:
    try:
        time.sleep(_ENDLESS_SECONDS)
    except SoftTimeLimitExceeded:
        mark(user_id, "minded")


@tracked(soft_time_limit=1)
def be_interrupted_in_our_receiver(task: Any, user_id: str, source_id: str) -> None:
    process: Any = Outbox
    deliver = process._try

    def deliver_slowly(outbox: Outbox, step: Any) -> Any:  # as a slow Redis would
        if threading.current_thread() is threading.main_thread():
            process._try = deliver
            time.sleep(_ENDLESS_SECONDS)
        return deliver(outbox, step)

    process._try = deliver_slowly


@tracked()
def freeze_once(task: Any, user_id: str, source_id: str) -> None:
    if not comes_again(task):
        mark(user_id, os.getpid())
        time.sleep(_FROZEN_SECONDS)
    mark(user_id, "ended")


@tracked()
def die(task: Any, user_id: str, source_id: str) -> None:
    kill_this_process()


@tracked(reject_on_worker_lost=True)
def die_and_come_again(task: Any, user_id: str, source_id: str) -> None:
    if not comes_again(task):
        kill_this_process()


@tracked(reject_on_worker_lost=True)
def die_again_and_again(task: Any, user_id: str, source_id: str) -> None:
    mark(user_id, "died")
    kill_this_process()


@tracked(retry_on_worker_lost=True, max_retries=2, default_retry_delay=0.2)
def die_and_retry(task: Any, user_id: str, source_id: str) -> None:
    if task.request.retries == 0:
        kill_this_process()


@tracked(retry_on_worker_lost=True, max_retries=1, default_retry_delay=0.2)
def die_until_retries_run_out(task: Any, user_id: str, source_id: str) -> None:
    kill_this_process()


class DiesOnSuccess(Task[..., Any]):
    """The result is stored, and nobody is told."""

    def on_success(self, *_: Any) -> None:
        kill_this_process()


@tracked(base=DiesOnSuccess)
def die_before_ok(task: Any, user_id: str, source_id: str) -> None:
    mark(user_id, "ran")


@tracked()
def die_after_ok(task: Any, user_id: str, source_id: str) -> None:
    time.sleep(_SOON_SECONDS)
    mark(user_id, "ran")


@tracked(max_retries=2)
def die_after_retry(task: Any, user_id: str, source_id: str) -> None:
    if task.request.retries == 0:
        raise task.retry(exc=Unreadable(), countdown=1)


@tracked()
def linger(task: Any, user_id: str, source_id: str) -> None:
    mark(user_id, "ran")


@tracked()
def trip(task: Any, user_id: str, source_id: str) -> None:
    mark(user_id, "ran")


@tracked()
def take_time(task: Any, user_id: str, source_id: str, seconds: float = 2) -> None:
    mark(user_id, "began")
    with stage("wait"):
        for _ in track(range(int(seconds * 10))):
            time.sleep(0.1)
    mark(user_id, "ended")


@tracked()
def work(task: Any, user_id: str, source_id: str) -> None:
    with stage("work"):
        for _ in track(range(20)):
            time.sleep(0.1)


@tracked()
def take_forever_once(task: Any, user_id: str, source_id: str) -> None:
    mark(user_id, "began")
    if not comes_again(task):
        time.sleep(_ENDLESS_SECONDS)


@tracked()
def wait_and_succeed(task: Any, user_id: str, source_id: str) -> dict[str, int]:
    wait_for_signal(user_id)
    mark(user_id, "ran")
    return {"answer": 42}


@tracked()
def wait_and_fail(task: Any, user_id: str, source_id: str) -> None:
    wait_for_signal(user_id)
    raise Unreadable


@tracked()
def wait_and_leave(task: Any, user_id: str, source_id: str) -> None:
    if not comes_again(task):
        wait_for_signal(user_id)
        sys.exit(1)


@tracked()
def wait_and_run_out_of_memory(task: Any, user_id: str, source_id: str) -> None:
    if not comes_again(task):
        wait_for_signal(user_id)
        raise MemoryError


@tracked()
def part(task: Any, user_id: str, source_id: str, number: int) -> int:
    return number


@tracked()
def join(task: Any, numbers: list[int], user_id: str, source_id: str) -> dict[str, int]:
    mark(user_id, "joined")
    return {"sum": sum(numbers)}


@tracked()
def become_another(task: Any, user_id: str, source_id: str) -> None:
    raise task.replace(task.app.tasks["scenario.succeed"].si(user_id=user_id, source_id=source_id))


@tracked()
def become_a_chord(task: Any, user_id: str, source_id: str) -> None:
    who = {"user_id": user_id, "source_id": source_id}
    tasks = task.app.tasks
    members = [tasks["scenario.part"].s(**who, number=n) for n in range(4)]
    raise task.replace(chord(members, tasks["scenario.join"].s(**who)))


@tracked()
def send_another_off(task: Any, user_id: str, source_id: str) -> None:
    other = task.app.tasks["scenario.succeed"]
    other.apply_async(kwargs={"user_id": user_id, "source_id": source_id}, countdown=_SOON_SECONDS)


@shared_task(name="scenario.plain")
def plain(number: int) -> float:
    """None of the toolkit's business by itself; 0 is an error."""
    return 1 / number


@shared_task(name="scenario.errback")
def errback(failed_id: str, user_id: str) -> None:
    """A task that is told of another's failure; it is none of the toolkit's business."""
    mark(user_id, "errback")

"""Tasks of a worker under test that write answers and die of it."""

from __future__ import annotations

import os
import signal
from typing import Literal

from celery import shared_task

from worker.answer import answer


@shared_task(name="tests.dies_once", acks_late=True)
def dies_once(message_id: str, user_id: str, on_redelivery: Literal["skip", "restart"]) -> None:
    """Is killed in the midst of its first attempt, once what it wrote is committed."""
    with answer(message_id, user_id, on_redelivery) as a:
        for n in range(3):
            a.emit("answer", {"n": n, "attempt": a.attempt})
        if a.attempt == 1:
            a._flusher.pending.wait_until_written(30)
            os.kill(os.getpid(), signal.SIGKILL)


@shared_task(name="tests.writes")
def writes(message_id: str, user_id: str, count: int) -> int:
    """Writes so many events, and tells the process that did."""
    with answer(message_id, user_id) as a:
        for n in range(count):
            a.emit("answer", {"n": n})
    return os.getpid()

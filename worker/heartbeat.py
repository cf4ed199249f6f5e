"""The heartbeat: a thread in the executing process that renews leases and sends progress.

It is on a timer and not on output, so a long silent call is not taken for dead, while a frozen
process is. It also sends what was throttled when its time comes, and what waits in the outbox.
"""

from __future__ import annotations

import logging
import os
import threading
import time

from shared.facts import Flush
from shared.outbox import outbox
from shared.runs import RunRef, submit
from shared.settings import get_settings
from worker.execution import Execution

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25
IDLE_SECONDS = 1.0


class Heartbeat:
    """The executions of one process that are alive, and the runs with progress to send."""

    def __init__(self) -> None:
        self._renewed: dict[Execution, float] = {}  # monotonic seconds of the last renewal
        self._due: dict[RunRef, float] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, execution: Execution) -> None:
        """Keeps an execution's lease from now on, until it is over."""
        with self._lock:
            self._renewed[execution] = time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="eventstream-heartbeat", daemon=True
                )
                self._thread.start()
        self._wake.set()

    def leave(self, execution: Execution) -> None:
        """Lets go of an execution that ended."""
        with self._lock:
            self._renewed.pop(execution, None)

    def flush_later(self, ref: RunRef, due_ms: int) -> None:
        """Sends a run's held-back progress after `due_ms`."""
        with self._lock:
            self._due[ref] = time.monotonic() + due_ms / 1000
        self._wake.set()

    def _run(self) -> None:
        while True:
            if not self._renewed and not self._due and not len(outbox()):
                self._wake.wait(IDLE_SECONDS)
            self._wake.clear()
            time.sleep(TICK_SECONDS)
            try:
                self._beat()
            except Exception:  # the thread's edge: leases depend on the next beat
                log.exception("a heartbeat failed")

    def _beat(self) -> None:
        now = time.monotonic()
        with self._lock:
            executions = list(self._renewed.items())
            due = [ref for ref, when in self._due.items() if when <= now]
            for ref in due:
                del self._due[ref]
        for execution, renewed in executions:
            is_time = now - renewed >= get_settings().ingest_lease_seconds / 3
            execution.send_progress(always=is_time)
            with self._lock:
                if execution.is_over:
                    self._renewed.pop(execution, None)
                elif is_time and execution in self._renewed:
                    self._renewed[execution] = now
        for ref in due:
            outcome = submit(ref, Flush())
            if outcome is not None and outcome.due_ms is not None:
                self.flush_later(ref, outcome.due_ms)
        outbox().flush()


_heartbeat = Heartbeat()


def heartbeat() -> Heartbeat:
    """Returns this process's heartbeat."""
    return _heartbeat


def _start_anew() -> None:
    global _heartbeat
    _heartbeat = Heartbeat()


# A forked child has no thread of its parent's, which may have held the lock.
os.register_at_fork(after_in_child=_start_anew)

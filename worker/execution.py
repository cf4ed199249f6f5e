"""One execution of a tracked task: its nonce, and what it has counted in which stage.

The task's own thread counts; the heartbeat's thread sends. A lock keeps their reports in order,
so that a bar never goes back.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from shared.facts import Fact, Progress, Report, known_number
from shared.runs import Outcome, RunRef, submit

T = TypeVar("T")

UNNAMED_STAGE = "work"
ASK_EVERY_SECONDS = 1.0
_OVER = ("closed", "stale", "duplicate")


@dataclass(slots=True)
class Counter:
    """How far the task is in one stage. Only the task's own thread writes `done`."""

    stage: str
    done: int = 0
    total: int | None = None
    unit: str | None = None
    parts: float | None = None
    weight: float = 1
    complete: bool = False
    tracking: bool = False  # a track() is counting here

    def report(self) -> Report:
        """Its state now."""
        return Report(
            self.stage, self.done, self.total, self.unit, self.parts, self.complete, self.weight
        )


@dataclass(slots=True, eq=False)
class Execution:
    """A tracked task while it runs. `on_due` learns when held-back progress may go out."""

    ref: RunRef
    task_id: str
    retries: int
    nesting: int
    on_due: Callable[[RunRef, int], None]
    aside: bool = False  # its run does not wait for it, and may be complete before it is done
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))
    reported: bool = False  # its end was told
    replaced: bool = False  # it put another in its own place
    closed: bool = False  # its run goes on without it, or is over: it is not heard any more
    unwanted: bool = False  # it is closed, and its body is to stop
    _counters: dict[str, Counter] = field(default_factory=dict)
    _note: str | None = None
    _sent: dict[str, Report] = field(default_factory=dict)
    _stage: str = UNNAMED_STAGE
    _asked: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def stage(
        self, name: str, weight: float, parts: float | None, unit: str | None
    ) -> Iterator[None]:
        """Makes `name` the stage that is counted in, for the length of the block."""
        parts = known_number(parts)
        outer, self._stage = self._stage, name or UNNAMED_STAGE
        counter = Counter(self._stage, unit=unit, parts=parts, weight=weight)
        self._counters[self._stage] = counter
        self._note = None
        self.send_progress(always=True)
        try:
            yield
            counter.complete = parts is None
        finally:
            self._stage = outer

    def count(self, total: int | None, unit: str | None, done: int = 0) -> Counter:
        """The counter of the stage that the task is in; within a track one that nobody sees."""
        counter = self._counters.get(self._stage)
        if counter is not None and counter.tracking:
            return Counter(self._stage)  # within a track(): the outer one is the bar
        if counter is None or counter.parts is not None:
            counter = self._counters[self._stage] = Counter(self._stage)
        counter.done, counter.total, counter.unit = done, total, unit or counter.unit
        return counter

    def note(self, text: str) -> None:
        """Keeps the sentence beside the bar, until another stage is entered."""
        self._note = text
        self._sent.pop("", None)  # the same may be said of two stages

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to say, and no lease to renew."""
        return self.reported or self.closed

    def send_progress(self, *, always: bool) -> None:
        """Reports what changed since the last report; `always` also when nothing did."""
        with self._lock:
            if self.is_over:
                return
            reports = self._changed()
            if reports or always:
                self._submit(Progress(task=self.task_id, nonce=self.nonce, reports=reports))
                self._remember(reports)

    def ask(self) -> None:
        """Has Redis say whether this execution is still wanted, at most about once a second."""
        if time.monotonic() - self._asked >= ASK_EVERY_SECONDS:
            self.send_progress(always=True)

    def send_end(self, make_fact: Callable[[tuple[Report, ...]], Fact]) -> None:
        """Reports how it ended, once, together with what it counted last."""
        insist(lambda: self._send_end(make_fact))

    def _send_end(self, make_fact: Callable[[tuple[Report, ...]], Fact]) -> None:
        with self._lock:
            if not self.reported:
                self._submit(make_fact(tuple(self._changed())))
                self.reported = True  # not before: an interrupted report is made once more

    def _submit(self, fact: Fact) -> None:
        self._asked = time.monotonic()
        outcome: Outcome | None = submit(self.ref, fact)
        if outcome is not None and outcome.verdict in _OVER:
            self.closed = True
            self.unwanted = not (self.aside and outcome.status == "completed")
        elif outcome is not None and outcome.due_ms is not None and not outcome.ended:
            self.on_due(self.ref, outcome.due_ms)

    def _changed(self) -> list[Report]:
        reports = [counter.report() for counter in list(self._counters.values())]
        reports.sort(key=lambda report: report.stage == self._stage)  # what is shown comes last
        if self._note is not None:
            reports.append(Report(note=self._note))
        return [report for report in reports if self._sent.get(report.stage) != report]

    def _remember(self, reports: list[Report]) -> None:
        for report in reports:
            self._sent[report.stage] = report


def insist(tell: Callable[[], T]) -> T:
    """Tells something, and once more where a time limit interrupts it; the limit passes on."""
    try:
        return tell()
    except BaseException:  # whatever the limit raises: it is meant for the task
        tell()
        raise


_current: ContextVar[Execution | None] = ContextVar("eventstream_execution", default=None)


def current() -> Execution | None:
    """The tracked execution that this code runs in; None outside of one."""
    return _current.get()


def enter(execution: Execution | None) -> None:
    """Makes an execution the current one; None ends it."""
    _current.set(execution)


# What a task forks is no execution: its parent counts, and may have held the lock.
os.register_at_fork(after_in_child=lambda: enter(None))

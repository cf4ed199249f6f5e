"""One execution of a tracked task: its nonce, and what it has counted in which stage.

The task's own thread counts; the heartbeat's thread sends. A lock keeps their reports in order,
so that a bar never goes back.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from shared.facts import Fact, Progress, Report
from shared.runs import Outcome, RunRef, submit

UNNAMED_STAGE = "work"
_OVER = ("closed", "stale", "duplicate")


@dataclass(slots=True)
class Counter:
    """How far the task is in one stage. Only the task's own thread writes `done`."""

    stage: str
    done: int = 0
    total: int | None = None
    unit: str | None = None
    parts: int | None = None
    complete: bool = False
    tracking: bool = False  # a track() is counting here

    def report(self) -> Report:
        """Its state now."""
        return Report(self.stage, self.done, self.total, self.unit, self.parts, self.complete)


@dataclass(slots=True, eq=False)
class Execution:
    """A tracked task while it runs. `on_due` learns when held-back progress may go out."""

    ref: RunRef
    task_id: str
    retries: int
    nesting: int
    on_due: Callable[[RunRef, int], None]
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))
    reported: bool = False  # its end was told by a signal
    replaced: bool = False  # it put another in its own place
    closed: bool = False  # its run goes on without it, or is over
    _counters: dict[str, Counter] = field(default_factory=dict)
    _sent: dict[str, Report] = field(default_factory=dict)
    _stage: str = UNNAMED_STAGE
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def stage(self, name: str, parts: int | None, unit: str | None) -> Iterator[None]:
        """Makes `name` the stage that is counted in, for the length of the block."""
        outer, self._stage = self._stage, name
        self._counters[name] = counter = Counter(name, unit=unit, parts=parts)
        self.send_progress(always=True)
        try:
            yield
            counter.complete = parts is None
        finally:
            self._stage = outer

    def count(self, total: int | None, unit: str | None) -> Counter:
        """The counter of the stage that the task is in, at 0; within a track one nobody sees."""
        counter = self._counters.get(self._stage)
        if counter is not None and counter.tracking:
            return Counter(self._stage)  # within a track(): the outer one is the bar
        if counter is None or counter.parts is not None:
            counter = self._counters[self._stage] = Counter(self._stage)
        counter.done, counter.total, counter.unit = 0, total, unit or counter.unit
        return counter

    def send_progress(self, *, always: bool) -> None:
        """Reports what changed since the last report; `always` also when nothing did."""
        with self._lock:
            is_over = self.reported or self.closed
            reports = () if is_over else self._changed()
            if reports or (always and not is_over):
                self._submit(Progress(task=self.task_id, nonce=self.nonce, reports=reports))

    def send_end(self, make_fact: Callable[[tuple[Report, ...]], Fact]) -> None:
        """Reports how it ended, once, together with what it counted last."""
        with self._lock:
            if not self.reported:
                self.reported = True
                self._submit(make_fact(tuple(self._changed())))

    def _submit(self, fact: Fact) -> None:
        outcome: Outcome | None = submit(self.ref, fact)
        if outcome is not None and outcome.verdict in _OVER and not self.reported:
            self.closed = True
        elif outcome is not None and outcome.due_ms is not None and not outcome.ended:
            self.on_due(self.ref, outcome.due_ms)

    def _changed(self) -> list[Report]:
        reports = []
        for name, counter in list(self._counters.items()):
            report = counter.report()
            if self._sent.get(name) != report:
                self._sent[name] = report
                reports.append(report)
        return reports


_current: ContextVar[Execution | None] = ContextVar("eventstream_execution", default=None)


def current() -> Execution | None:
    """The tracked execution that this code runs in; None outside of one."""
    return _current.get()


def enter(execution: Execution | None) -> None:
    """Makes an execution the current one; None ends it."""
    _current.set(execution)

"""What the writers of one process have pending for the message journal: bounded, and in order.

Writers put events in, the flusher takes them out, and both wait here for each other. A writer is
slowed where Postgres does not keep up, and told where it does not for long; nothing is dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg

from shared.errors import (
    EventRefused,
    EventStreamError,
    MessageGone,
    PostgresUnavailable,
    TakenOver,
)
from shared.message_journal import NewEvent, Outcome, Part, Verdict
from shared.messages import Attempt

log = logging.getLogger(__name__)

# Of one message, and of the whole process, that are not committed: events, and their bytes.
MESSAGE_LIMITS = (1000, 1024 * 1024)
PROCESS_LIMITS = (20_000, 32 * 1024 * 1024)
BATCH_LIMITS = (5000, 4 * 1024 * 1024)  # of one transaction
WAIT_SECONDS = 30.0  # that a writer is slowed before it is told
_EVENT_BYTES = 200  # beside its payload


@dataclass(slots=True)
class Amount:
    """A number of events, and about what they take in memory."""

    events: int = 0
    bytes: int = 0

    def add(self, events: int, bytes: int) -> None:
        """Counts events, or less of them."""
        self.events += events
        self.bytes += bytes

    def is_full(self, limits: tuple[int, int]) -> bool:
        """Whether there is no room for another one."""
        return self.events >= limits[0] or self.bytes >= limits[1]


@dataclass(slots=True, eq=False)
class Writing:
    """One attempt that is being written in this process, and what the journal said of it."""

    attempt: Attempt
    last: int  # the last sequence number that is committed
    heard: float = field(default_factory=time.monotonic)  # when Postgres last said how it stands
    beaten: float = field(default_factory=time.monotonic)  # when it was last said to be alive
    stop_requested: bool = False
    finished: bool = False  # its terminal event is committed
    failure: Exception | None = None  # nothing more can be written
    refusal: Exception | None = None  # Postgres did not take an event, which its writer learns next
    pending: list[NewEvent] = field(default_factory=list)
    amount: Amount = field(default_factory=Amount)  # pending, or on the way
    ending: tuple[str, str | None] | None = None  # status and code, once the last one is pending


class Pending:
    """Thread-safe. `trouble` is why Postgres takes nothing just now."""

    def __init__(self) -> None:
        self.trouble: Exception | None = None
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # the flusher waits
        self._change = threading.Condition(self._lock)  # writers wait
        self._open: dict[Writing, None] = {}
        self._dirty: dict[Writing, None] = {}
        self._amount = Amount()
        self._idle = False

    def add(self, writing: Writing) -> None:
        """Knows of a writing from now on."""
        with self._lock:
            self._open[writing] = None

    def remove(self, writing: Writing) -> None:
        """Forgets a writing; what it has pending is still written."""
        with self._lock:
            self._open.pop(writing, None)

    def put(self, writing: Writing, event: NewEvent) -> None:
        """Keeps an event for the next flush; waits where there is no room.

        Raises:
            PostgresUnavailable: there was no room for `WAIT_SECONDS`; the event is not kept.
            Exception: what the journal said of the writing, or of an event before.
        """
        with self._lock:
            self._check(writing)
            if writing.ending is not None:
                raise EventStreamError("This answer is over: nothing is written behind its end.")
            if self._is_full(writing):
                self._wait_for_room(writing)
            self._keep(writing, event)

    def finish(
        self, writing: Writing, event: NewEvent, status: str, code: str | None, seconds: float
    ) -> None:
        """Keeps the last event, room or not, and waits until it is committed.

        Where another event is refused at the very end, the log says so, and the answer is over.

        Raises:
            PostgresUnavailable: it was not committed in time; it still may be.
            Exception: what the journal said of the writing, or of this event.
        """
        with self._lock:
            writing.refusal = None
            self._check(writing)
            writing.ending = (status, code)
            self._keep(writing, event)
            self._wait(lambda: not writing.amount.events, seconds)
            if not writing.finished:
                self._check(writing)

    def settle_down(self, writing: Writing, seconds: float) -> None:
        """Waits until nothing of one writing is pending.

        Raises:
            PostgresUnavailable: something still is.
        """
        with self._lock:
            self._wait(lambda: not writing.amount.events, seconds)

    def wait_until_written(self, seconds: float) -> int:
        """Waits until nothing is pending; returns the number of events that still are."""
        with self._lock:
            try:
                self._wait(lambda: not self._amount.events, seconds)
            except PostgresUnavailable:
                return self._amount.events
            return 0

    def wait_for_work(self, seconds: float) -> None:
        """Waits until something is pending, at most so long."""
        with self._lock:
            if not self._dirty:
                self._idle = True
                self._work.wait(seconds)
                self._idle = False

    def take(self) -> list[tuple[Writing, Part]]:
        """Takes what all writings have pending, one batch at most."""
        with self._lock:
            taken: list[tuple[Writing, Part]] = []
            amount = Amount()
            while self._dirty and not amount.is_full(BATCH_LIMITS):
                writing = next(iter(self._dirty))
                del self._dirty[writing]
                events, writing.pending = writing.pending, []
                amount.add(writing.amount.events, writing.amount.bytes)
                taken.append((writing, _part(writing, events)))
            return taken

    def wake(self) -> None:
        """Ends the flusher's wait, with or without events."""
        with self._lock:
            self._work.notify_all()

    def settle(self, taken: list[tuple[Writing, Part]], outcomes: list[Outcome]) -> None:
        """Tells writings what became of what was taken."""
        with self._lock:
            for (writing, part), outcome in zip(taken, outcomes, strict=True):
                if outcome.verdict is Verdict.BUSY:
                    writing.pending[:0] = part.events
                    self._dirty[writing] = None
                    continue
                self._release(writing, part.events)
                self._hear(writing, outcome)
                writing.beaten = writing.heard
                if outcome.verdict is Verdict.WRITTEN:
                    writing.last = outcome.last
                    writing.finished = outcome.finished
            self._change.notify_all()

    def hear(self, outlooks: list[tuple[Writing, Outcome]]) -> None:
        """Tells writings that write nothing how they stand."""
        with self._lock:
            for writing, outcome in outlooks:
                self._hear(writing, outcome)
            self._change.notify_all()

    def silent(self, seconds: float) -> list[Writing]:
        """Open writings of which Postgres has said nothing for so long."""
        since = time.monotonic() - seconds
        with self._lock:
            return [w for w in self._open if w.heard < since and w.failure is None]

    def _hear(self, writing: Writing, outcome: Outcome) -> None:
        writing.heard = time.monotonic()
        writing.stop_requested |= outcome.stop_requested
        for event, error in outcome.refused:
            writing.refusal = _refusal(writing, event, error)
        if outcome.verdict is Verdict.WRITTEN:
            return
        if writing.failure is None and outcome.verdict is Verdict.GONE:
            log.warning("message %s was deleted: no more is written", writing.attempt.message_id)
        writing.failure = MessageGone() if outcome.verdict is Verdict.GONE else TakenOver()
        self._release(writing, writing.pending)
        writing.pending = []
        self._dirty.pop(writing, None)

    def _check(self, writing: Writing) -> None:
        if writing.failure is not None:
            raise writing.failure
        if writing.refusal is not None:
            refusal, writing.refusal = writing.refusal, None
            raise refusal

    def _is_full(self, writing: Writing) -> bool:
        return writing.amount.is_full(MESSAGE_LIMITS) or self._amount.is_full(PROCESS_LIMITS)

    def _wait_for_room(self, writing: Writing) -> None:
        self._wait(lambda: not self._is_full(writing) or _is_over(writing), WAIT_SECONDS)
        self._check(writing)

    def _wait(self, condition: Callable[[], bool], seconds: float) -> None:
        if not self._change.wait_for(condition, seconds):
            why = f": {self.trouble}" if self.trouble else "."
            raise PostgresUnavailable(
                f"Postgres has not taken this answer's events for {seconds:g} seconds{why}"
            )

    def _keep(self, writing: Writing, event: NewEvent) -> None:
        writing.pending.append(event)
        size = len(event.payload) + _EVENT_BYTES
        for amount in (writing.amount, self._amount):
            amount.add(1, size)
        self._dirty[writing] = None
        if self._idle:
            self._work.notify()

    def _release(self, writing: Writing, events: Sequence[NewEvent]) -> None:
        size = sum(len(event.payload) + _EVENT_BYTES for event in events)
        for amount in (writing.amount, self._amount):
            amount.add(-len(events), -size)


def _is_over(writing: Writing) -> bool:
    """Whether there is something that its writer has to learn."""
    return writing.failure is not None or writing.refusal is not None


def _part(writing: Writing, events: list[NewEvent]) -> Part:
    status, code = writing.ending or (None, None)
    attempt = writing.attempt
    return Part(attempt.message_id, attempt.number, writing.last, events, status, code)


def _refusal(writing: Writing, event: NewEvent, error: psycopg.Error) -> EventRefused:
    message_id = writing.attempt.message_id
    log.error("Postgres refused the event %r of message %s: %s", event.type, message_id, error)
    return EventRefused(f"Postgres refused the event {event.type}: {error}")

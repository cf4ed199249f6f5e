"""The flusher: one thread of a process that commits what all its messages have pending.

A commit begins as soon as the one before is done, and 5 ms after it began at the earliest, so that
under load each takes more. What is committed is then announced. The same thread says that quiet
writers are alive, and learns who is to stop. A forked child has a flusher of its own.
"""

from __future__ import annotations

import atexit
import logging
import os
import random
import threading
import time
from typing import Any

import psycopg

from shared import message_journal
from shared.connections import postgres_session
from shared.event_counts import event_counts
from shared.message_announcer import Announcer, told, told_of_attempt
from shared.message_journal import Outcome, Part, Verdict
from shared.message_pending import Pending, Writing
from shared.messages import Attempt
from shared.settings import get_settings

log = logging.getLogger(__name__)

PACE_SECONDS = 0.005  # from the beginning of a commit to the next
LOOK_SECONDS = 0.5  # a quiet writer learns so soon that it is to stop
PAUSE_SECONDS = (0.1, 2.0)  # after a failure: the first, and the longest
CLOSE_SECONDS = 5.0
BUSY_SECONDS = 0.02  # before rows that somebody has locked are tried again

Connection = psycopg.Connection[Any]


class Flusher:
    """Writes what one process's messages have pending. The thread starts with the first of them.

    Args:
        database_url: where to.
        stale_seconds: how long a writer may be silent; a quiet one is heard every third of it.
        announcer: says what was committed.
    """

    def __init__(
        self, database_url: str, stale_seconds: float, announcer: Announcer | None = None
    ) -> None:
        self.pending = Pending()
        self.process = os.getpid()
        self._database_url = database_url
        self._beat_seconds = stale_seconds / 3
        self._announcer = announcer or Announcer()
        self._connection: Connection | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._stopping = False
        self._pause_seconds = 0.0

    def open(self, attempt: Attempt) -> Writing:
        """Begins to write an attempt, which is committed, and announces its `restart`."""
        self._announcer.announce(told_of_attempt(attempt))
        writing = Writing(attempt, attempt.last_sequence, stop_requested=attempt.stop_requested)
        self.pending.add(writing)
        with self._starting:
            self._stopping = False
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="eventstream-flusher", daemon=True
                )
                self._thread.start()
        return writing

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Writes what is pending, ends the thread, and logs what is lost."""
        deadline = time.monotonic() + seconds
        lost = self.pending.wait_until_written(seconds)
        if lost:
            log.error("%d events of messages could not be written: %s", lost, self.pending.trouble)
        with self._starting:
            if self._thread is not None:
                self._stopping = True
                self.pending.wake()
                self._thread.join(max(0.1, deadline - time.monotonic()))

    def _run(self) -> None:
        next_commit = 0.0
        while not self._stopping:
            try:
                self.pending.wait_for_work(LOOK_SECONDS)
                time.sleep(max(0.0, next_commit - time.monotonic()))
                next_commit = time.monotonic() + PACE_SECONDS
                taken = self.pending.take()
                if taken:
                    self._write(taken)
                self._look()
            except Exception:  # the thread's edge: all writers of the process depend on it
                log.exception("the flusher failed, and goes on")
                time.sleep(PAUSE_SECONDS[0])
        self._disconnect()

    def _write(self, taken: list[tuple[Writing, Part]]) -> None:
        """Commits what was taken, however long that takes, and announces it."""
        parts = [part for _, part in taken]
        while True:
            try:
                outcomes = message_journal.append(self._session(), parts)
                break
            except psycopg.Error as error:
                self._wait_for_postgres(error)
                if self._stopping:
                    return
        self._is_back()
        self.pending.settle(taken, outcomes)
        if all(outcome.verdict is Verdict.BUSY for outcome in outcomes):
            time.sleep(BUSY_SECONDS)
        self._announcer.announce(
            [
                announcement
                for part, outcome in zip(parts, outcomes, strict=True)
                for announcement in _told(part, outcome)
            ]
        )
        event_counts().add(f"message.{e.type}" for found in outcomes for e in found.written)

    def _look(self) -> None:
        """Says that quiet writers are alive when it is time, and hears how they stand."""
        quiet = self.pending.silent(LOOK_SECONDS)
        if not quiet:
            return
        beat_before = time.monotonic() - self._beat_seconds
        attempts = [(w.attempt.message_id, w.attempt.number) for w in quiet]
        late = [a for w, a in zip(quiet, attempts, strict=True) if w.beaten < beat_before]
        try:
            if late:
                message_journal.beat(self._session(), late)
            outlooks = message_journal.look(self._session(), attempts)
        except psycopg.Error as error:
            self._wait_for_postgres(error)
            return
        self._is_back()
        now = time.monotonic()
        for writing in quiet if late else ():
            writing.beaten = now if writing.beaten < beat_before else writing.beaten
        self.pending.hear(list(zip(quiet, outlooks, strict=True)))

    def _session(self) -> Connection:
        if self._connection is None or self._connection.broken:
            self._connection = postgres_session(self._database_url, "eventstream-flusher")
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _wait_for_postgres(self, error: psycopg.Error) -> None:
        """Waits before the next try, on a new connection."""
        if not self._pause_seconds:
            log.warning("messages wait for Postgres: %s", error)
        self.pending.trouble = error
        self._disconnect()
        first, longest = PAUSE_SECONDS
        self._pause_seconds = min(max(first, 2 * self._pause_seconds), longest)
        time.sleep(self._pause_seconds * random.uniform(0.5, 1))

    def _is_back(self) -> None:
        if self._pause_seconds:
            log.info("messages go on: Postgres is back")
        self._pause_seconds = 0.0
        self.pending.trouble = None


def _told(part: Part, outcome: Outcome) -> list[tuple[str, bytes]]:
    prev = outcome.last - len(outcome.written)
    payloads = [event.payload for event in outcome.written]
    return told(part.message_id, prev, payloads, finished=outcome.finished)


_flushers: dict[int, Flusher] = {}  # by process: a child leaves its parent's connection alone
_making = threading.Lock()


def flusher() -> Flusher:
    """Returns this process's flusher.

    Raises:
        SettingsError: `DATABASE_URL` is not set.
    """
    with _making:
        found = _flushers.get(os.getpid())
        if found is None:
            settings = get_settings()
            found = Flusher(settings.require_database_url(), settings.message_stale_seconds)
            _flushers[os.getpid()] = found
        return found


def close_flusher(seconds: float = CLOSE_SECONDS) -> None:
    """Writes what this process has pending, if anything."""
    found = _flushers.get(os.getpid())
    if found is not None:
        found.close(seconds)


def _start_anew() -> None:
    global _making
    _making = threading.Lock()  # a thread of the parent may have held it


os.register_at_fork(after_in_child=_start_anew)
atexit.register(close_flusher)

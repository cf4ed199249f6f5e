"""The relay: from the event outbox in Postgres to the user streams, in order and once each.

Any number may run. One holds a session's advisory lock and is active, the others stand by. Two
that both believe they are active do no harm: `lua/relay.lua` appends each position once.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import psycopg
import redis

from shared import event_outbox, keys
from shared.connections import AnyRedis, postgres_session
from shared.encoding import type_of
from shared.event_counts import event_counts
from shared.event_outbox import Connection, Waiting
from shared.scripts import script
from shared.settings import get_settings
from shared.steps import is_away
from shared.user_stream import in_steps, stream_args

log = logging.getLogger(__name__)

BATCH_EVENTS = 200
POLL_SECONDS = 5.0  # where a notification was lost
STAND_BY_SECONDS = 1.0
IDLE_SECONDS = 15.0  # after which the server ends a session that asks nothing
SLICE_SECONDS = 3.0  # of publishing, after which what is published is deleted
STOP_CHECK_SECONDS = 0.25
PAUSE_SECONDS = (0.1, 5.0)  # after a failure: the first, and the longest
_LOCK = 0x72656C6179  # "relay": the advisory lock of the active one


class _Pauses:
    """Growing pauses while a server is away, which is said once."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._seconds = 0.0

    def failed(self, error: Exception) -> float:
        """Returns the seconds to wait before the next try."""
        if not self._seconds:
            log.warning("the relay waits for %s: %s", self._server, error)
        first, longest = PAUSE_SECONDS
        self._seconds = min(max(first, 2 * self._seconds), longest)
        return self._seconds * random.uniform(0.5, 1)

    def worked(self) -> None:
        if self._seconds:
            log.info("the relay goes on: %s is back", self._server)
        self._seconds = 0.0


class Relay:
    """One relay of this process; `run` belongs in a thread of its own."""

    def __init__(self, database_url: str, client: Callable[[], AnyRedis]) -> None:
        self._database_url = database_url
        self._client = client
        self._stopping = threading.Event()
        self._postgres = _Pauses("Postgres")
        self._redis = _Pauses("Redis")

    def stop(self) -> None:
        """Makes `run` return soon, from any thread."""
        self._stopping.set()

    def run(self) -> None:
        """Relays, or stands by, until it is stopped. Outages of either server are waited for."""
        while not self._stopping.is_set():
            try:
                with _session(self._database_url) as session:
                    outbox = event_outbox.identity(session)
                    if self._is_active(session):
                        self._relay(session, outbox)
            except psycopg.Error as error:
                self._stopping.wait(self._postgres.failed(error))

    def _is_active(self, session: Connection) -> bool:
        """Stands by until the lock is this session's; False when it is stopped before."""
        while not self._stopping.is_set():
            row = session.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
            if row is not None and row[0]:
                log.info("this worker relays the event outbox")
                return True
            self._postgres.worked()
            self._stopping.wait(STAND_BY_SECONDS)
        return False

    def _relay(self, session: Connection, outbox: str) -> None:
        session.execute(f"LISTEN {event_outbox.CHANNEL}")
        while not self._stopping.is_set():
            try:
                relayed = self._relay_batch(session, outbox)
            except redis.RedisError as error:
                self._stopping.wait(self._redis.failed(error))
                continue
            self._postgres.worked()  # not before: it may let us in, and refuse to delete
            if relayed < BATCH_EVENTS:
                self._wait_for_news(session)

    def _wait_for_news(self, session: Connection) -> None:
        deadline = time.monotonic() + POLL_SECONDS
        while not self._stopping.is_set() and time.monotonic() < deadline:
            if list(session.notifies(timeout=STOP_CHECK_SECONDS, stop_after=1)):
                return

    def _relay_batch(self, session: Connection, outbox: str) -> int:
        """Publishes the next events and returns how many; with push turned off they are dropped."""
        events = event_outbox.waiting(session, BATCH_EVENTS)
        if not events:
            return 0
        if not get_settings().enable_sse_push:
            event_outbox.forget(session, events)
            return len(events)
        done: list[Waiting] = []
        slice_ends = time.monotonic() + SLICE_SECONDS
        for part in _parts(events):
            for published in self._publish(session, outbox, part):
                done += published
                if time.monotonic() >= slice_ends:
                    event_outbox.forget(session, done)
                    done, slice_ends = [], time.monotonic() + SLICE_SECONDS
        self._redis.worked()
        event_outbox.forget(session, done)
        return len(events)

    def _publish(
        self, session: Connection, outbox: str, events: Sequence[Waiting]
    ) -> Iterator[Sequence[Waiting]]:
        """Publishes events of one user, and yields them step by step, as they are done.

        One that Redis will never take is set aside.
        """
        try:
            self._append(outbox, events)
        except redis.ResponseError as error:
            if is_away(error):
                raise
            if len(events) > 1:
                for event in events:
                    yield from self._publish(session, outbox, [event])
                return
            log.error("event %d of the outbox is set aside: %s", events[0].position, error)
            event_outbox.set_aside(session, events[0], str(error))
        yield events

    def _append(self, outbox: str, events: Sequence[Waiting]) -> None:
        user_id = events[0].user_id
        args = [*stream_args(get_settings(), user_id), outbox]
        for event in events:
            args += (event.position, event.body)
        step_keys = [keys.stream(user_id), keys.relayed(user_id)]
        appended = script("relay").run(self._client(), step_keys, args)
        latest = events[len(events) - appended :]  # those before were appended by another
        event_counts().add(type_of(event.body) for event in latest)


def _parts(events: Sequence[Waiting]) -> Iterator[Sequence[Waiting]]:
    """Cuts a batch into what one step may append: events of one user, in order."""
    of_users = defaultdict(list)
    for event in events:
        of_users[event.user_id].append(event)
    for theirs in of_users.values():
        for part in in_steps([event.body for event in theirs]):
            yield theirs[part.start : part.stop]


def _session(database_url: str) -> Connection:
    """Connects so that who holds the lock and dies, hangs or loses its network, loses it soon.

    Both ends probe a silent connection, and the server ends a session that asks nothing for
    `IDLE_SECONDS`, which a process that works never lets pass.
    """
    session = postgres_session(database_url, "eventstream-relay")
    session.execute(
        "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2;"
        " SET tcp_keepalives_count = 3; SET tcp_user_timeout = 10000;"
        f" SET idle_session_timeout = {IDLE_SECONDS * 1000:.0f}"
    )
    return session

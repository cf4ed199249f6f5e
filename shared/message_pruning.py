"""Pruning: the days of the message journal that are over are removed, and what was is reported."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import date

from shared.message_days import Connection, Day, old_days, remove, today

LOCK_MS = 2000  # that a removal waits for others, who would wait behind it
KEPT_DAYS = 90  # that the report of a pruning is kept
_LOCK = 0x7072756E65  # "prune": the advisory lock of whoever is at it


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a pruning removed, or a dry run would; `kept` are days that have to wait."""

    before: date
    removed: list[Day] = field(default_factory=list)
    kept: list[date] = field(default_factory=list)
    is_elsewhere: bool = False  # somebody else is at it, and nothing was done

    @property
    def messages(self) -> int:
        """The number of messages that were removed."""
        return sum(day.messages for day in self.removed)

    @property
    def events(self) -> int:
        """The number of their events."""
        return sum(day.events for day in self.removed)

    @property
    def bytes(self) -> int:
        """What they took on disk."""
        return sum(day.bytes for day in self.removed)


def prune(connection: Connection, before: date, *, dry_run: bool = False) -> Pruned:
    """Removes the days before `before`, with their messages; reports it in `message_prunings`.

    Any number may be at it: one is, the others do nothing.

    Args:
        connection: as `session` makes it.
        before: at most today, so that no new message can be of such a day.
        dry_run: only tells.

    Raises:
        ValueError: `before` is later than today.
        psycopg.Error: Postgres went away, or a right is missing.
    """
    if before > today(connection):
        raise ValueError("Days that are not over are not removed.")
    if dry_run:
        return _would_prune(connection, before)
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
    if not (row and row[0]):
        return Pruned(before, is_elsewhere=True)
    try:
        return _prune(connection, before)
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))


def _prune(connection: Connection, before: date) -> Pruned:
    began = time.monotonic()
    connection.execute(f"SET lock_timeout = {LOCK_MS}")
    pruned = Pruned(before)
    for old in old_days(connection, before):
        removed = remove(connection, old)
        if removed is None:
            pruned.kept.append(old.day)
        else:
            pruned.removed.append(removed)
    _report(connection, pruned, time.monotonic() - began)
    return pruned


def _would_prune(connection: Connection, before: date) -> Pruned:
    pruned = Pruned(before)
    for old in old_days(connection, before):
        row = connection.execute(
            "SELECT count(*), coalesce(sum(last_sequence + 1), 0),"
            " count(*) FILTER (WHERE finished_at IS NULL) FROM messages WHERE day = %s",
            (old.day,),
        ).fetchone()
        messages, events, unfinished = row or (0, 0, 0)
        if unfinished:
            pruned.kept.append(old.day)
        else:
            pruned.removed.append(Day(old.day, int(messages), int(events), old.bytes))
    return pruned


def _report(connection: Connection, pruned: Pruned, seconds: float) -> None:
    connection.execute(
        "INSERT INTO message_prunings (before, removed, kept, messages, events, bytes, seconds)"
        " VALUES (%s, %s::date[], %s::date[], %s, %s, %s, %s)",
        (
            pruned.before,
            [day.day for day in pruned.removed],
            pruned.kept,
            pruned.messages,
            pruned.events,
            pruned.bytes,
            seconds,
        ),
    )
    connection.execute(
        "DELETE FROM message_prunings WHERE ran_at < now() - make_interval(days => %s)",
        (KEPT_DAYS,),
    )

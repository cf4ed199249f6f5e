"""The names of everything kept in Redis.

All of one user carries the hash tag `{user}`, so that one user's state, stream and announcement
are one atomic step on Redis Cluster too. What crosses slots (`task:`, `run:`, `open:`, `watchers:`)
is a hint, and `event-counts:` a statistic.
A secret is never part of a name: tickets and sessions go by its SHA-256.
"""

from __future__ import annotations

import hashlib
import zlib
from functools import lru_cache
from urllib.parse import quote

OPEN_SHARDS = 16


@lru_cache(maxsize=1024)
def _tag(user_id: str) -> str:
    return quote(user_id, safe="")  # leaves no brace, colon or space


def topic(user_id: str) -> str:
    """The channel that announces a user's events."""
    return f"user:{{{_tag(user_id)}}}"


def stream(user_id: str) -> str:
    """The user stream: a Redis Stream of the user's events."""
    return f"{topic(user_id)}:stream"


def run(user_id: str, run_id: str) -> str:
    """The hash that is the authority on one run."""
    return f"{topic(user_id)}:run:{run_id}"


def sources(user_id: str) -> str:
    """The sorted set of a user's source ids by the time of their latest run, in ms."""
    return f"{topic(user_id)}:sources"


def latest(user_id: str) -> str:
    """The hash that maps each of a user's source ids to its latest run id."""
    return f"{topic(user_id)}:latest"


def connections(user_id: str) -> str:
    """The sorted set of a user's open streams by the end of their lease, in ms."""
    return f"{topic(user_id)}:connections"


def connection_details(user_id: str) -> str:
    """The hash that tells of each of a user's open streams what is known of it."""
    return f"{topic(user_id)}:connection-details"


def ended_connection(user_id: str, connection_id: str) -> str:
    """The mark of a connection that somebody asked to end."""
    return f"{topic(user_id)}:ended:{connection_id}"


def replay(user_id: str) -> str:
    """The number of replays in a user's current window."""
    return f"{topic(user_id)}:replay"


def relayed(user_id: str) -> str:
    """The hash of each database's last position in its event outbox that is in the stream."""
    return f"{topic(user_id)}:relayed"


def message(message_id: str) -> str:
    """The channel that announces a message's events."""
    return f"message:{message_id}"


def task_pointer(task_id: str) -> str:
    """Hint: the user, source and run of a bare task id."""
    return f"task:{task_id}"


def run_pointer(run_id: str) -> str:
    """Hint: the user and source of a bare run id."""
    return f"run:{run_id}"


def open_runs(run_id: str) -> str:
    """Hint: the sorted set, one of sixteen, that holds this run by its next deadline in ms."""
    return open_shard(shard_of(run_id))


def shard_of(name: str) -> int:
    """Which of sixteen sets holds what has this name."""
    return zlib.crc32(name.encode()) % OPEN_SHARDS


def open_shard(number: int) -> str:
    """Hint: sorted set `number` of the sixteen that hold open runs by next deadline in ms."""
    return f"open:{number}"


def watchers(number: int) -> str:
    """Hint: sorted set `number` of the sixteen that hold users with open streams.

    Members are a process and a user, with a space between, by when the process must have said so
    again, in ms.
    """
    return f"watchers:{number}"


def event_counts(bucket: int) -> str:
    """The hash that counts the events of one stretch of time, by type."""
    return f"event-counts:{bucket}"


def ticket(secret: str) -> str:
    """Who may use this ticket, once, and until when they are signed in."""
    return f"ticket:{_digest(secret)}"


def session(secret: str) -> str:
    """Who a browser session that a ticket opened belongs to, and its end."""
    return f"session:{_digest(secret)}"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()

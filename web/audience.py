"""The users with open streams, in whichever process each is served, for an operator.

The index says who they are; each user's own leases say how many streams there are and how far they
have got.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass

from shared import keys
from shared.connections import ask_each
from shared.scripts import script
from shared.settings import get_settings
from shared.steps import reachable_redis
from web.admission import lease_ms
from web.connections import Connection, connection_of

MOST_OF_A_SHARD = 256  # entries of the index that are read
MOST_USERS = 200  # whose streams are looked at
AT_ONCE = 20  # users of one round trip, for which Redis serves nobody else


@dataclass(frozen=True, slots=True)
class Watching:
    """A user and their open streams, the one that is furthest behind first."""

    user_id: str
    connections: list[Connection]

    @property
    def lagging(self) -> int:
        """How many do not keep up, or still replay."""
        return sum(connection.lagging for connection in self.connections)

    @property
    def behind_ms(self) -> int:
        """The ms between the furthest behind and the stream's last entry."""
        return max(connection.behind_ms for connection in self.connections)

    @property
    def since(self) -> str:
        """When the oldest was opened."""
        return min(connection.since for connection in self.connections)


@dataclass(frozen=True, slots=True)
class Audience:
    """Those who were looked at, who lag most first.

    `users` is how many there are; an estimate where there are `more` than were looked at.
    """

    users: int
    more: bool
    watching: list[Watching]


class Audiences:
    """Looks at two hundred users at a time: at who lagged the last time, and others at random."""

    def __init__(self) -> None:
        self._lagging: list[str] = []

    def read(self) -> Audience:
        """Users with open streams, now.

        Raises:
            RedisUnavailable: Redis did not answer.
        """
        users, number = _indexed()
        chosen = self._choose(users)
        watching = watching_of(chosen)
        self._lagging = [each.user_id for each in watching if each.lagging]
        gone = users.intersection(chosen) - {each.user_id for each in watching}
        there = max(number - len(gone), len(watching))
        return Audience(there, there > len(watching), watching)

    def _choose(self, users: set[str]) -> list[str]:
        again = self._lagging[: MOST_USERS // 2]  # so that there is room for others to be found
        others = sorted(users.difference(again))
        random.shuffle(others)
        return (again + others)[:MOST_USERS]


def _indexed() -> tuple[set[str], int]:
    """Users whom the index names, at random where they are many, and how many there are."""
    lapsed_ms = int(time.time() * 1000) - lease_ms(get_settings())  # clocks may differ by so much
    shards = [keys.watchers(number) for number in range(keys.OPEN_SHARDS)]
    with reachable_redis() as client:
        ask_each(client, [("ZREMRANGEBYSCORE", shard, "-inf", lapsed_ms) for shard in shards])
        sizes = ask_each(client, [("ZCARD", shard) for shard in shards])
        entries = ask_each(client, [("ZRANDMEMBER", s, MOST_OF_A_SHARD) for s in shards])
    users, number = set(), 0.0
    for size, found in zip(sizes, entries, strict=True):
        names = {entry.decode().partition(" ")[2] for entry in found}  # a process has one for each
        users |= names
        number += len(names) * max(1, size / max(1, len(found)))
    return users, round(number)


def watching_of(users: Iterable[str]) -> list[Watching]:
    """The streams of these users, of whom those who have none are left out.

    Raises:
        RedisUnavailable: Redis did not answer.
    """
    wanted = list(users)
    calls: list[tuple[list[str], list[str]]] = [
        ([keys.connections(user), keys.connection_details(user), keys.stream(user)], [])
        for user in wanted
    ]
    replies = []
    with reachable_redis() as client:
        for first in range(0, len(calls), AT_ONCE):
            several = calls[first : first + AT_ONCE]
            replies += script("list_connections").run_each(client, several)
    found = []
    for user, rows in zip(wanted, replies, strict=True):
        connections = [connection_of(*[part.decode() for part in row]) for row in rows]
        if connections:
            found.append(Watching(user, sorted(connections, key=_behind_ms, reverse=True)))
    found.sort(key=lambda w: (w.lagging, w.behind_ms, len(w.connections), w.user_id), reverse=True)
    return found


def _behind_ms(connection: Connection) -> int:
    return connection.behind_ms

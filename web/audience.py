"""The users with open streams, in whichever process each is served, for an operator.

The index says who they are; each user's own leases say how many streams there are and how far they
have got.
"""

from __future__ import annotations

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
    """Those who were looked at, who lag most first; `more` where there are others."""

    users: int
    more: bool
    watching: list[Watching]


def audience() -> Audience:
    """Users with open streams; looks at two hundred.

    Raises:
        RedisUnavailable: Redis did not answer.
    """
    lapsed_ms = int(time.time() * 1000) - lease_ms(get_settings())  # clocks may differ by so much
    shards = [keys.watchers(number) for number in range(keys.OPEN_SHARDS)]
    with reachable_redis() as client:
        ask_each(client, [("ZREMRANGEBYSCORE", shard, "-inf", lapsed_ms) for shard in shards])
        entries = ask_each(client, [("ZRANGE", s, 0, MOST_OF_A_SHARD - 1) for s in shards])
    users = sorted({entry.decode().partition(" ")[2] for found in entries for entry in found})
    is_cut = any(len(found) == MOST_OF_A_SHARD for found in entries)
    watching = watching_of(users[:MOST_USERS])
    unseen = max(0, len(users) - MOST_USERS)
    return Audience(len(watching) + unseen, is_cut or unseen > 0, watching)


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

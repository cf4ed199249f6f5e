"""A user's live connections, as their leases tell: in whichever process each is served."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from shared import keys
from shared.scripts import script
from shared.settings import get_settings
from shared.steps import reachable_redis
from web.admission import lease_ms


@dataclass(frozen=True, slots=True)
class Connection:
    """One open stream.

    `since` is an ISO 8601 time and `address` the client's. `cursor` and `lagging` are as of the
    last renewal of its lease. `message_id` where it is a message's stream. `behind_ms` is what
    lies between its cursor and the stream's last entry, where that was asked for.
    """

    id: str
    since: str
    address: str
    user_agent: str
    cursor: str
    lagging: bool
    message_id: str | None = None
    behind_ms: int = 0


def list_connections(user_id: str) -> list[Connection]:
    """A user's open streams, those whose lease ends first to begin with.

    Raises:
        RedisUnavailable: Redis did not answer.
    """
    step_keys = [keys.connections(user_id), keys.connection_details(user_id)]
    with reachable_redis() as client:
        rows = script("list_connections").run(client, step_keys, [])
    return [connection_of(*[part.decode() for part in row]) for row in rows]


def end_connection(user_id: str, connection_id: str) -> bool:
    """Has a stream ended by whichever process serves it; False where the user has no such one.

    Raises:
        RedisUnavailable: Redis did not answer.
    """
    settings = get_settings()
    step_keys = [
        keys.connections(user_id),
        keys.connection_details(user_id),
        keys.ended_connection(user_id, connection_id),
    ]
    args = [connection_id, keys.topic(user_id), settings.publish_command, 2 * lease_ms(settings)]
    with reachable_redis() as client:
        return bool(script("end_connection").run(client, step_keys, args))


def connection_of(connection_id: str, details: str, at: str, behind_ms: str = "0") -> Connection:
    """One row of what `list_connections.lua` returns."""
    cursor, _, lags = at.partition(" ")
    return Connection(
        connection_id,
        **json.loads(details),
        cursor=cursor,
        lagging=lags == "1",
        behind_ms=int(behind_ms),
    )


def told(connection: Connection) -> dict[str, Any]:
    """A connection as it is told to its user."""
    known = asdict(connection)
    del known["behind_ms"]
    if connection.message_id is None:
        del known["message_id"]
    return known

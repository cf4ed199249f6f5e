"""Following a user's events, as lines of JSON: from the user stream itself, or over HTTP.

Both go on from their cursor after a lost connection, and both say `backlog.truncated` where
something is gone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import redis
from httpx_sse import EventSource, connect_sse
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared import keys, wire
from shared.connections import AnyRedis, cluster_client
from shared.encoding import to_json
from shared.errors import EventStreamError, RedisUnavailable
from shared.events import BACKLOG_TRUNCATED
from shared.settings import get_settings

_BLOCK_MS = 5_000
_SILENCE_SECONDS = 60  # at least: a connection that says less is dead
_SILENCE_KEEPALIVES = 4
_CONNECT_SECONDS = 5
_FIRST_RETRY_MS = 1_000  # until the server says otherwise
_LONGEST_WAIT_SECONDS = 3600
_PAGE = 200
_TOKEN_HINT = "Here a token is given by --token or EVENTSTREAM_TOKEN."


class StreamRefused(EventStreamError):
    """The server does not give this event stream."""


def follow_journal(redis_url: str, user_id: str, cursor: str | None) -> Iterator[str]:
    """Yields a user's events from their Redis Stream, for ever.

    Args:
        redis_url: where the stream is.
        user_id: whose it is.
        cursor: the position to begin after, well-formed; None for now.

    Raises:
        RedisUnavailable: Redis did not answer at the start; later it is waited for.
    """
    key = keys.stream(user_id)
    try:
        client = _patient_client(redis_url)
        position = cursor or _newest(client, key)
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise RedisUnavailable(f"Redis can't be reached: {error}") from error
    while True:
        try:
            reply: Any = client.xread({key: position}, count=_PAGE, block=_BLOCK_MS)
        except (redis.ConnectionError, redis.TimeoutError):
            time.sleep(_FIRST_RETRY_MS / 1000)
            continue
        for entry_id, fields in reply[0][1] if reply else ():
            before = fields[b"p"].decode()
            if before != position:
                yield _truncated(position, before)
            position = entry_id.decode()
            yield f'{{"id":"{position}",{fields[b"e"][1:].decode()}'


def _patient_client(url: str) -> AnyRedis:
    """A client that waits for as long as a read may block."""
    options: dict[str, Any] = {
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_timeout": _BLOCK_MS / 1000 + _CONNECT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
    if get_settings().redis_cluster:
        return cluster_client(url, **options)
    return redis.Redis.from_url(url, **options)


def _newest(client: AnyRedis, key: str) -> str:
    entries: Any = client.xrevrange(key, count=1)
    return entries[0][0].decode() if entries else wire.ORIGIN


def _truncated(position: str, before: str) -> str:
    """The notice that entries between a position and the next entry are gone."""
    trimmed = wire.cursor_key(position) < wire.cursor_key(before)
    payload = {"reason": "trimmed" if trimmed else "journal_reset", "cursor": before}
    return to_json({"type": BACKLOG_TRUNCATED, "payload": payload})


def follow_http(
    url: str,
    cursor: str | None,
    *,
    token: str | None = None,
    opened: Callable[[], None] = lambda: None,
    trust_env: bool = True,
) -> Iterator[str]:
    """Yields the events that a server sends at `/api/events`, for ever.

    A connection that says nothing for a minute, or for four of this process's
    `SSE_KEEPALIVE_SECONDS` where that is longer, is made anew.

    Args:
        url: the server's address, `http://host:port`.
        cursor: the position to begin after; None for now.
        token: who asks, where the server wants to know.
        opened: called whenever the server has begun to answer.
        trust_env: whether to go through the proxy that the environment names.

    Raises:
        StreamRefused: the server can't be reached at the start, or refuses.
    """
    retry_ms, connected = _FIRST_RETRY_MS, False
    keepalives_seconds = _SILENCE_KEEPALIVES * get_settings().sse_keepalive_seconds
    timeout = httpx.Timeout(_CONNECT_SECONDS, read=max(_SILENCE_SECONDS, keepalives_seconds))
    who = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(timeout=timeout, trust_env=trust_env, headers=who) as client:
        while True:
            headers = {"Last-Event-ID": cursor} if cursor else {}
            try:
                address = f"{url.rstrip('/')}/api/events"
                with connect_sse(client, "GET", address, headers=headers) as source:
                    wait_seconds = _refused_for(source, connected)
                    if wait_seconds is None:
                        connected = True
                        opened()
                        for sse in source.iter_sse():
                            cursor = sse.id or cursor
                            retry_ms = retry_ms if sse.retry is None else sse.retry
                            if sse.data:
                                yield sse.data
            except (httpx.TransportError, httpx.InvalidURL) as error:
                wait_seconds = None
                if not connected:
                    raise StreamRefused(f"{url} can't be reached: {error}") from error
            wait_seconds = retry_ms / 1000 if wait_seconds is None else wait_seconds
            time.sleep(min(wait_seconds, _LONGEST_WAIT_SECONDS))


def _refused_for(source: EventSource, connected: bool) -> float | None:
    """None for an open stream; for one refused just now, the seconds to wait.

    Who was `connected` before waits for whatever server, or proxy before it, fails meanwhile.

    Raises:
        StreamRefused: the refusal is for good, or what answers is no event stream.
    """
    response = source.response
    passes = response.status_code in (
        httpx.codes.TOO_MANY_REQUESTS,
        httpx.codes.SERVICE_UNAVAILABLE,
    )
    if passes or (connected and response.is_server_error):
        given = response.headers.get("Retry-After", "")
        # RFC 9110 allows a date too, which our server never gives.
        return float(given) if given.isdecimal() else _FIRST_RETRY_MS / 1000
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise StreamRefused(f"{refusal_message(response)} {_TOKEN_HINT}")
    if response.status_code != httpx.codes.OK:
        raise StreamRefused(refusal_message(response))
    kind = response.headers.get("Content-Type", "")
    if not kind.startswith("text/event-stream"):
        raise StreamRefused(f"{response.url} is no event stream but {kind or 'untyped'}.")
    return None


def refusal_message(response: httpx.Response) -> str:
    """What a server says about a request that it refused, as one sentence."""
    response.read()
    try:
        answer = response.json()
    except json.JSONDecodeError:
        answer = None
    if isinstance(answer, dict) and isinstance(answer.get("message"), str):
        return str(answer["message"])
    return f"{response.url} answered {response.status_code} {response.reason_phrase}."

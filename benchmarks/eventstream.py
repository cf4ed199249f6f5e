"""This project's own web process, as it is deployed: uvicorn, and a Redis that keeps everything."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import jwt
import redis

from benchmarks.machine import cores, on_core
from benchmarks.systems import TOKEN, Channel, Running, System, body, http_get
from shared import keys
from shared.scripts import script
from shared.settings import Settings
from worker.cli.children import Child, ChildFailed, spawn, stop
from worker.cli.embedded import LOOPBACK, free_port, wait_until_answering
from worker.cli.redis_server import RedisServer

START_SECONDS = 30.0
STOP_SECONDS = 10.0
TOKEN_SECONDS = 24 * 3600
ANONYMOUS = "local"
NOBODY_SIGNS_IN = {"AUTH_TYPE": "none", "ALLOW_ANONYMOUS": "true"}
NO_DATABASE = f"postgresql://nobody@{LOOPBACK}:1/none"  # a user's stream uses none

# On, but out of the way: one user has a thousand connections here, and replays without end.
LIMITS = {
    "SSE_MAX_CONCURRENT_PER_USER": "1000000",
    "EVENTS_REPLAY_BUDGET_REQUESTS_PER_WINDOW": "1000000000",
}


def system(*, signed_in: bool) -> System:
    """This project. Without sign-in everyone is one user."""
    start = partial(_running, signed_in=signed_in)
    if signed_in:
        return System("eventstream", "ours", start)
    return System("eventstream", "ours", start, one_user=ANONYMOUS, many_users=False)


@contextmanager
def durable_redis(folder: Path) -> Iterator[RedisServer]:
    """A Redis as the embedded one is, on the core of the clients."""
    server = RedisServer(folder, secrets.token_hex(16))
    server.launch()
    try:
        wait_until_answering(server)
        yield server
    finally:
        stop([server.child], STOP_SECONDS)


@contextmanager
def _running(*, signed_in: bool) -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="eventstream-benchmark-") as name:
        folder = Path(name)
        with durable_redis(folder) as server:
            secret = secrets.token_hex(32)
            auth = NOBODY_SIGNS_IN
            if signed_in:
                auth = {"AUTH_TYPE": "jwt", "JWT_SECRET_KEY": secret}
            with (
                web(server.url, auth) as (child, port),
                redis.Redis.from_url(server.url) as client,
            ):
                client.script_load(script("append").text)
                yield Running(
                    folder=folder,
                    port=port,
                    pid=child.pid,
                    channel=_channel(client),
                    get=_get(port, secret if signed_in else None),
                    event=append_command,
                    cursors=partial(_cursors, client),
                    redis_url=server.url,
                )


@contextmanager
def web(
    redis_url: str, auth: dict[str, str], database_url: str = NO_DATABASE
) -> Iterator[tuple[Child, int]]:
    """The web process, on the core of the servers, and its port."""
    port = free_port()
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    env = {
        **kept,
        **LIMITS,
        **auth,
        "REDIS_URL": redis_url,
        "DATABASE_URL": database_url,
    }
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    command = [sys.executable, "-m", "uvicorn", "web.asgi:app", "--port", str(port), *options]
    with on_core(cores()[0]):
        child = spawn("web", command, env=env, ready_text="Uvicorn running")
    try:
        deadline = time.monotonic() + START_SECONDS
        while not child.ready.wait(0.05):
            if not child.running or time.monotonic() > deadline:
                raise ChildFailed(child.ended() if not child.running else child.last_lines())
        yield child, port
    finally:
        stop([child], STOP_SECONDS)


def _get(port: int, secret: str | None) -> Callable[[str, str | None], bytes]:
    def get(user: str, cursor: str | None) -> bytes:
        headers = {"Last_Event_ID": cursor} if cursor else {}
        if secret is not None:
            claims = {"sub": user, "exp": int(time.time()) + TOKEN_SECONDS}
            headers["Authorization"] = f"Bearer {jwt.encode(claims, secret, 'HS256')}"
        return http_get("/api/events", port, **headers)

    return get


def _channel(client: redis.Redis) -> Channel:
    options = client.connection_pool.connection_kwargs
    hello = _packed("AUTH", options["password"])
    return Channel(int(options["port"]), "resp", sockets=1, first=(hello,))


def append_command(user: str) -> bytes:
    """The append step for one event, as Redis takes it. The one place that knows its ARGV."""
    defaults = Settings.model_fields
    maxlen = defaults["events_stream_maxlen"].default
    ttl_ms = defaults["events_stream_ttl_seconds"].default * 1000
    arguments = (keys.topic(user), "PUBLISH", maxlen, ttl_ms, TOKEN, "", body(user))
    return _packed("EVALSHA", script("append").sha, 1, keys.stream(user), *arguments)


def _packed(*words: str | int) -> bytes:
    """A command in RESP: an array of strings."""
    texts = [str(word).encode() for word in words]
    strings = [b"$%d\r\n%b\r\n" % (len(text), text) for text in texts]
    return b"*%d\r\n%b" % (len(texts), b"".join(strings))


def _cursors(client: redis.Redis, running: Running, users: Sequence[str], back: int) -> list[str]:
    running.publish(users, count=len(users) * (back + 1))
    found = []
    for user in users:
        entries: list[tuple[bytes, object]] = client.xrevrange(keys.stream(user), count=back + 1)  # type: ignore[assignment]
        found.append(entries[-1][0].decode())
    return found

"""Where clients of Redis and Postgres come from: one factory each, built lazily in each process.

A forked child never uses its parent's sockets: everything is keyed by process id.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import psycopg
import redis
import redis.asyncio
from psycopg_pool import ConnectionPool, PoolTimeout
from redis.asyncio.connection import AbstractConnection
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.errors import PostgresUnavailable
from shared.settings import get_settings

AnyRedis = redis.Redis | redis.RedisCluster

CONNECT_TIMEOUT_SECONDS = 0.25
LINK_TIMEOUT_SECONDS = 1.0  # for one that is kept, and may be far away or encrypted

_pools: dict[tuple[int, str], ConnectionPool[psycopg.Connection[tuple[Any, ...]]]] = {}
_pools_lock = threading.Lock()


def redis_client(url: str) -> redis.Redis:
    """Returns a client that answers or fails within about half a second and never retries.

    redis-py's own defaults (ten retries, five seconds each) would hold up a task for a minute
    and append twice after a lost reply.
    """
    return _redis_client(os.getpid(), url)


def app_redis() -> AnyRedis:
    """Returns the client of the Redis that `REDIS_URL` names, or of the cluster that it is part of.

    Raises:
        SettingsError: `REDIS_URL` is not set.
        redis.ConnectionError: no node of the cluster can be reached.
    """
    settings = get_settings()
    url = settings.require_redis_url()
    return _cluster_client(os.getpid(), url) if settings.redis_cluster else redis_client(url)


def cluster_client(url: str, **options: Any) -> ClusterClient:
    """Returns a new client of a Redis Cluster, which knows the shards by now.

    Args:
        url: a node's.
        options: redis-py's, where the client is not to be as quick to fail as others.

    Raises:
        redis.ConnectionError: no node can be reached.
    """
    try:
        return ClusterClient(url=url, **{**_quick(), **options})
    except redis.exceptions.RedisClusterException as error:
        raise redis.ConnectionError(str(error)) from error


class ClusterClient(redis.RedisCluster):
    """A client of a Redis Cluster that fails as one of a single server does."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Runs a command on the shard that holds its keys."""
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except redis.exceptions.RedisClusterException as error:  # no RedisError to redis-py
            raise redis.ConnectionError(str(error)) from error


@cache
def _cluster_client(pid: int, url: str) -> ClusterClient:
    return cluster_client(url)


@cache
def _redis_client(pid: int, url: str) -> redis.Redis:
    # A pool from before a fork resets itself in the child, under a lock that a thread of the
    # parent may have held: a child has a pool of its own, and its parent's is left alone.
    return redis.Redis.from_url(url, **_quick())


def ask(client: AnyRedis, *command: Any) -> Any:
    """Runs a command once, and returns its reply as it came.

    On a single server without what redis-py puts around each: its retries, of which our clients
    have none, and its metrics take as long as a whole step in Redis.

    Raises:
        redis.RedisError: as `execute_command` does.
    """
    if not isinstance(client, redis.Redis):
        return client.execute_command(*command)  # type: ignore[no-untyped-call]
    reply = ask_together(client, [command])[0]
    if isinstance(reply, redis.RedisError):
        raise reply
    return reply


def ask_together(client: redis.Redis, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """Runs commands in one round trip; returns what each was answered, refusals too.

    Raises:
        redis.RedisError: there is no answer to all of them.
    """
    connection: Any = client.connection_pool.get_connection()
    try:
        connection.send_packed_command(connection.pack_commands(commands))
        return [_reply(connection) for _ in commands]
    except BaseException:
        connection.disconnect()  # what is not read yet would be taken for another's reply
        raise
    finally:
        client.connection_pool.release(connection)


def ask_each(client: AnyRedis, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """Runs commands that each know one key, in one round trip to each shard; returns their replies.

    These are as they come from either kind of client: see `pairs` for hashes.

    Raises:
        redis.RedisError: there is no answer to one of them, or it is a refusal.
    """
    if isinstance(client, redis.Redis):
        replies = ask_together(client, commands)
    else:
        pipeline: Any = client.pipeline()  # type: ignore[no-untyped-call]
        for command in commands:
            pipeline.execute_command(*command)
        try:
            replies = pipeline.execute(raise_on_error=False)
        except redis.exceptions.RedisClusterException as error:  # no RedisError to redis-py
            raise redis.ConnectionError(str(error)) from error
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def pairs(reply: Any) -> Iterable[tuple[bytes, bytes]]:
    """The fields and values of a hash, in whichever form they came."""
    if isinstance(reply, Mapping):
        return reply.items()
    return zip(reply[::2], reply[1::2], strict=True)


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as refusal:
        return refusal


def _quick() -> dict[str, Any]:
    return {
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "socket_timeout": CONNECT_TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }


async def connect_link(url: str, **address: Any) -> AbstractConnection:
    """Returns an asyncio connection that stands, is authenticated and speaks RESP3.

    Args:
        url: the server's, with the account.
        address: `host` and `port`, where they are another node's of the same cluster.

    Raises:
        redis.RedisError: the server can't be reached, or refuses.
    """
    options = {
        "protocol": 3,
        "socket_connect_timeout": LINK_TIMEOUT_SECONDS,
        "socket_timeout": LINK_TIMEOUT_SECONDS,
        "retry": redis.asyncio.retry.Retry(NoBackoff(), 0),
        **address,
    }
    pool = redis.asyncio.ConnectionPool.from_url(url)
    pool.connection_kwargs.update(options)
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    await connection.connect()  # type: ignore[no-untyped-call]
    return connection


def postgres_session(url: str, name: str) -> psycopg.Connection[Any]:
    """Returns a connection that is kept, in autocommit mode; whoever it is for closes it.

    A server that is gone without a word is noticed within some ten seconds.

    Args:
        url: the database's.
        name: what Postgres lists it as.

    Raises:
        psycopg.OperationalError: the server can't be reached, or refuses.
    """
    return psycopg.connect(
        url,
        autocommit=True,
        connect_timeout=5,
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=3,
        tcp_user_timeout=10_000,
        application_name=name,
    )


@contextmanager
def postgres() -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Lends a pooled connection; commits at the end of the block, rolls back on an exception.

    Raises:
        PostgresUnavailable: no connection could be had within five seconds.
        SettingsError: `DATABASE_URL` is not set.
    """
    try:
        with _pool(get_settings().require_database_url()).connection() as connection:
            yield connection
    except PoolTimeout as error:
        raise PostgresUnavailable from error


def _pool(url: str) -> ConnectionPool[psycopg.Connection[tuple[Any, ...]]]:
    key = (os.getpid(), url)
    with _pools_lock:
        if key not in _pools:
            _pools[key] = ConnectionPool(
                url,
                min_size=0,
                max_size=8,
                timeout=5,
                open=True,
                check=ConnectionPool.check_connection,
            )
        return _pools[key]


def close_pools() -> None:
    """Closes this process's Postgres pools; the next use opens new ones."""
    with _pools_lock:
        for key in [key for key in _pools if key[0] == os.getpid()]:
            _pools.pop(key).close()


def _start_anew() -> None:
    global _pools_lock
    _pools_lock = threading.Lock()  # a thread of the parent may have held it


os.register_at_fork(after_in_child=_start_anew)

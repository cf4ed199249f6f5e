"""Where clients of Redis and Postgres come from: one factory each, built lazily in each process.

A forked child never uses its parent's sockets: everything is keyed by process id.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import psycopg
import redis
import redis.asyncio
from psycopg_pool import ConnectionPool, PoolTimeout
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.errors import PostgresUnavailable
from shared.settings import get_settings

CONNECT_TIMEOUT_SECONDS = 0.25

_pools: dict[tuple[int, str], ConnectionPool[psycopg.Connection[tuple[Any, ...]]]] = {}
_pools_lock = threading.Lock()


def redis_client(url: str) -> redis.Redis:
    """Returns a client that answers or fails within about half a second and never retries.

    redis-py's own defaults (ten retries, five seconds each) would hold up a task for a minute
    and append twice after a lost reply.
    """
    return _redis_client(os.getpid(), url)


@cache
def _redis_client(pid: int, url: str) -> redis.Redis:
    # A pool from before a fork resets itself in the child, under a lock that a thread of the
    # parent may have held: a child has a pool of its own, and its parent's is left alone.
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=CONNECT_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


def link_pool(url: str) -> redis.asyncio.ConnectionPool:
    """Returns what makes asyncio connections that speak RESP3 and are as quick to fail."""
    return redis.asyncio.ConnectionPool.from_url(
        url,
        protocol=3,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=2 * CONNECT_TIMEOUT_SECONDS,
        retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
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

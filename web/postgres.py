"""An event loop's connections to Postgres: few, made when they are first needed."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from shared.errors import PostgresUnavailable
from shared.settings import Settings

CONNECTIONS = 4
CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0  # a Postgres that answers nothing for so long is away

Rows = list[tuple[Any, ...]]
_Pool = AsyncConnectionPool[psycopg.AsyncConnection[tuple[Any, ...]]]


class Postgres:
    """Made inside the loop that it serves; `aclose` it there."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool: _Pool | None = None

    async def rows(self, statement: str, values: dict[str, Any]) -> Rows:
        """Runs one statement, which commits by itself, and returns its rows.

        Raises:
            PostgresUnavailable: there is no connection to be had, or no answer.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                async with (await self._opened()).connection() as connection:
                    cursor = await connection.execute(statement, values)
                    return await cursor.fetchall()
        except (PoolTimeout, psycopg.OperationalError, TimeoutError) as error:
            raise PostgresUnavailable from error

    async def aclose(self) -> None:
        """Ends the connections."""
        if self._pool is not None:
            await self._pool.close()

    async def _opened(self) -> _Pool:
        if self._pool is None:
            self._pool = AsyncConnectionPool(
                self._settings.require_database_url(),
                min_size=0,
                max_size=CONNECTIONS,
                timeout=CONNECT_SECONDS,
                reconnect_timeout=CONNECT_SECONDS,  # else it pauses longer and longer
                open=False,
                check=AsyncConnectionPool.check_connection,
                kwargs={"autocommit": True},
            )
        await self._pool.open()
        return self._pool

"""Brings a database to this release's schema: plain SQL files, each applied once, in order.

A file `NNNN_name.sql` runs in a transaction of its own and is recorded with its checksum. An
applied file never changes; what changes is added as the next one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import psycopg

from shared.errors import MigrationError, PostgresUnavailable

MIGRATIONS: Traversable = files("shared") / "migrations"

_CONNECT_TIMEOUT_SECONDS = 5
_LOCK = 0x6576656E74  # "event": the advisory lock that one migration at a time holds
_FILE_NAME = re.compile(r"\d{4}_[a-z0-9_]+\.sql")

_Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file: its name without `.sql`, and its text."""

    name: str
    sql: str

    @property
    def number(self) -> str:
        """Its place in the order, four digits."""
        return self.name[:4]

    @property
    def checksum(self) -> str:
        """The SHA-256 of its text, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrate(database_url: str, folder: Traversable = MIGRATIONS) -> list[str]:
    """Applies what is not applied yet; several at once take turns.

    Args:
        database_url: the database, `postgresql://...`.
        folder: holds the files `NNNN_name.sql`.

    Returns:
        The names of the migrations applied, in order; empty where nothing was to be done.

    Raises:
        MigrationError: a file failed (it left no trace, those before it stay), was edited after
            it was applied, is out of order, or the database is newer than this release.
        PostgresUnavailable: the database can't be reached.
    """
    known = read_migrations(folder)
    with _connect(database_url) as connection:
        # Released by the server when the session ends, whatever the cause.
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        waiting = pending(known, _recorded(connection))
        for migration in waiting:
            _apply(connection, migration)
    return [migration.name for migration in waiting]


def read_migrations(folder: Traversable) -> list[Migration]:
    """Reads the SQL files of a folder, in order.

    Raises:
        MigrationError: a name is not like `0001_documents.sql`, or two have one number.
    """
    found: dict[str, Migration] = {}
    names = (file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    for name in sorted(names):
        if not _FILE_NAME.fullmatch(name):
            raise MigrationError(f"{name} is not named like 0001_documents.sql.")
        text = (folder / name).read_text(encoding="utf-8")
        migration = Migration(name.removesuffix(".sql"), text)
        twin = found.setdefault(migration.number, migration)
        if twin is not migration:
            raise MigrationError(f"{twin.name} and {migration.name} have the same number.")
    return list(found.values())


def pending(known: Sequence[Migration], recorded: dict[str, str]) -> list[Migration]:
    """Returns the migrations to apply, in order.

    Args:
        known: this release's migrations, in order.
        recorded: checksums of those applied, by name.

    Raises:
        MigrationError: what was applied is not what this release has up to there.
    """
    by_name = {migration.name: migration for migration in known}
    for name, checksum in recorded.items():
        if name not in by_name:
            raise MigrationError(
                f"The database has the migration {name}, which this release does not know: "
                "a newer release made it. Run that one, or restore the database."
            )
        if by_name[name].checksum != checksum:
            raise MigrationError(
                f"The migration {name} was edited after it was applied. "
                "Restore the file, and put the change into a new one."
            )
    waiting = [migration for migration in known if migration.name not in recorded]
    newest = max(recorded, default="")
    if waiting and waiting[0].name < newest:
        raise MigrationError(
            f"The migration {waiting[0].name} comes before {newest}, which is applied. "
            "Give it the next free number."
        )
    return waiting


def _connect(database_url: str) -> _Connection:
    try:
        return psycopg.connect(
            database_url, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_SECONDS
        )
    except psycopg.OperationalError as error:
        raise PostgresUnavailable(f"The database can't be reached: {error}") from error


def _recorded(connection: _Connection) -> dict[str, str]:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        " name text PRIMARY KEY, checksum text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )
    rows = connection.execute("SELECT name, checksum FROM schema_migrations ORDER BY name")
    return dict(rows.fetchall())


def _apply(connection: _Connection, migration: Migration) -> None:
    try:
        with connection.transaction():
            connection.execute(migration.sql.encode())
            connection.execute(
                "INSERT INTO schema_migrations (name, checksum) VALUES (%s, %s)",
                (migration.name, migration.checksum),
            )
    except psycopg.Error as error:
        raise MigrationError(f"The migration {migration.name} failed: {error}") from error

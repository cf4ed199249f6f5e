"""Migrations against a real PostgreSQL."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from shared.errors import MigrationError, PostgresUnavailable
from shared.migrate import migrate
from tests.conftest import RunningPostgres


@pytest.fixture
def empty_database_url(postgres_server: RunningPostgres) -> Iterator[str]:
    name = f"test_{secrets.token_hex(8)}"
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield postgres_server.url_of(name)
        drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
        connection.execute(drop)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_first.sql").write_text(
        "CREATE TABLE first (n int); INSERT INTO first SELECT 1;"
    )
    (tmp_path / "0002_second.sql").write_text("-- 100% plain SQL\nCREATE TABLE second (n int)")
    return tmp_path


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        )
        return {name for (name,) in rows}


def test_each_file_is_applied_once(empty_database_url: str, folder: Path) -> None:
    assert migrate(empty_database_url, folder) == ["0001_first", "0002_second"]
    assert tables(empty_database_url) == {"first", "second", "schema_migrations"}
    assert migrate(empty_database_url, folder) == []


def test_the_next_release_adds_only_what_is_new(empty_database_url: str, folder: Path) -> None:
    migrate(empty_database_url, folder)
    (folder / "0003_third.sql").write_text("ALTER TABLE second ADD more int")
    assert migrate(empty_database_url, folder) == ["0003_third"]


def test_a_file_that_fails_leaves_no_trace(empty_database_url: str, folder: Path) -> None:
    broken = folder / "0002_second.sql"
    broken.write_text("CREATE TABLE second (n int); SELECT nonsense;")
    with pytest.raises(MigrationError, match=r"0002_second failed.*nonsense"):
        migrate(empty_database_url, folder)
    assert tables(empty_database_url) == {"first", "schema_migrations"}
    broken.write_text("CREATE TABLE second (n int)")
    assert migrate(empty_database_url, folder) == ["0002_second"]


def test_an_edited_file_is_refused(empty_database_url: str, folder: Path) -> None:
    migrate(empty_database_url, folder)
    (folder / "0001_first.sql").write_text("CREATE TABLE first (n bigint)")
    with pytest.raises(MigrationError, match="0001_first was edited"):
        migrate(empty_database_url, folder)


def test_several_at_once_take_turns(empty_database_url: str, folder: Path) -> None:
    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(lambda _: migrate(empty_database_url, folder), range(6)))
    assert sorted(filter(None, runs)) == [["0001_first", "0002_second"]]


def test_an_unreachable_database_is_said_plainly() -> None:
    with pytest.raises(PostgresUnavailable, match="can't be reached"):
        migrate("postgresql://somebody:secret@127.0.0.1:1/none")


def test_the_shipped_migrations_apply(empty_database_url: str) -> None:
    applied = migrate(empty_database_url)
    assert applied == sorted(applied)
    assert migrate(empty_database_url) == []

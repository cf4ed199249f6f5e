"""Which migrations are to be applied, and when that is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import MigrationError
from shared.migrate import MIGRATIONS, Migration, pending, read_migrations

FIRST = Migration("0001_first", "CREATE TABLE first ()")
SECOND = Migration("0002_second", "CREATE TABLE second ()")
THIRD = Migration("0003_third", "CREATE TABLE third ()")


def recorded(*migrations: Migration) -> dict[str, str]:
    return {migration.name: migration.checksum for migration in migrations}


def test_what_is_not_recorded_is_pending_in_order() -> None:
    assert pending([FIRST, SECOND, THIRD], recorded(FIRST)) == [SECOND, THIRD]
    assert pending([FIRST], recorded(FIRST)) == []


def test_an_edited_file_is_refused() -> None:
    edited = Migration(FIRST.name, FIRST.sql + " -- better")
    with pytest.raises(MigrationError, match="0001_first was edited"):
        pending([edited], recorded(FIRST))


def test_a_database_from_a_newer_release_is_refused() -> None:
    with pytest.raises(MigrationError, match=r"0002_second.*newer release"):
        pending([FIRST], recorded(FIRST, SECOND))


def test_a_file_that_comes_before_what_is_applied_is_refused() -> None:
    with pytest.raises(MigrationError, match="0002_second comes before 0003_third"):
        pending([FIRST, SECOND, THIRD], recorded(FIRST, THIRD))


def test_files_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("0002_b.sql", "0001_a.sql", "README.md"):
        (tmp_path / name).write_text(name)
    assert read_migrations(tmp_path) == [
        Migration("0001_a", "0001_a.sql"),
        Migration("0002_b", "0002_b.sql"),
    ]


def test_a_misnamed_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1-documents.sql").touch()
    with pytest.raises(MigrationError, match="not named like"):
        read_migrations(tmp_path)


def test_two_files_of_one_number_are_refused(tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").touch()
    (tmp_path / "0001_b.sql").touch()
    with pytest.raises(MigrationError, match="0001_a and 0001_b have the same number"):
        read_migrations(tmp_path)


def test_the_shipped_migrations_are_well_named() -> None:
    read_migrations(MIGRATIONS)

"""Uploads in a real database: whole or not at all, once or not at all, gone at the end."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from shared import upload_files, uploads
from shared.upload_files import PIECE_BYTES, Connection, StoredFile, UploadGone
from shared.uploads import Stored, UnusableName, Upload, UploadTooLarge


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


def send(
    connection: Connection,
    *contents: bytes,
    user: str = "alice",
    key: str | None = None,
    **more: Any,
) -> Stored:
    names = more.pop("names", [f"{n}.txt" for n in range(len(contents))])
    return uploads.store(
        connection,
        user_id=user,
        name=more.pop("name", "Notes"),
        files=[
            Upload(name, "text/plain", io.BytesIO(data))
            for name, data in zip(names, contents, strict=True)
        ],
        source_id=str(uuid4()),
        run_id=str(uuid4()),
        task_id=str(uuid4()),
        idempotency_key=key,
        max_bytes=more.pop("max_bytes", 10 * PIECE_BYTES),
    )


def read(connection: Connection, file: StoredFile) -> bytes:
    with upload_files.open_file(connection, file) as copy:
        return copy.read()


def rows(connection: Connection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


class Trickle(io.BytesIO):
    """A stream that gives less than it is asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 1000))


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, 2 * PIECE_BYTES + 7])
def test_bytes_come_back_as_they_were(connection: Connection, size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    stored = send(connection, data[:size], b"second")
    first, second = upload_files.files(connection, stored.run_id)
    assert (first.size, first.position, second.position) == (size, 0, 1)
    assert read(connection, first) == data[:size]
    assert read(connection, second) == b"second"
    assert upload_files.head(connection, first.id, 100) == data[: min(size, 100)]


def test_pieces_are_of_one_size_however_the_bytes_arrive(connection: Connection) -> None:
    stored = send(connection, b"")
    (file,) = upload_files.files(connection, stored.run_id)
    data = b"x" * (PIECE_BYTES + 1)
    upload_files.add(connection, replace(file, member=1), Trickle(data), max_bytes=len(data))
    sizes = connection.execute("SELECT length(data) FROM upload_chunks ORDER BY number").fetchall()
    assert sizes == [(PIECE_BYTES,), (1,)]


def test_an_upload_that_is_too_large_leaves_nothing(connection: Connection) -> None:
    send(connection, b"x" * 50, b"x" * 50, max_bytes=100)
    with pytest.raises(UploadTooLarge):
        send(connection, b"x" * 50, b"x" * 51, max_bytes=100)
    assert rows(connection, "sources") == 1
    assert rows(connection, "upload_chunks") == 2


def test_names_are_kept_as_labels(connection: Connection) -> None:
    names = ["数据库.txt", "<script>alert(1)</script>", "a\x00b\ud800\nc", "", "x" * 900]
    stored = send(connection, *[b"x"] * 5, names=names, name=" ñn\x00ame ")
    assert stored.name == "ñname"
    kept = [file.name for file in upload_files.files(connection, stored.run_id)]
    assert kept == [*names[:2], "ab\ufffd c", "unnamed", "x" * 300]


@pytest.mark.parametrize("name", ["a\x00b", "\ud800"])
def test_what_identifies_is_refused_rather_than_changed(connection: Connection, name: str) -> None:
    with pytest.raises(UnusableName):
        send(connection, b"x", user=name)
    with pytest.raises(UnusableName):
        send(connection, b"x", key=name)


def test_the_same_key_gets_the_first_upload_and_reads_no_file(connection: Connection) -> None:
    first = send(connection, b"one", key="k", name="First")
    again = send(connection, b"two", key="k", name="Second")
    assert (first.created, again.created) == (True, False)
    assert replace(again, created=True) == first
    assert rows(connection, "upload_files") == 1


def test_keys_belong_to_a_user_and_no_key_is_never_the_same(connection: Connection) -> None:
    sent = [send(connection, b"x", user=user, key="k") for user in ("alice", "bob")]
    sent += [send(connection, b"x") for _ in range(2)]
    assert len({stored.source_id for stored in sent}) == 4


def test_of_two_uploads_with_one_key_at_once_one_is_stored(
    connection: Connection, database_url: str
) -> None:
    answers: list[Stored] = []

    def second() -> None:
        with psycopg.connect(database_url) as other:
            answers.append(send(other, b"x", key="k"))

    thread = threading.Thread(target=second)
    with connection.transaction():
        answers.append(send(connection, b"x", key="k"))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()  # it waits for the first to be decided
    thread.join(10)
    assert [stored.created for stored in answers] == [True, False]
    assert answers[0].run_id == answers[1].run_id


def test_a_key_whose_first_upload_failed_is_free(connection: Connection) -> None:
    with pytest.raises(UploadTooLarge):
        send(connection, b"xx", key="k", max_bytes=1)
    assert send(connection, b"x", key="k").created


def test_a_run_s_old_bytes_are_deleted_and_no_other_s(connection: Connection) -> None:
    gone, kept = send(connection, b"one", b"two"), send(connection, b"three")
    (file, _) = upload_files.files(connection, gone.run_id)
    upload_files.delete_older(connection, gone.run_id, timedelta(hours=1))
    assert rows(connection, "upload_files") == 3
    upload_files.delete_older(connection, gone.run_id, timedelta())
    assert upload_files.files(connection, gone.run_id) == []
    assert rows(connection, "upload_chunks") == 1
    assert read(connection, upload_files.files(connection, kept.run_id)[0]) == b"three"
    with pytest.raises(UploadGone):
        upload_files.find(connection, file.id)
    with pytest.raises(UploadGone):
        read(connection, file)

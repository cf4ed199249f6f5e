"""The pipeline's functions against a real database: what becomes of an upload."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from types import ModuleType
from typing import Any

import psycopg
import pytest
from celery.exceptions import Ignore

from shared import runs, upload_files
from shared.connections import postgres
from shared.facts import Revoked
from shared.search import search
from shared.settings import get_settings
from shared.upload_files import Connection
from tests import samples
from tests.ingested import ingest, upload
from worker.documents import cleanup, formats, parsing, store, unpacking
from worker.documents.errors import FileGone, NoFileSurvived
from worker.documents.indexing import failures, index
from worker.documents.members import Limits
from worker.documents.parsing import parse
from worker.documents.unpacking import unpack
from worker.ingest import IngestError


@pytest.fixture
def connection(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    get_settings.cache_clear()
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


pytestmark = pytest.mark.usefixtures("connection")


def codes(result: dict[str, Any]) -> dict[str, str]:
    return {failure["name"]: failure["code"] for failure in result["failed_files"]}


def rows(connection: Connection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


def test_files_of_every_kind_become_searchable(connection: Connection) -> None:
    result = ingest(
        {
            "a.md": samples.MARKDOWN,
            "b.html": samples.HTML,
            "c.pdf": samples.pdf("Curlews probe.", "Dunlins run."),
            "d.zip": samples.zip_of({"in/e.txt": b"egrets"}),
            "f.tar.gz": samples.tar_gz_of({"g.txt": b"godwits"}),
        }
    )
    assert result == {
        "files": 5,
        "chunks": 5,
        "characters": result["characters"],
        "failed_files": [],
    }
    for query, name in {
        "frogs": "a.md",
        "boom": "b.html",
        "dunlins": "c.pdf",
        "egrets": "d.zip/in/e.txt",
        "godwits": "f.tar.gz/g.txt",
    }.items():
        assert [hit.document_name for hit in search(connection, "alice", query)] == [name]


def test_a_pdf_is_counted_by_its_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[tuple[int, str]] = []

    def track(sections: Iterator[str], *, total: int, unit: str) -> Iterator[str]:
        for number, section in enumerate(sections, 1):
            counted.append((number, f"of {total} {unit}"))
            yield section

    monkeypatch.setattr(parsing, "track", track)
    ingest({"a.pdf": samples.pdf("one", "two")})
    assert counted == [(1, "of 2 pages"), (2, "of 2 pages")]


def test_bad_files_are_named_and_nothing_else_is_lost() -> None:
    result = ingest(
        {
            "数据.txt": "鸟".encode(),
            "<script>alert(1)</script>.md": b"# ok",
            "broken.pdf": samples.BROKEN_PDF,
            "photo.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF",
        }
    )
    assert (result["files"], result["chunks"]) == (2, 2)
    assert codes(result) == {"broken.pdf": "unreadable_pdf", "photo.jpg": "unsupported_type"}


def test_a_lone_bad_file_fails_with_its_own_reason() -> None:
    with pytest.raises(IngestError, match="password") as caught:
        ingest({"x.pdf": samples.pdf("x", password="secret")})
    assert caught.value.code == "encrypted_pdf"
    assert codes(caught.value.details) == {"x.pdf": "encrypted_pdf"}


def test_a_source_of_bad_files_alone_names_them_all() -> None:
    with pytest.raises(NoFileSurvived) as caught:
        ingest({"x.pdf": samples.BROKEN_PDF, "y.txt": b""})
    assert codes(caught.value.details) == {"x.pdf": "unreadable_pdf", "y.txt": "empty"}


def test_a_bug_in_a_parser_costs_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fall_over(_data: bytes) -> str:
        raise AssertionError("what no parser should say")

    monkeypatch.setattr(formats, "to_markdown", fall_over)
    result = ingest({"a.txt": b"a", "b.html": samples.HTML})
    assert codes(result) == {"b.html": "unreadable_file"}
    assert "should say" not in str(result)


@pytest.mark.parametrize("where", [parsing, unpacking])
def test_a_run_that_is_cancelled_stops_at_its_next_item_and_keeps_nothing_of_it(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, where: ModuleType
) -> None:
    def stop_at_second(items: Iterable[Any], **_: Any) -> Iterator[Any]:
        for number, item in enumerate(items):
            if number == 1:
                raise Ignore
            yield item

    monkeypatch.setattr(where, "track", stop_at_second)
    files = {"a.pdf": samples.pdf("one", "two")}
    if where is unpacking:
        files = {"a.zip": samples.zip_of({"a.txt": b"a", "b.txt": b"b"})}
    with pytest.raises(Ignore):
        ingest(files)
    assert rows(connection, "documents") == 0
    assert rows(connection, "upload_files") == 1


def test_bad_members_are_named_and_nothing_else_is_lost() -> None:
    inner = samples.zip_of({"x.txt": b"x"})
    large = b"x" * 5000
    result = ingest(
        {"z.zip": samples.zip_of({"a.txt": b"a", "in.zip": inner, "b.txt": large, "c.txt": b"c"})},
        limits=Limits(file_bytes=4000),
    )
    assert result["files"] == 2
    assert codes(result) == {"z.zip/in.zip": "nested_archive", "z.zip/b.txt": "file_too_large"}


@pytest.mark.parametrize(
    ("data", "limits", "code"),
    [
        (samples.zip_of({"a": b"\0" * 9000}), Limits(total_bytes=8000), "archive_too_large"),
        (samples.zip_of({"a": b"a", "b": b"b"}), Limits(files=1), "too_many_files"),
        (samples.encrypted_zip("a.txt", b"a"), Limits(), "encrypted_file"),
        (samples.zip_of({}), Limits(), "empty_archive"),
        (b"PK\x03\x04 damaged", Limits(), "unreadable_archive"),
    ],
)
def test_an_archive_that_can_t_be_unpacked_costs_no_other_file(
    connection: Connection, data: bytes, limits: Limits, code: str
) -> None:
    result = ingest({"x.zip": data, "good.txt": b"good"}, limits=limits)
    assert result["files"] == 1
    assert list(codes(result).values()) == [code]
    assert rows(connection, "documents") == 2


def test_the_files_before_an_archive_s_damage_are_kept() -> None:
    data = samples.tar_of({"a.txt": b"a", "b.txt": b"b" * 5000})
    result = ingest({"x.tar": data[:3600]})
    assert result["files"] == 1
    (failure,) = result["failed_files"]
    assert (failure["name"], failure["code"]) == ("x.tar", "unreadable_archive")
    assert "only 1 file could be unpacked" in failure["message"]


def test_every_step_may_run_twice(connection: Connection) -> None:
    stored = upload(
        {
            "a.txt": b"heron " * 1000,
            "b.zip": samples.zip_of({"c.txt": b"c", "d.zip": samples.zip_of({"e.txt": b"e"})}),
            "f.tgz": samples.tar_gz_of({"g.txt": b"x" * 3000})[:-30],
        }
    )
    files = unpack(stored.run_id)
    assert unpack(stored.run_id) == files
    documents = [parse(file.id) for file in files]
    assert [parse(file.id) for file in files] == documents
    first = index("alice", stored.source_id, stored.run_id)
    chunks = connection.execute("SELECT * FROM chunks ORDER BY 1, 2").fetchall()
    assert index("alice", stored.source_id, stored.run_id) == first
    assert connection.execute("SELECT * FROM chunks ORDER BY 1, 2").fetchall() == chunks
    assert len(chunks) == first["chunks"] > 6


def test_of_two_that_read_one_file_the_first_is_believed(connection: Connection) -> None:
    (file,) = unpack(upload({"a.txt": b"a"}).run_id)
    store.keep_text(connection, file.id, "first")
    store.keep_error(connection, file.id, FileGone())
    assert store.text_of(connection, file.id) == "first"
    assert parse(file.id).error_code is None


def test_chunks_are_pieces_of_the_text_in_order(connection: Connection) -> None:
    text = "".join(f"Sentence number {n} of a long story about birds. " for n in range(200))
    ingest({"a.txt": text.encode()})
    chunks = connection.execute("SELECT number, text FROM chunks ORDER BY number").fetchall()
    assert [number for number, _ in chunks] == list(range(len(chunks)))
    assert len(chunks) > 8
    assert all(chunk in text and len(chunk) <= 1000 for _, chunk in chunks)


def test_a_newer_run_replaces_what_the_older_one_left(connection: Connection) -> None:
    stored = upload({"a.txt": b"heron"})
    parse(unpack(stored.run_id)[0].id)
    index("alice", stored.source_id, stored.run_id)
    connection.execute("UPDATE sources SET run_id = 'newer'")
    (file,) = upload_files.files(connection, stored.run_id)
    newer = replace(file, run_id="newer", name="b.txt")
    with postgres() as own:
        added = upload_files.add(own, newer, io.BytesIO(b"egret"), max_bytes=9)
    parse(added.id)
    index("alice", stored.source_id, "newer")
    assert search(connection, "alice", "heron") == []
    assert len(search(connection, "alice", "egret")) == 1
    with pytest.raises(FileGone):
        index("alice", stored.source_id, stored.run_id)


def test_nobody_else_s_source_is_written_to(connection: Connection) -> None:
    stored = upload({"a.txt": b"heron"}, user="alice")
    parse(unpack(stored.run_id)[0].id)
    with pytest.raises(FileGone):
        index("bob", stored.source_id, stored.run_id)
    assert rows(connection, "chunks") == 0


def test_at_a_run_s_end_texts_and_unpacked_files_are_gone_and_what_is_found_stays(
    connection: Connection,
) -> None:
    stored = upload({"a.zip": samples.zip_of({"b.txt": b"heron"}), "c.txt": b""})
    files = unpack(stored.run_id)
    for file in files:
        parse(file.id)
    index("alice", stored.source_id, stored.run_id)
    cleanup.clean_up(stored.run_id)
    cleanup.clean_up(stored.run_id)
    uploaded = connection.execute("SELECT name FROM upload_files ORDER BY position").fetchall()
    assert uploaded == [("a.zip",), ("c.txt",)]
    assert rows(connection, "upload_chunks") == 1
    assert store.text_of(connection, files[0].id) is None
    assert len(search(connection, "alice", "heron")) == 1
    with pytest.raises(FileGone):
        index("alice", stored.source_id, stored.run_id)


def test_uploaded_files_are_kept_for_as_long_as_is_set(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = upload({"a.txt": b"heron"})
    connection.execute("UPDATE upload_files SET created_at = now() - interval '50 seconds'")
    for seconds, left in ((60, 1), (40, 0)):
        monkeypatch.setenv("UPLOAD_RETENTION_SECONDS", str(seconds))
        get_settings.cache_clear()
        cleanup.clean_up(stored.run_id)
        assert rows(connection, "upload_chunks") == left
    with pytest.raises(FileGone):
        unpack(stored.run_id)


def test_the_sweep_takes_what_ended_runs_left_and_nothing_else(
    connection: Connection, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    get_settings.cache_clear()
    ended, running, unknown, forgotten = (upload({"a.txt": b"text"}) for _ in range(4))
    for stored in (ended, running, unknown, forgotten):
        parse(unpack(stored.run_id)[0].id)
    for stored in (ended, running):
        ref = runs.RunRef("alice", stored.source_id, stored.run_id, stored.task_id, stored.name)
        runs.accept(ref)
        if stored is ended:
            runs.submit(ref, Revoked(task=stored.task_id, expired=False))
    age = 2 * timedelta(seconds=get_settings().ingest_queue_timeout_seconds) + timedelta(hours=1)
    for table in ("upload_files", "documents"):
        connection.execute(
            f"UPDATE {table} SET created_at = now() - %s WHERE run_id = ANY(%s)",
            (age, [forgotten.run_id, running.run_id]),
        )
    assert cleanup.sweep() == 2
    left = connection.execute("SELECT run_id FROM documents WHERE text IS NOT NULL").fetchall()
    assert {row[0] for row in left} == {running.run_id, unknown.run_id}
    assert rows(connection, "upload_files") == 4
    assert cleanup.sweep() == 0
    for table in ("upload_files", "documents"):
        connection.execute(f"UPDATE {table} SET created_at = now() - interval '8 days'")
    assert cleanup.sweep() == 3  # the unknown one's too: no queue holds it any more
    kept = connection.execute("SELECT run_id FROM upload_files").fetchall()
    assert kept == [(running.run_id,)]


def test_failed_files_fit_into_an_event() -> None:
    failed = [{"name": "数" * 300, "code": "empty", "message": "This file is empty."}] * 1000
    told = failures(failed)
    assert len(str(told["failed_files"]).encode()) < 16_384
    assert len(told["failed_files"]) + told["more_failed_files"] == 1000
    assert "more_failed_files" not in failures(failed[:1])

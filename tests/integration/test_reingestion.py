"""Another run of an uploaded source in a real database: the same files, one set of documents."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from shared import reingestion, upload_files
from shared.connections import postgres
from shared.reingestion import NoSuchSource
from shared.search import search
from shared.settings import get_settings
from shared.upload_files import Connection
from shared.uploads import Stored, UnusableName, UploadGone
from tests import samples
from tests.ingested import renew, upload
from worker.documents import cleanup, indexing, store
from worker.documents.errors import FileGone, NoFileSurvived
from worker.documents.indexing import index
from worker.documents.parsing import parse
from worker.documents.unpacking import unpack

USER = "alice"
MIXED = {
    "a.txt": b"heron",
    "birds.zip": samples.zip_of({"b.txt": b"egret", "c.bin": b"\x00\x01"}),
    "torn.tgz": samples.tar_gz_of({"d.txt": b"godwit", "e.txt": b"x" * 3000})[:-30],
    "locked.zip": samples.encrypted_zip("f.txt", b"f"),
}


@pytest.fixture
def connection(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    get_settings.cache_clear()
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


pytestmark = pytest.mark.usefixtures("connection")


def read_all(stored: Stored) -> None:
    for file in unpack(stored.run_id):
        parse(file.id)


def run(stored: Stored) -> dict[str, Any]:
    """Does what the tasks of a run would, and the sweep after it."""
    read_all(stored)
    result = index(USER, stored.source_id, stored.run_id)
    cleanup.clean_up(stored.run_id)
    return result


def found(connection: Connection, query: str) -> list[str]:
    return sorted(hit.document_name for hit in search(connection, USER, query))


def count(connection: Connection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


def test_the_same_files_give_the_same_result_archives_and_bad_ones_included(
    connection: Connection,
) -> None:
    stored = upload(MIXED)
    first = run(stored)
    held = [count(connection, table) for table in ("documents", "chunks", "upload_files")]
    assert len(first["failed_files"]) == 3
    for _ in range(2):
        stored = renew(stored)
        assert run(stored) == first
    for query, name in (("heron", "a.txt"), ("egret", "birds.zip/b.txt")):
        assert found(connection, query) == [name]
    assert [count(connection, t) for t in ("documents", "chunks", "upload_files")] == held


def test_a_search_never_finds_both_or_none_while_a_source_is_ingested_again(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "BATCH_CHUNKS", 1)
    stored = upload({"a.txt": b"A heron waits. " * 500})
    run(stored)
    hits = len(found(connection, "heron"))
    seen: list[int] = []
    add_chunks, show_run = store.add_chunks, store.show_run

    def add_and_look(own: Connection, *args: Any) -> None:
        add_chunks(own, *args)
        own.commit()
        seen.append(len(found(connection, "heron")))

    def show_and_look(own: Connection, *args: Any) -> bool:
        shown = show_run(own, *args)
        seen.append(len(found(connection, "heron")))
        own.commit()
        seen.append(len(found(connection, "heron")))
        return shown

    monkeypatch.setattr(store, "add_chunks", add_and_look)
    monkeypatch.setattr(store, "show_run", show_and_look)
    run(renew(stored))
    assert len(seen) == hits + 2
    assert set(seen) == {hits}


def test_an_index_that_runs_twice_hides_nothing_that_it_has_shown(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = upload({"a.txt": b"heron", "b.txt": b"A heron waits. " * 500})
    read_all(stored)
    first = index(USER, stored.source_id, stored.run_id)
    seen: list[list[str]] = []
    add_chunks = store.add_chunks

    def look_and_add(own: Connection, *args: Any) -> None:
        seen.append(found(connection, "heron"))
        add_chunks(own, *args)

    monkeypatch.setattr(store, "add_chunks", look_and_add)
    assert index(USER, stored.source_id, stored.run_id) == first
    assert seen == [found(connection, "heron")] * 2


def test_chunks_are_counted_when_they_are_committed(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "BATCH_CHUNKS", 2)
    stored = upload({"a.txt": b"A heron waits. " * 500, "b.txt": b"An egret waits. " * 500})
    read_all(stored)
    committed: list[tuple[int, int]] = []

    def track(items: Iterator[Any], **told: Any) -> Iterator[Any]:
        for done, item in enumerate(items, 1):
            if told["unit"] == "chunks":
                committed.append((done, count(connection, "chunks")))
            yield item

    monkeypatch.setattr(indexing, "track", track)
    total = index(USER, stored.source_id, stored.run_id)["chunks"]
    assert [done for done, _ in committed] == list(range(1, total + 1))
    assert all(done <= stored_by_then for done, stored_by_then in committed)


def test_a_run_that_is_stopped_while_it_indexes_changes_nothing_and_its_next_try_goes_on(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "BATCH_CHUNKS", 1)
    stored = upload({"a.txt": b"A heron waits. " * 500})
    first = run(stored)
    hits = len(found(connection, "heron"))
    again = renew(stored)
    read_all(again)

    def stop_at_third(items: Iterator[Any], **told: Any) -> Iterator[Any]:
        for done, item in enumerate(items, 1):
            if done == 3 and told["unit"] == "chunks":
                raise RuntimeError("stopped here")
            yield item

    with monkeypatch.context() as patched:
        patched.setattr(indexing, "track", stop_at_third)
        with pytest.raises(RuntimeError):
            index(USER, again.source_id, again.run_id)
    assert count(connection, "chunks") == hits + 3
    assert len(found(connection, "heron")) == hits
    assert index(USER, again.source_id, again.run_id) == first
    assert count(connection, "chunks") == len(found(connection, "heron")) == hits


def test_what_a_run_left_that_ended_while_it_indexed_is_removed(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = upload({"a.txt": b"A heron waits. " * 500})
    run(stored)
    hits = len(found(connection, "heron"))
    again = renew(stored)
    read_all(again)
    monkeypatch.setattr(store, "show_run", lambda *_: False)
    with pytest.raises(FileGone):
        index(USER, again.source_id, again.run_id)
    assert count(connection, "chunks") == 2 * hits
    cleanup.clean_up(again.run_id)
    assert count(connection, "chunks") == len(found(connection, "heron")) == hits


def test_a_run_that_fails_leaves_what_was_found_before(connection: Connection) -> None:
    stored = upload({"a.txt": b"heron", "b.txt": b"egret"})
    run(stored)
    again = stored
    for _ in range(3):
        again = renew(again)
        for file in unpack(again.run_id):
            store.keep_error(connection, file.id, FileGone())
        with pytest.raises(NoFileSurvived):
            index(USER, again.source_id, again.run_id)
        cleanup.clean_up(again.run_id)
        assert found(connection, "heron or egret") == ["a.txt", "b.txt"]
        assert count(connection, "documents") == 4  # what is found, and what failed last
    run(renew(again))
    assert found(connection, "heron or egret") == ["a.txt", "b.txt"]
    assert count(connection, "documents") == 2


def test_an_earlier_run_that_still_executes_can_read_write_and_show_nothing(
    connection: Connection,
) -> None:
    earlier = upload({"a.txt": b"A heron waits. " * 500, "b.txt": b"egret"})
    first, second = unpack(earlier.run_id)
    parse(first.id)
    document = store.find(connection, first.id)
    assert document is not None
    run(renew(earlier))
    hits = found(connection, "heron")
    for step in (
        lambda: parse(second.id),
        lambda: unpack(earlier.run_id),
        lambda: index(USER, earlier.source_id, earlier.run_id),
        lambda: store.add_chunks(connection, USER, earlier.source_id, first.id, [(0, "heron")]),
    ):
        with pytest.raises(FileGone):
            step()
    assert found(connection, "heron") == hits


def test_the_same_key_is_the_same_run_and_an_upload_s_key_still_its_own(
    connection: Connection,
) -> None:
    stored = upload({"a.txt": b"heron"}, key="k")
    first = renew(stored, key="k")
    again = renew(stored, key="k")
    other = renew(stored, key="other")
    assert (first.created, again.created, other.created) == (True, False, True)
    assert (again.run_id, again.task_id) == (first.run_id, first.task_id)
    assert len({stored.run_id, first.run_id, other.run_id}) == 3
    uploaded = upload({"a.txt": b"heron"}, key="k")
    assert (uploaded.run_id, uploaded.task_id) == (stored.run_id, stored.task_id)
    assert not uploaded.created


def test_a_key_whose_run_nobody_heard_of_is_free(connection: Connection) -> None:
    stored = upload({"a.txt": b"heron"})
    first = renew(stored, key="k")
    reingestion.forget(connection, first)
    assert renew(stored, key="k").created


def test_of_two_at_once_with_one_key_one_makes_the_run(connection: Connection) -> None:
    stored = upload({"a.txt": b"heron"})
    made: list[Stored] = []
    thread = threading.Thread(target=lambda: made.append(renew(stored, key="k")))
    with postgres() as own, own.transaction():
        made.append(
            reingestion.renew(
                own,
                user_id=USER,
                source_id=stored.source_id,
                run_id="run",
                task_id="task",
                idempotency_key="k",
            )
        )
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()  # it waits for the first to be decided
    thread.join(10)
    assert [each.created for each in made] == [True, False]
    assert {each.run_id for each in made} == {"run"}


def test_what_is_not_there_or_not_theirs_is_no_source(connection: Connection) -> None:
    stored = upload({"a.txt": b"heron"})
    for source in ("feed-17", str(uuid4()), stored.source_id.upper(), "\x00"):
        with pytest.raises(NoSuchSource):
            renew(Stored(source, "", "", "", created=False))
    with pytest.raises(NoSuchSource):
        renew(stored, user="bob")
    with pytest.raises(UnusableName):
        renew(stored, key="\x00")
    assert len(upload_files.files(connection, stored.run_id)) == 1


def test_files_that_are_not_all_there_any_more_are_gone_and_nothing_is_changed(
    connection: Connection,
) -> None:
    whole = upload({"a.txt": b"heron", "b.txt": b"egret"})
    older = upload({"a.txt": b"heron"})
    run(whole)
    connection.execute(
        "DELETE FROM upload_files WHERE run_id = %s AND position = 1", (whole.run_id,)
    )
    connection.execute("UPDATE sources SET files = NULL WHERE id = %s", (older.source_id,))
    for stored in (whole, older):
        with pytest.raises(UploadGone):
            renew(stored, key="k")
        assert len(upload_files.files(connection, stored.run_id)) == 1
    assert count(connection, "reingestions") == 0
    assert found(connection, "heron") == ["a.txt"]

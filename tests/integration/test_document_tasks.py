"""The pipeline in a real worker: what a user's stream says of an upload, from queued to its end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql

from shared import keys, runs
from shared.runs import RunRef
from shared.search import search
from shared.settings import get_settings
from shared.uploads import Stored
from tests import samples
from tests.commands import wait_until
from tests.conftest import RunningPostgres
from tests.ingested import renew, upload
from tests.servers import celery_worker
from web import dispatch
from worker.documents.cleanup import sweep

DEADLINE_SECONDS = 40.0


class Pipeline:
    """A worker, its database, and what the user's stream holds."""

    def __init__(self, redis_url: str, database_url: str) -> None:
        self.client = redis.Redis.from_url(redis_url)
        self.database_url = database_url

    def run(self, files: Mapping[str, bytes]) -> list[dict[str, Any]]:
        """Uploads and starts as web does; returns the events when the run has ended."""
        self.start(upload(files))
        return self.wait_for("completed", "failed", "cancelled")

    def ref(self, stored: Stored) -> RunRef:
        return RunRef("alice", stored.source_id, stored.run_id, stored.task_id, stored.name)

    def start(self, stored: Stored) -> None:
        """Starts an upload's run."""
        ref = self.ref(stored)
        arguments = {"user_id": "alice", "source_id": stored.source_id, "run_id": stored.run_id}
        dispatch.start_run(ref, "worker.documents.ingest_source", arguments)

    def rest(self) -> None:
        """Returns when the workers have nothing more to do."""
        wait_until(
            lambda: not (self.client.llen("celery") or self.client.hlen("unacked")), "at rest"
        )

    def wait_for(self, *kinds: str, run_id: str = "") -> list[dict[str, Any]]:
        """Returns the events when the last one is of such a kind, and of the run that is named."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            rows: Any = self.client.xrange(keys.stream("alice"))
            events = [json.loads(fields[b"e"]) for _, fields in rows]
            last = events[-1] if events else None
            if last and kind(last) in kinds and run_id in ("", last["payload"]["run_id"]):
                return events
            assert time.monotonic() < deadline, events
            time.sleep(0.02)

    def count(self, table: str) -> int:
        with psycopg.connect(self.database_url) as connection:
            row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
def pipeline(
    redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pipeline]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("DATABASE_URL", database_url)
    get_settings.cache_clear()
    dispatch._celery.cache_clear()
    with celery_worker(redis_url, database_url, "--pool", "prefork", "--concurrency", "2"):
        lab = Pipeline(redis_url, database_url)
        yield lab
        lab.client.close()
        dispatch._celery().close()
        dispatch._celery.cache_clear()


def kind(event: dict[str, Any]) -> str:
    return str(event["type"]).removeprefix("source.ingest.")


def stages(events: list[dict[str, Any]]) -> list[str]:
    """The stages in the order in which they were told of, each once."""
    return list(dict.fromkeys(e["payload"]["stage"] for e in events if kind(e) == "progress"))


def in_order(told: list[str], all_stages: list[str]) -> bool:
    """Whether stages were told of in their order; a short one may fall to the throttle."""
    return bool(told) and told == [stage for stage in all_stages if stage in told]


def test_twenty_mixed_files_are_ingested_and_the_broken_ones_named(pipeline: Pipeline) -> None:
    files = {f"note-{n}.md": b"# Note %d\n\n%s" % (n, b"A heron waits. " * 200) for n in range(14)}
    files |= {
        "guide.pdf": samples.pdf(*[f"Page {n} on dunlins." for n in range(30)]),
        "page.html": samples.HTML,
        "数据库.txt": "数据库里的鸟".encode(),
        "<script>alert(1)</script>.md": b"# Harmless",
        "broken.pdf": samples.BROKEN_PDF,
        "more.zip": samples.zip_of({"a.txt": b"egrets", "b.bin": b"\x00\x01"}),
    }
    events = pipeline.run(files)
    kinds = [kind(event) for event in events]
    assert kinds[:2] == ["queued", "started"]
    assert kinds[-1] == "completed"
    assert kinds.count("started") == kinds.count("completed") == 1
    assert in_order(stages(events), ["unpack", "parse", "chunk", "index"])
    percents = [event["payload"]["percent"] for event in events]
    assert percents == sorted(percents)
    end = events[-1]["payload"]
    assert (end["files"], end["percent"]) == (19, 100)
    assert end["chunks"] == pipeline.count("chunks") > 50
    assert [(f["name"], f["code"]) for f in end["failed_files"]] == [
        ("broken.pdf", "unreadable_pdf"),
        ("more.zip/b.bin", "unsupported_type"),
    ]
    with psycopg.connect(pipeline.database_url) as connection:
        (hit,) = search(connection, "alice", "数据库")
    assert hit.source_id == events[0]["scope"]["id"]
    assert sweep() == 1
    assert pipeline.count("upload_files") == 20  # as uploaded; what came out of the archive is gone


def test_a_lone_broken_file_fails_with_a_sentence(pipeline: Pipeline) -> None:
    end = pipeline.run({"broken.pdf": samples.BROKEN_PDF})[-1]
    assert kind(end) == "failed"
    sentence = "This PDF is damaged and can't be opened."
    error = {"code": "unreadable_pdf", "message": sentence, "retryable": False}
    assert end["payload"]["error"] == error
    assert end["payload"]["failed_files"] == [
        {"name": "broken.pdf", "code": "unreadable_pdf", "message": sentence}
    ]
    assert pipeline.count("documents") == 1
    assert sweep() == 0  # it left nothing but the file, which is kept


def test_a_source_is_ingested_again_with_the_same_result(pipeline: Pipeline) -> None:
    stored = upload({"a.md": b"# Heron", "b.zip": samples.zip_of({"c.txt": b"egret", "d": b"\0"})})
    pipeline.start(stored)
    first = pipeline.wait_for("completed", "failed")
    again = renew(stored)
    pipeline.start(again)
    second = pipeline.wait_for("completed", "failed", run_id=again.run_id)[len(first) :]
    assert kind(second[0]) == "queued"
    assert {event["payload"]["run_id"] for event in second} == {again.run_id}
    for name in ("files", "chunks", "characters", "failed_files"):
        assert second[-1]["payload"][name] == first[-1]["payload"][name]
    with psycopg.connect(pipeline.database_url) as connection:
        for word in ("heron", "egret"):
            assert len(search(connection, "alice", word)) == 1


def test_a_run_that_is_cancelled_leaves_what_was_found_and_may_be_followed_by_another(
    pipeline: Pipeline,
) -> None:
    stored = upload({f"{n}.txt": b"A heron waits. " * 5000 for n in range(20)})
    pipeline.start(stored)
    pipeline.wait_for("completed", "failed")
    hits = pipeline.count("chunks")
    again = renew(stored)
    pipeline.start(again)
    pipeline.wait_for("progress", run_id=again.run_id)
    runs.end(pipeline.ref(again))
    pipeline.wait_for("cancelled", run_id=again.run_id)
    pipeline.rest()
    assert kind(pipeline.wait_for("cancelled")[-1]) == "cancelled"
    sweep()
    assert pipeline.count("chunks") == hits
    last = renew(again)
    pipeline.start(last)
    assert kind(pipeline.wait_for("completed", "failed", run_id=last.run_id)[-1]) == "completed"
    assert pipeline.count("chunks") == hits


def test_a_database_that_goes_away_is_waited_for(
    pipeline: Pipeline, postgres_server: RunningPostgres
) -> None:
    stored = upload({"a.txt": b"A heron waits."})
    database = sql.Identifier(pipeline.database_url.rpartition("/")[2])
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format
    with psycopg.connect(postgres_server.url, autocommit=True) as administrator:
        administrator.execute(allow(database, sql.SQL("false")))
        pipeline.start(stored)
        events = pipeline.wait_for("retrying")
        administrator.execute(allow(database, sql.SQL("true")))
    retrying = next(event["payload"] for event in events if kind(event) == "retrying")
    assert retrying["eta"] is not None
    assert retrying["error"]["code"] == "unavailable"
    end = pipeline.wait_for("completed", "failed")[-1]
    assert (kind(end), end["payload"]["files"]) == ("completed", 1)

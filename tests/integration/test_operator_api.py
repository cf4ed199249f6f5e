"""`/api/operator`: open runs, the end of one, event rates and the journal, as described."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import redis
from flask.testing import FlaskClient

from shared import keys, runs
from shared.answers import answer
from shared.encoding import to_json
from shared.event_counts import event_counts, read_event_counts
from shared.facts import (
    Accepted,
    ErrorInfo,
    Interrupted,
    Progress,
    Report,
    Retrying,
    Started,
    Succeeded,
)
from shared.message_days import session
from shared.message_pruning import prune
from shared.open_runs import list_open_runs
from shared.publisher import NewEvent, publish_user_event, publish_user_events
from shared.runs import RunRef
from tests.commands import wait_until
from tests.described import check_answer

ERROR = ErrorInfo("away", "The store was away.", True)


@pytest.fixture
def client(api: FlaskClient, redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


def ask(api: FlaskClient, path: str, method: str = "get", **more: Any) -> Any:
    found = api.open(path, method=method.upper(), base_url="http://localhost", **more)
    described = path.partition("?")[0]
    if described.startswith("/api/operator/runs/"):
        described = "/api/operator/runs/{run_id}"
    check_answer(method, described, found.status_code, found.mimetype or "", found.json)
    return found


def read(api: FlaskClient, path: str) -> dict[str, Any]:
    found = ask(api, path)
    assert found.status_code == 200, found.text
    return dict(found.json)


def accepted(user: str, source: str) -> RunRef:
    ref = runs.new_run(user, source, f"{source}.pdf", final=f"task-{source}")
    runs.accept(ref, Accepted(task=ref.final))
    return ref


def started(ref: RunRef, worker: str = "celery@one") -> RunRef:
    fact = Started(
        task=ref.final,
        nonce="n",
        retries=0,
        nesting=0,
        late=True,
        grace_ms=60_000,
        worker=worker,
        stages={"parse": 1},
    )
    runs.submit(ref, fact)
    return ref


def in_every_state() -> dict[str, RunRef]:
    refs = {"queued": accepted("alice", "queued")}
    refs["running"] = started(accepted("alice", "running"))
    reports = (Report("parse", 3, 10, "pages"),)
    runs.submit(refs["running"], Progress(task="task-running", nonce="n", reports=reports))
    refs["retrying"] = started(accepted("bob", "retrying"), "celery@two")
    retry = Retrying(
        task="task-retrying",
        nonce="n",
        retries=0,
        nesting=0,
        attempts=4,
        eta=None,
        eta_ms=None,
        error=ERROR,
    )
    runs.submit(refs["retrying"], retry)
    refs["stalled"] = started(accepted("bob", "stalled"), "celery@two")
    stall = Interrupted(
        task="task-stalled", nonce="n", error=ERROR, comes_again=True, grace_ms=60_000
    )
    runs.submit(refs["stalled"], stall)
    done = started(accepted("carol", "done"))
    runs.submit(done, Succeeded(task="task-done", nonce="n"))
    return refs


def listed(api: FlaskClient, query: str = "") -> dict[str, dict[str, Any]]:
    return {run["status"]: run for run in read(api, f"/api/operator/runs{query}")["runs"]}


def test_open_runs_are_listed_with_who_works_on_them(api: FlaskClient, client: redis.Redis) -> None:
    refs = in_every_state()
    wait_until(lambda: len(listed(api)) == 4, "all read anew")
    found = read(api, "/api/operator/runs")
    assert found["counts"] == {"queued": 1, "running": 1, "retrying": 1, "stalled": 1}
    assert (found["matching"], found["offset"], found["more"]) == (4, 0, False)
    by_state = listed(api)
    assert {state: run["run_id"] for state, run in by_state.items()} == {
        state: ref.run_id for state, ref in refs.items()
    }
    running = by_state["running"]
    assert (running["worker"], running["at_work"], running["attempt"]) == ("celery@one", 1, 1)
    assert (running["stage"], running["done"], running["total"]) == ("parse", 3, 10)
    assert (running["user_id"], running["percent"]) == ("alice", 30)
    assert running["accepted_at"] <= running["heard_at"]
    queued = by_state["queued"]
    assert (queued["worker"], queued["at_work"], queued["attempt"]) == (None, 0, 0)
    retrying = by_state["retrying"]
    assert (retrying["worker"], retrying["at_work"], retrying["attempts"]) == ("celery@two", 0, 4)
    assert retrying["error"]["code"] == "away"
    assert by_state["stalled"]["reason"] == "interrupted"


def test_open_runs_come_in_pages_by_state_and_order(api: FlaskClient, client: redis.Redis) -> None:
    refs = [accepted("alice", f"source-{number}") for number in range(5)]
    wait_until(lambda: read(api, "/api/operator/runs")["matching"] == 5, "all read anew")

    def page(query: str) -> list[str]:
        return [run["run_id"] for run in read(api, f"/api/operator/runs?{query}")["runs"]]

    newest = page("order=newest")
    assert sorted(newest) == sorted(ref.run_id for ref in refs)
    assert newest != page("")
    assert page("order=newest&limit=2") + page("order=newest&offset=2") == newest
    assert page("state=running") == []
    assert len(page("state=queued&limit=100000")) == 5
    for bad in ("limit=x", "offset=-1", "limit=1e3", "offset=٣"):
        assert ask(api, f"/api/operator/runs?{bad}").json["error"] == "bad_number"


def test_runs_that_are_over_hide_no_open_ones(api: FlaskClient, client: redis.Redis) -> None:
    over = accepted("alice", "over")
    runs.end(over)
    shard = keys.open_runs(over.run_id)
    dead = [to_json(replace(over, final=f"task-{n}").to_header()) for n in range(500)]
    client.zadd(shard, {member: n for n, member in enumerate(dead)})
    ref = accepted("alice", "waiting")
    about_to_begin = to_json(replace(ref, run_id="0123").to_header())
    client.zadd(keys.open_runs("0123"), {about_to_begin: 1})
    found = list_open_runs()
    assert ([run.run_id for run in found.runs], found.more) == ([ref.run_id], False)
    assert client.zmscore(shard, dead) == [None] * 500
    assert client.zscore(keys.open_runs("0123"), about_to_begin) == 1


def test_the_rest_of_many_open_runs_is_said_to_be_there(
    api: FlaskClient, client: redis.Redis
) -> None:
    gone = to_json(RunRef("alice", "a", "0123", "a", "a").to_header()).replace("alice", "{}")
    shard = keys.open_runs("0123")
    client.zadd(shard, {gone.replace("{}", f"user-{n}"): n for n in range(1100)})
    found = list_open_runs()
    assert (found.runs, found.more) == ([], True)


def test_a_run_says_when_it_was_last_heard_of(api: FlaskClient, client: redis.Redis) -> None:
    ref = started(accepted("alice", "one"))
    key = keys.run(ref.user_id, ref.run_id)
    hour_ms = 3_600_000
    early = int(str(client.hget(key, "updated_ms"), "ascii")) - hour_ms  # type: ignore[arg-type]
    client.hset(key, "updated_ms", early)
    wait_until(lambda: "running" in listed(api), "read anew")
    heard = datetime.fromisoformat(listed(api)["running"]["heard_at"])
    assert (datetime.now(UTC) - heard).total_seconds() < 60, "by its lease, not by its last event"


def test_an_operator_cancels_anybodys_run(api: FlaskClient, client: redis.Redis) -> None:
    ref = started(accepted("bob", "theirs"))
    wait_until(lambda: "running" in listed(api), "seen")
    path = f"/api/operator/runs/{ref.run_id}"
    assert ask(api, path, "delete").json == {"success": True, "status": "cancelled"}
    assert listed(api) == {}, "seen at once"
    assert ask(api, path, "delete").json["status"] == "cancelled", "again is no error"
    ended = started(accepted("bob", "ended"))
    runs.submit(ended, Succeeded(task=ended.final, nonce="n"))
    assert ask(api, f"/api/operator/runs/{ended.run_id}", "delete").json["status"] == "completed"
    for unknown in ("0123", "%7B%7D", "x" * 500):
        assert ask(api, f"/api/operator/runs/{unknown}", "delete").status_code == 404


def rates(api: FlaskClient) -> dict[str, int]:
    """How many events of each type the last minute had, once all are handed on."""
    event_counts().flush()
    return {
        each["type"]: each["last_minute"] for each in read(api, "/api/operator/events")["types"]
    }


def test_events_are_counted_by_type_whoever_appends_them(
    api: FlaskClient, client: redis.Redis, database_url: str
) -> None:
    in_every_state()
    publish_user_event("alice", "report.ready", {})
    publish_user_events("bob", [NewEvent("report.ready", {"n": n}) for n in range(4)])
    with answer("00000000-0000-4000-8000-000000000001", "alice") as told:
        told.emit("answer", {"answer": "Yes."})
    wanted = {
        "report.ready": 5,
        "source.ingest.queued": 5,
        "source.ingest.started": 4,
        "source.ingest.progress": 1,
        "source.ingest.retrying": 1,
        "source.ingest.stalled": 1,
        "source.ingest.completed": 1,
        "message.answer": 1,
        "message.end": 1,
    }
    wait_until(lambda: rates(api) == wanted, f"counted: {rates(api)}")
    found = read(api, "/api/operator/events")
    assert found["per_second"] == pytest.approx(sum(wanted.values()) / 60, abs=0.001)
    assert found["types"][0]["type"] in ("report.ready", "source.ingest.queued")
    assert len(found["types"][0]["counts"]) == 7
    stream_entries = sum(int(client.xlen(keys.stream(u))) for u in ("alice", "bob", "carol"))
    assert stream_entries == sum(wanted.values()) - 2, "as many as are in the streams"


def test_counts_are_handed_on_by_themselves_and_forgotten_in_time(
    api: FlaskClient, client: redis.Redis
) -> None:
    publish_user_event("alice", "report.ready", {})
    wait_until(lambda: client.keys("event-counts:*"), "handed on")
    (name,) = client.keys("event-counts:*")
    assert client.hgetall(name) == {b"report.ready": b"1"}
    assert 0 < int(client.ttl(name)) <= 180


def test_what_is_not_appended_is_not_counted(
    api: FlaskClient, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENABLE_SSE_PUSH", "false")
    started(accepted("alice", "silent"))
    publish_user_event("alice", "report.ready", {})
    event_counts().flush()
    assert client.keys("event-counts:*") == []


def test_an_event_is_published_where_no_thread_can_be_had_to_count_it(
    api: FlaskClient, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Timer, "start", fail)
        for _ in range(2):
            assert publish_user_event("alice", "report.ready", {})
    publish_user_event("alice", "report.ready", {})
    wait_until(lambda: client.keys("event-counts:*"), "handed on later")
    (name,) = client.keys("event-counts:*")
    assert client.hgetall(name) == {b"report.ready": b"3"}


def test_types_without_end_are_counted_together(api: FlaskClient, client: redis.Redis) -> None:
    event_counts().add(f"odd.type-{number}" for number in range(1000))
    event_counts().flush()
    (name,) = client.keys("event-counts:*")
    assert client.hlen(name) == 201
    assert client.hget(name, "others") == b"800"


def test_of_the_oldest_stretch_counts_what_is_of_the_last_minute(
    api: FlaskClient, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bucket, number in ((193, 1000), (194, 100), (195, 7), (200, 1)):
        client.hset(keys.event_counts(bucket), "a.b", number)
    monkeypatch.setattr(time, "time", lambda: 2003.0)
    wait_until(lambda: read(api, "/api/operator/events")["types"], "read anew")
    (only,) = read(api, "/api/operator/events")["types"]
    assert only["counts"] == [100, 7, 0, 0, 0, 0, 1]
    assert (only["last_minute"], only["per_second"]) == (78, 1.3)


def test_of_more_types_than_are_told_the_least_frequent_are_counted_together(
    client: redis.Redis, api: FlaskClient
) -> None:
    for number in range(300):
        client.hset(keys.event_counts(200), f"t.{number}", 300 - number)
    client.hset(keys.event_counts(199), "others", 5)
    _, found = read_event_counts(2003.0)
    assert len(found) == 201
    assert "t.199" in found
    assert "t.200" not in found
    assert found["others"] == [0, 0, 0, 0, 0, 5, sum(range(1, 101))]


def test_the_journal_says_its_size_and_what_was_last_pruned(
    api: FlaskClient, database_url: str
) -> None:
    found = read(api, "/api/operator/journal")
    assert found["last_pruning"] is None
    assert (found["days_kept"], found["pruned_every_seconds"]) == (14, 3600)
    assert found["journal"]["days"] >= 3
    assert found["journal"]["bytes"] > 0
    with answer("00000000-0000-4000-8000-000000000002", "alice") as told:
        for number in range(50):
            told.emit("answer", {"answer": f"{number} "})
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ANALYZE")
        connection.execute("SELECT make_message_day('2020-01-01')")
    with session(database_url) as connection:
        prune(connection, datetime(2020, 2, 1, tzinfo=UTC).date())
    wait_until(lambda: read(api, "/api/operator/journal")["last_pruning"], "read anew")
    found = read(api, "/api/operator/journal")
    assert 51 <= found["journal"]["events"] <= 102, "an estimate"
    assert 1 <= found["journal"]["messages"] <= 2
    last = found["last_pruning"]
    assert (last["before"], last["removed"], last["kept"]) == ("2020-02-01", 1, 0)
    assert last["at"].endswith("Z")


@pytest.mark.parametrize("path", ["streams", "runs", "events", "journal"])
def test_who_asks_from_another_machine_is_no_operator(api: FlaskClient, path: str) -> None:
    for address in ("192.0.2.7", "::ffff:192.0.2.7", "10.0.0.1", "", "2001:db8::1"):
        found = ask(api, f"/api/operator/{path}", environ_base={"REMOTE_ADDR": address})
        assert (found.status_code, found.json["error"]) == (403, "not_operator"), address
    for near in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        found = ask(api, f"/api/operator/{path}", environ_base={"REMOTE_ADDR": near})
        assert found.status_code == 200, near


def test_many_who_look_at_once_cost_one_reading(
    api: FlaskClient, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted("alice", "one")
    read(api, "/api/operator/runs")
    until = time.monotonic() + 0.5
    before: Any = client.info("commandstats")["cmdstat_zrange"]["calls"]
    asked = 0
    while time.monotonic() < until and asked < 10:
        read(api, "/api/operator/runs")
        asked += 1
    after: Any = client.info("commandstats")["cmdstat_zrange"]["calls"]
    assert asked > 2
    assert after - before <= 32, "two readings of sixteen sets at most"

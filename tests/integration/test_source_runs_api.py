"""`DELETE /api/sources/<id>` and `POST /api/sources/<id>/reingest`, without a worker."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import redis
from flask.testing import FlaskClient

from shared import keys, runs
from shared.errors import RedisUnavailable
from shared.facts import Accepted, ErrorInfo, Failed, Retrying, Started, Succeeded
from shared.outbox import outbox
from shared.runs import MANY, RunRef
from tests.conftest import RunningRedis
from tests.described import check_answer, check_event
from web import dispatch
from web.api import sources

USER = "local"
ERROR = ErrorInfo("away", "The store was away.", True)


@pytest.fixture
def client(api: FlaskClient, redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


def upload(api: FlaskClient, key: str = "") -> dict[str, Any]:
    data = {"file": [(io.BytesIO(b"hello"), "a.txt")]}
    headers = {"Idempotency-Key": key} if key else {}
    answer = api.post("/api/sources", data=data, headers=headers)
    assert answer.status_code == 202
    told: dict[str, Any] = answer.json or {}
    return told


def check(answer: Any, path: str) -> Any:
    """The answer, which is as `/openapi.json` has it."""
    method = answer.request.method.lower()
    check_answer(method, path, answer.status_code, answer.mimetype, answer.json)
    return answer


def cancel(api: FlaskClient, source: str, **headers: str) -> Any:
    return check(api.delete(f"/api/sources/{source}", headers=headers), "/api/sources/{source_id}")


def reingest(api: FlaskClient, source: str, key: str = "", **headers: str) -> Any:
    sent = headers | ({"Idempotency-Key": key} if key else {})
    answer = api.post(f"/api/sources/{source}/reingest", headers=sent)
    return check(answer, "/api/sources/{source_id}/reingest")


def ref_of(taken: dict[str, Any]) -> RunRef:
    return RunRef(USER, taken["source_id"], taken["run_id"], taken["task_id"], "a.txt")


def start(ref: RunRef) -> None:
    """Begins an execution of the run."""
    fact = Started(task=ref.final, nonce="n", retries=0, nesting=0, late=True, grace_ms=60_000)
    runs.submit(ref, fact)


def end(taken: dict[str, Any]) -> None:
    """Has the run complete."""
    start(ref_of(taken))
    runs.submit(ref_of(taken), Succeeded(task=taken["task_id"], nonce="n", result={"files": 1}))


def events(client: redis.Redis) -> list[dict[str, Any]]:
    """All events so far; each fits its schema."""
    rows: Any = client.xrange(keys.stream(USER))
    found = [json.loads(b'{"id":"1-0",' + fields[b"e"][1:]) for _, fields in rows]
    for event in found:
        check_event(event)
    return found


def lose_broker() -> None:
    """From here on web can't reach the broker."""
    dispatch._celery().close()
    dispatch._celery.cache_clear()
    dispatch._celery().conf.update(broker_url="redis://127.0.0.1:1/0")


def types(client: redis.Redis) -> list[str]:
    return [event["type"].removeprefix("source.ingest.") for event in events(client)]


def messages(client: redis.Redis) -> list[str]:
    """The ids of the tasks that wait for a worker, the first sent first."""
    queued: Any = client.lrange("celery", 0, -1)
    return [json.loads(message)["headers"]["id"] for message in reversed(queued)]


def test_a_waiting_run_is_cancelled_once_and_the_answer_says_so(
    api: FlaskClient, client: redis.Redis
) -> None:
    taken = upload(api)
    first = cancel(api, taken["source_id"])
    assert first.status_code == 200
    source = first.json["source"]
    assert (source["status"], source["reason"]) == ("cancelled", "cancelled")
    assert cancel(api, taken["source_id"]).json == first.json
    assert types(client) == ["queued", "cancelled"]
    assert events(client)[-1]["payload"]["reason"] == "cancelled"
    start(ref_of(taken))
    assert types(client) == ["queued", "cancelled"]


@pytest.mark.parametrize("status", ["running", "retrying", "stalled"])
def test_a_run_is_cancelled_in_whatever_state_it_is(
    api: FlaskClient, client: redis.Redis, status: str
) -> None:
    taken = upload(api)
    ref = ref_of(taken)
    start(ref)
    if status == "retrying":
        more: Any = {"nesting": 0, "attempts": 3, "eta": None, "eta_ms": None, "error": ERROR}
        runs.submit(ref, Retrying(task=ref.final, retries=0, **more))
    elif status == "stalled":
        words = (client.hget(keys.run(USER, ref.run_id), f"task:{ref.final}") or b"").split()
        silent = b" ".join([*words[:-1], b"1"])
        client.hset(keys.run(USER, ref.run_id), f"task:{ref.final}", silent)
        runs.lapse(ref, "show")
    one: Any = api.get(f"/api/sources/{ref.source_id}").json
    assert one["source"]["status"] == status
    assert cancel(api, ref.source_id).json["source"]["status"] == "cancelled"
    assert types(client).count("cancelled") == 1


def test_a_run_that_has_ended_stays_as_it_is(api: FlaskClient, client: redis.Redis) -> None:
    taken = upload(api)
    end(taken)
    answer = cancel(api, taken["source_id"])
    assert (answer.status_code, answer.json["source"]["status"]) == (200, "completed")
    assert types(client) == ["queued", "started", "completed"]


def test_a_run_of_a_team_s_own_task_is_cancelled_too(api: FlaskClient, client: redis.Redis) -> None:
    runs.accept(runs.new_run(USER, "feed-17", "feed", final="T"))
    assert cancel(api, "feed-17").json["source"]["status"] == "cancelled"


def test_all_open_tasks_of_a_run_are_revoked_and_none_terminated(
    api: FlaskClient, client: redis.Redis
) -> None:
    ref = runs.new_run(USER, "feed-17", "feed", final=MANY)
    for task in ("one", "two", "three"):
        runs.accept(ref, Accepted(task=task, finals=["one", "two", "three"]))
    runs.submit(ref, Started(task="one", nonce="n", retries=0, nesting=0, late=True, grace_ms=1))
    runs.submit(ref, Succeeded(task="one", nonce="n"))
    untyped: Any = client
    with untyped.pubsub() as heard:
        heard.psubscribe("*celery.pidbox*")
        heard.get_message(timeout=5)
        cancel(api, "feed-17")
        message = heard.get_message(timeout=5)
    body = json.loads(base64.b64decode(json.loads(message["data"])["body"]))
    assert body["method"] == "revoke"
    assert set(body["arguments"]["task_id"]) == {"two", "three"}
    assert body["arguments"]["terminate"] is False


def test_a_broker_that_is_away_fails_no_cancelling(
    api: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    taken = upload(api)
    lose_broker()
    began = time.monotonic()
    assert cancel(api, taken["source_id"]).json["source"]["status"] == "cancelled"
    assert "not revoked" in caplog.text
    assert time.monotonic() - began < 10, "whoever asked is not kept waiting for the broker"


def test_of_a_run_that_began_meanwhile_and_the_one_before_both_are_ended(
    api: FlaskClient, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = runs.new_run(USER, "feed-17", "feed", final="T")
    runs.accept(first)

    def supersede_and_end(ref: RunRef) -> runs.Outcome:
        if ref.run_id == first.run_id:
            runs.accept(runs.new_run(USER, "feed-17", "feed", final="U"))
        return runs.end(ref)

    monkeypatch.setattr(sources, "end", supersede_and_end)
    assert cancel(api, "feed-17").json["source"]["status"] == "cancelled"
    reasons = [event["payload"].get("reason") for event in events(client)]
    assert reasons == [None, "superseded", None, "cancelled"]


def test_what_is_not_there_or_not_theirs_is_404(api: FlaskClient, client: redis.Redis) -> None:
    runs.accept(runs.new_run("bob", "feed-17", "feed", final="T"))
    for source in ("feed-17", str(uuid4())):
        for answer in (cancel(api, source), reingest(api, source)):
            assert (answer.status_code, answer.json["error"]) == (404, "not_found")
    assert types(client) == []


def test_a_write_from_another_site_is_refused(api: FlaskClient, client: redis.Redis) -> None:
    taken = upload(api)
    for ask in (cancel, reingest):
        answer = ask(api, taken["source_id"], Origin="http://evil.example")
        assert (answer.status_code, answer.json["error"]) == (403, "cross_origin")
    assert types(client) == ["queued"]


def test_a_source_is_ingested_again_as_another_run_of_the_same_files(
    api: FlaskClient, client: redis.Redis, database_url: str
) -> None:
    taken = upload(api)
    end(taken)
    last = client.xrevrange(keys.stream(USER), count=1)
    answer = reingest(api, taken["source_id"])
    assert answer.status_code == 202
    again = answer.json
    assert again["source_id"] == taken["source_id"]
    assert again["run_id"] != taken["run_id"]
    assert again["cursor"] == last[0][0].decode()  # type: ignore[index, union-attr]
    assert types(client) == ["queued", "started", "completed", "queued"]
    assert messages(client) == [taken["task_id"], again["task_id"]]
    with psycopg.connect(database_url) as connection:
        kept = connection.execute("SELECT run_id, name, size FROM upload_files").fetchall()
    assert kept == [(again["run_id"], "a.txt", 5)]


@pytest.mark.parametrize("how", ["failed", "cancelled"])
def test_a_run_that_did_not_complete_may_be_followed_by_another(
    api: FlaskClient, client: redis.Redis, how: str
) -> None:
    taken = upload(api)
    if how == "failed":
        runs.submit(ref_of(taken), Failed(task=taken["task_id"], error=ERROR))
    else:
        cancel(api, taken["source_id"])
    assert reingest(api, taken["source_id"]).status_code == 202
    assert types(client) == ["queued", how, "queued"]


def test_while_a_run_is_open_another_is_409_and_changes_nothing(
    api: FlaskClient, client: redis.Redis, database_url: str
) -> None:
    taken = upload(api)
    answer = reingest(api, taken["source_id"], "k")
    assert (answer.status_code, answer.json["error"]) == (409, "already_running")
    assert types(client) == ["queued"]
    with psycopg.connect(database_url) as connection:
        kept = connection.execute("SELECT run_id FROM upload_files").fetchall()
        latest = connection.execute("SELECT run_id FROM sources").fetchall()
    assert kept == latest == [(taken["run_id"],)]
    end(taken)
    assert reingest(api, taken["source_id"], "k").status_code == 202


def test_of_many_at_once_one_begins(api: FlaskClient, client: redis.Redis) -> None:
    taken = upload(api)
    end(taken)
    clients = [api.application.test_client() for _ in range(6)]
    with ThreadPoolExecutor(len(clients)) as pool:
        answers = list(pool.map(lambda each: reingest(each, taken["source_id"]), clients))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [202] + [409] * 5
    assert types(client) == ["queued", "started", "completed", "queued"]
    assert len(messages(client)) == 2


def test_of_many_at_once_with_one_key_all_get_the_same_run(
    api: FlaskClient, client: redis.Redis
) -> None:
    taken = upload(api)
    end(taken)
    clients = [api.application.test_client() for _ in range(6)]
    with ThreadPoolExecutor(len(clients)) as pool:
        answers = list(pool.map(lambda each: reingest(each, taken["source_id"], "k"), clients))
    assert [answer.status_code for answer in answers] == [202] * 6
    assert len({answer.json["run_id"] for answer in answers}) == 1
    assert len(messages(client)) == 2


def test_the_same_key_is_the_same_run_whose_state_is_said_once_more(
    api: FlaskClient, client: redis.Redis
) -> None:
    taken = upload(api)
    end(taken)
    first = reingest(api, taken["source_id"], "k")
    steps: list[tuple[str, Callable[[], None]]] = [
        ("queued", lambda: start(ref_of(first.json))),
        ("started", lambda: end(first.json)),
        ("completed", lambda: None),
    ]
    for state, go_on in steps:
        assert reingest(api, taken["source_id"], "k").json == first.json
        last = events(client)[-1]
        assert (last["type"], last["payload"]["repeated"]) == (f"source.ingest.{state}", True)
        assert last["payload"]["run_id"] == first.json["run_id"]
        go_on()
    assert len(messages(client)) == 2
    ends = [e for e in events(client) if e["type"].endswith("completed")]
    assert len([e for e in ends if not e["payload"].get("repeated")]) == 2


def test_the_key_of_an_upload_names_its_own_run_also_after_another(
    api: FlaskClient, client: redis.Redis
) -> None:
    taken = upload(api, key="k")
    end(taken)
    again = reingest(api, taken["source_id"], "k").json
    assert again["run_id"] != taken["run_id"]
    assert upload(api, key="k") == taken
    last = events(client)[-1]
    assert (last["type"], last["payload"]["run_id"]) == ("source.ingest.completed", taken["run_id"])
    assert last["payload"]["repeated"] is True


def test_a_key_that_is_too_long_is_400(api: FlaskClient) -> None:
    answer = reingest(api, upload(api)["source_id"], "k" * 256)
    assert (answer.status_code, answer.json["error"]) == (400, "bad_key")


def test_files_that_are_gone_are_410_with_a_sentence(
    api: FlaskClient, client: redis.Redis, database_url: str
) -> None:
    taken = upload(api)
    end(taken)
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM upload_files")
    runs.accept(runs.new_run(USER, "feed-17", "feed", final="T"))
    for source in (taken["source_id"], "feed-17"):
        answer = reingest(api, source)
        assert (answer.status_code, answer.json["error"]) == (410, "upload_gone")
        assert answer.json["message"].endswith("Please upload them again.")
    assert types(client) == ["queued", "started", "completed", "queued"]


def test_a_broker_that_is_away_is_503_and_the_same_key_may_try_again(
    api: FlaskClient, client: redis.Redis
) -> None:
    taken = upload(api)
    end(taken)
    lose_broker()
    answer = reingest(api, taken["source_id"], "k")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert types(client)[-2:] == ["queued", "failed"]
    assert events(client)[-1]["payload"]["error"]["code"] == "not_sent"
    dispatch._celery.cache_clear()
    assert reingest(api, taken["source_id"], "k").status_code == 202
    assert types(client)[-3:] == ["queued", "failed", "queued"]


@pytest.mark.parametrize(
    "error", [redis.ResponseError("OOM"), redis.ConnectionError("gone"), OSError("gone")]
)
@pytest.mark.parametrize("again", [False, True])
def test_whatever_the_broker_s_client_raises_is_503_and_ends_the_run(
    api: FlaskClient,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    again: bool,
) -> None:
    taken = upload(api)
    end(taken)

    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(dispatch._celery(), "send_task", refuse)
    if again:
        answer: Any = reingest(api, taken["source_id"])
    else:
        answer = api.post("/api/sources", data={"file": [(io.BytesIO(b"x"), "b.txt")]})
    assert (answer.status_code, answer.json["error"]) == (503, "unavailable")
    assert types(client)[-2:] == ["queued", "failed"]


def test_where_the_answer_to_an_acceptance_was_lost_the_run_ends_and_another_may_begin(
    api: FlaskClient, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = upload(api)
    end(taken)

    def accept_and_lose(ref: RunRef, fact: Accepted) -> runs.Outcome:
        runs.accept(ref, fact)
        raise RedisUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(dispatch, "accept", accept_and_lose)
        assert reingest(api, taken["source_id"], "k").status_code == 503
    assert types(client)[-2:] == ["queued", "failed"]
    assert len(messages(client)) == 1
    assert reingest(api, taken["source_id"], "k").status_code == 202


def test_where_the_database_goes_away_after_an_acceptance_the_run_ends(
    api: FlaskClient, client: redis.Redis, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = upload(api)
    end(taken)
    accept_run = dispatch.accept_run

    def accept_and_cut(ref: RunRef, *, is_new: bool) -> runs.Outcome:
        outcome = accept_run(ref, is_new=is_new)
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        return outcome

    with monkeypatch.context() as patched:
        patched.setattr(sources, "accept_run", accept_and_cut)
        answer = reingest(api, taken["source_id"])
    assert (answer.status_code, answer.json["error"]) == (503, "unavailable")
    assert types(client)[-2:] == ["queued", "failed"]
    assert len(messages(client)) == 1
    assert reingest(api, taken["source_id"]).status_code == 202


def test_redis_away_is_503_and_nothing_is_changed(
    api: FlaskClient, client: redis.Redis, redis_server: RunningRedis
) -> None:
    taken = upload(api)
    end(taken)
    redis_server.stop()
    answers = [cancel(api, taken["source_id"]), reingest(api, taken["source_id"], "k")]
    redis_server.start()
    assert [answer.status_code for answer in answers] == [503, 503]
    assert all(answer.headers["Retry-After"] == "2" for answer in answers)
    outbox.cache_clear()
    assert reingest(api, taken["source_id"], "k").status_code == 202

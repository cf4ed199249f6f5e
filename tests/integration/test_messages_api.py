"""`/api/messages`: questions are taken, answers read as they stand, and stopped."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
import pytest
import redis
from flask.testing import FlaskClient

from shared.settings import get_settings
from tests.answers import Writing
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.described import check_answer

ONE = "/api/messages/{message_id}"


@pytest.fixture
def answer(api: FlaskClient, database_url: str, redis_url: str) -> Writing:
    writing = Writing(database_url, redis.Redis.from_url(redis_url))
    writing.begin()
    return writing


def check(response: Any, path: str) -> Any:
    method = response.request.method.lower()
    check_answer(method, path, response.status_code, response.mimetype, response.json)
    return response


def get(api: FlaskClient, message_id: str) -> Any:
    return check(api.get(f"/api/messages/{message_id}"), ONE)


def test_a_question_is_handed_to_a_worker_and_its_answer_can_be_read_at_once(
    api: FlaskClient, redis_url: str
) -> None:
    taken = check(api.post("/api/messages", json={"question": " Why? "}), "/api/messages")
    assert taken.status_code == 202, taken.json
    assert taken.json["cursor"] == ""
    state = get(api, taken.json["message_id"]).json
    assert (state["status"], state["text"], state["cursor"]) == ("waiting", "", "")
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen("celery") == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"json": {}}, "no_question"),
        ({"json": []}, "no_question"),
        ({"json": {"question": 7}}, "no_question"),
        ({"json": {"question": " \n"}}, "no_question"),
        ({"data": b"{", "content_type": "application/json"}, "no_question"),
        ({"data": {"question": "a form"}}, "no_question"),
        ({"json": {"question": "x" * 4001}}, "bad_question"),
    ],
)
def test_what_is_no_question_is_refused(api: FlaskClient, body: Any, code: str) -> None:
    refused = check(api.post("/api/messages", **body), "/api/messages")
    assert (refused.status_code, refused.json["error"]) == (400, code)


def test_a_body_that_is_too_large_is_refused(api: FlaskClient) -> None:
    refused = api.post("/api/messages", json={"question": "x" * 100_000})
    assert check(refused, "/api/messages").status_code == 413


def test_a_question_from_another_site_is_refused(api: FlaskClient) -> None:
    headers = {"Origin": "http://evil.example"}
    refused = api.post("/api/messages", json={"question": "?"}, headers=headers)
    assert check(refused, "/api/messages").status_code == 403


def test_a_question_that_no_worker_hears_of_leaves_no_message(
    api: FlaskClient, redis_server: RunningRedis, database_url: str
) -> None:
    redis_server.stop()
    try:
        refused = check(api.post("/api/messages", json={"question": "?"}), "/api/messages")
    finally:
        redis_server.start()
    assert refused.status_code == 503
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)


def test_the_text_so_far_is_that_of_the_latest_restart(api: FlaskClient, answer: Writing) -> None:
    answer.say("old ", "words")
    answer.write({"type": "thought", "thought": "hm"})
    assert get(api, answer.id).json["text"] == "old words"
    answer.end()
    answer.begin()
    answer.say("new ", "\u0000é")
    state = get(api, answer.id).json
    assert state["text"] == "new \u0000é"
    assert (state["cursor"], state["status"], state["finished_at"]) == ("6", "writing", None)
    answer.end()
    state = get(api, answer.id).json
    assert (state["status"], state["error"]) == ("finished", None)
    assert state["finished_at"]


def test_an_answer_that_is_not_ones_own_is_not_there(api: FlaskClient, database_url: str) -> None:
    theirs = Writing(database_url, None, user_id="somebody-else")
    for call in (api.get, api.delete):
        for message_id in (theirs.id, str(uuid4())):
            refused = check(call(f"/api/messages/{message_id}"), ONE)
            assert (refused.status_code, refused.json["error"]) == (404, "not_found")
        refused = check(call("/api/messages/7"), ONE)
        assert (refused.status_code, refused.json["error"]) == (400, "bad_message_id")


def test_whoever_looks_at_an_answer_whose_writer_is_lost_ends_it(
    api: FlaskClient, answer: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESSAGE_STALE_SECONDS", "1")
    get_settings.cache_clear()
    answer.say("half")
    answer.fall_silent()
    # Silence counts from the start of the server, which may be just now.
    wait_until(lambda: get(api, answer.id).json["status"] == "failed", "an end")
    state = get(api, answer.id).json
    assert (state["status"], state["error"], state["text"]) == ("failed", "producer_lost", "half")


def test_an_answer_is_asked_to_stop_and_one_that_is_over_stays(
    api: FlaskClient, answer: Writing, database_url: str
) -> None:
    stopped = check(api.delete(f"/api/messages/{answer.id}"), ONE)
    assert (stopped.status_code, stopped.json["status"]) == (200, "writing")
    with psycopg.connect(database_url) as connection:
        marked = connection.execute("SELECT stop_requested FROM messages").fetchone()
    assert marked == (True,)
    answer.end()
    assert check(api.delete(f"/api/messages/{answer.id}"), ONE).json["status"] == "finished"

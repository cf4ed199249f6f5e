"""`/api/sources` against a real Redis and Postgres, without a worker."""

from __future__ import annotations

import io
import json
from typing import Any

import psycopg
import pytest
import redis
from flask.testing import FlaskClient

from shared import keys
from shared.settings import get_settings
from tests.conftest import RunningRedis
from web.dispatch import _celery

USER = "local"


def upload(api: FlaskClient, *files: tuple[bytes, str], **headers: str) -> Any:
    data = {"file": [(io.BytesIO(content), name) for content, name in files]}
    return api.post("/api/sources", data=data, headers=headers)


def types(url: str) -> list[str]:
    rows: Any = redis.Redis.from_url(url).xrange(keys.stream(USER))
    return [json.loads(fields[b"e"])["type"] for _, fields in rows]


def payloads(url: str) -> list[dict[str, Any]]:
    rows: Any = redis.Redis.from_url(url).xrange(keys.stream(USER))
    return [json.loads(fields[b"e"])["payload"] for _, fields in rows]


def test_an_upload_is_accepted_stored_and_sent_to_the_workers(
    api: FlaskClient, redis_url: str, database_url: str
) -> None:
    answer = upload(api, (b"hello", "a.txt"), (b"there", "b.txt"))
    assert answer.status_code == 202
    assert answer.json["success"] and answer.json["cursor"] == "0-0"
    assert types(redis_url) == ["source.ingest.queued"]
    message = json.loads(redis.Redis.from_url(redis_url).lindex("celery", 0) or b"{}")
    assert message["headers"]["task"] == "worker.documents.ingest_source"
    assert message["headers"]["id"] == answer.json["task_id"]
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT name, size FROM upload_files ORDER BY position")
        assert rows.fetchall() == [("a.txt", 5), ("b.txt", 5)]
    listed: Any = api.get("/api/sources").json
    assert [s["name"] for s in listed["sources"]] == ["a.txt and 1 more"]
    assert listed["user_id"] == USER
    one: Any = api.get(f"/api/sources/{answer.json['source_id']}").json
    assert one["source"]["status"] == "queued"


def test_the_same_idempotency_key_is_the_same_run(api: FlaskClient, redis_url: str) -> None:
    first = upload(api, (b"hello", "a.txt"), **{"Idempotency-Key": "k"})
    second = upload(api, (b"hello", "a.txt"), **{"Idempotency-Key": "k"})
    assert second.status_code == 202
    assert second.json["run_id"] == first.json["run_id"]
    assert types(redis_url) == ["source.ingest.queued"] * 2
    assert [payload.get("repeated") for payload in payloads(redis_url)] == [None, True]
    assert redis.Redis.from_url(redis_url).llen("celery") == 1


@pytest.mark.parametrize("size", [100_001, 2_000_000])
def test_too_large_is_413_and_leaves_nothing(
    api: FlaskClient, database_url: str, size: int
) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="big.txt"\r\n\r\n'
    body = head + b"x" * size + b"\r\n--x--\r\n"
    answer: Any = api.post(
        "/api/sources", data=body, content_type="multipart/form-data; boundary=x"
    )
    assert (answer.status_code, answer.json["error"]) == (413, "too_large")
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM sources").fetchone() == (0,)


def test_no_file_is_400(api: FlaskClient) -> None:
    answer: Any = api.post("/api/sources", data={"name": "x"})
    assert (answer.status_code, answer.json["error"]) == (400, "no_file")


def test_a_write_from_another_site_is_refused(api: FlaskClient, redis_url: str) -> None:
    answer = upload(api, (b"x", "a.txt"), Origin="http://evil.example")
    assert (answer.status_code, answer.json["error"]) == (403, "cross_origin")
    assert types(redis_url) == []


def test_an_unknown_source_is_404(api: FlaskClient) -> None:
    answer: Any = api.get("/api/sources/none-such")
    assert (answer.status_code, answer.json["error"]) == (404, "not_found")


def test_a_name_is_kept_as_text(api: FlaskClient) -> None:
    answer = upload(api, (b"x", "报告 <script>alert(1)</script>.txt"))
    listed: Any = api.get("/api/sources").json
    assert answer.status_code == 202
    assert listed["sources"][0]["name"] == "报告 <script>alert(1)</script>.txt"


def test_a_broker_that_is_away_is_503_and_the_run_has_failed(
    api: FlaskClient, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _celery().conf.update(broker_url="redis://127.0.0.1:1/0")
    answer = upload(api, (b"x", "a.txt"), **{"Idempotency-Key": "k"})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "2"
    assert types(redis_url) == ["source.ingest.queued", "source.ingest.failed"]
    _celery().close()
    _celery.cache_clear()
    again = upload(api, (b"x", "a.txt"), **{"Idempotency-Key": "k"})
    assert again.status_code == 202
    assert types(redis_url)[2:] == ["source.ingest.queued"]


def test_a_repeated_upload_is_answered_with_the_cursor_from_before_the_first(
    api: FlaskClient,
) -> None:
    first = upload(api, (b"x", "a.txt"), **{"Idempotency-Key": "k"})
    upload(api, (b"y", "b.txt"))
    second = upload(api, (b"x", "a.txt"), **{"Idempotency-Key": "k"})
    assert second.json == first.json


@pytest.mark.parametrize("origin", ["http://[", "null", "http://localhost:81", "https://evil"])
def test_an_odd_origin_is_refused_and_not_an_error(api: FlaskClient, origin: str) -> None:
    assert upload(api, (b"x", "a.txt"), Origin=origin).status_code == 403


def test_a_host_name_that_is_not_ours_is_refused(
    api: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for host, status in (("evil.example", 403), ("127.0.0.1:8000", 200), ("[::1]", 200)):
        assert api.get("/api/sources", headers={"Host": host}).status_code == status
    monkeypatch.setenv("ALLOWED_HOSTS", "Ours.example, other")
    get_settings.cache_clear()
    assert api.get("/api/sources", headers={"Host": "ours.example:8000"}).status_code == 200


def test_redis_away_is_503_for_every_endpoint(api: FlaskClient, redis_server: RunningRedis) -> None:
    redis_server.stop()
    answers = [upload(api, (b"x", "a.txt")), api.get("/api/sources"), api.get("/healthz")]
    redis_server.start()
    assert [answer.status_code for answer in answers] == [503] * 3
    assert all(answer.headers["Retry-After"] == "2" for answer in answers)


def test_pages_carry_a_content_security_policy(api: FlaskClient) -> None:
    page = api.get("/")
    assert page.status_code == 200
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    page.close()

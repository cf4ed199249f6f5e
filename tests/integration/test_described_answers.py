"""Real answers of every endpoint, and what a stream says, against `/openapi.json`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis
from flask.testing import FlaskClient

from shared import runs
from shared.facts import Failed, Progress, Report, Retrying
from shared.outbox import outbox
from shared.runs import RunRef
from tests.conftest import RunningRedis
from tests.described import check_answer, check_event
from tests.ingested import ingest
from tests.run_facts import BROKEN, started, submit
from tests.servers import web_server
from tests.sse import watch
from web import create_app
from web.dispatch import _celery

USER = "local"
ETA = "2026-01-01T00:00:00.000Z"


@pytest.fixture
def api(
    client: redis.Redis, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FlaskClient]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("ALLOW_ANONYMOUS", "true")
    monkeypatch.setenv("UPLOAD_MAX_BYTES", "1000")
    _celery.cache_clear()
    outbox.cache_clear()
    yield create_app().test_client()
    _celery().close()
    outbox.cache_clear()


def check(answer: Any, path: str) -> Any:
    method = answer.request.method.lower()
    assert answer.is_json
    check_answer(method, path, answer.status_code, "application/json", answer.json)
    return answer


def upload(api: FlaskClient, content: bytes, **headers: str) -> Any:
    data = {"file": [(io.BytesIO(content), "a.txt")]}
    return check(api.post("/api/sources", data=data, headers=headers), "/api/sources")


def test_answers_about_sources_are_as_described(api: FlaskClient, client: redis.Redis) -> None:
    taken = upload(api, b"hello")
    assert taken.status_code == 202
    one = f"/api/sources/{taken.json['source_id']}"
    check(api.get(one), "/api/sources/{source_id}")
    ref = RunRef(USER, taken.json["source_id"], taken.json["run_id"], taken.json["task_id"], "a")
    submit(ref, started(ref.final))
    report = Report("parse", 1, 2, "pages")
    submit(ref, Progress(task=ref.final, nonce="n", reports=[report]))
    check(api.get(one), "/api/sources/{source_id}")
    submit(
        ref,
        Retrying(
            task=ref.final, retries=0, nesting=0, attempts=None, eta=ETA, eta_ms=1, error=BROKEN
        ),
    )
    check(api.get(one), "/api/sources/{source_id}")
    submit(ref, Failed(task=ref.final, error=BROKEN, details={"failed_files": []}))
    listed = check(api.get("/api/sources"), "/api/sources").json["sources"]
    assert (listed[0]["status"], listed[0]["error"]["code"]) == ("failed", "broken")


def test_refusals_about_sources_are_as_described(
    api: FlaskClient, redis_server: RunningRedis
) -> None:
    wrong_host = {"Host": "evil.example"}
    assert check(api.post("/api/sources"), "/api/sources").status_code == 400
    assert upload(api, b"x", **{"Idempotency-Key": "k" * 256}).status_code == 400
    assert upload(api, b"x", Origin="http://evil.example").status_code == 403
    assert check(api.get("/api/sources", headers=wrong_host), "/api/sources").status_code == 403
    assert check(api.get("/api/sources/7"), "/api/sources/{source_id}").status_code == 404
    assert upload(api, b"x" * 2000).status_code == 413
    redis_server.stop()
    away = [check(api.get(path), path) for path in ("/api/sources", "/healthz")]
    redis_server.start()
    assert [answer.status_code for answer in away] == [503, 503]
    assert all(answer.headers["Retry-After"].isdigit() for answer in away)


def test_answers_of_search_and_health_are_as_described(api: FlaskClient) -> None:
    ingest({"heron.txt": b"A heron stands still."}, user=USER)
    found = check(api.get("/api/search?q=heron"), "/api/search").json
    assert found["hits"][0]["snippet"]
    check(api.get("/api/search"), "/api/search")
    assert check(api.get("/healthz"), "/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/openapi.json", "/asyncapi.json"])
def test_a_document_is_for_everyone_and_is_asked_for_each_time(api: FlaskClient, path: str) -> None:
    answer = check(api.get(path, headers={"Host": "evil.example"}), path)
    assert answer.status_code == 200
    assert answer.content_type == "application/json"
    assert answer.headers["Cache-Control"] == "no-cache"
    schemes = answer.json["components"]["securitySchemes"]
    assert schemes["cookie"]["name"] == "eventstream_token"


def test_answers_of_the_stream_are_as_described(
    client: redis.Redis, redis_server: RunningRedis, redis_url: str
) -> None:
    limits = {"SSE_MAX_CONCURRENT_PER_USER": "1"}
    with web_server("asgi", redis_url, **limits) as server, httpx.Client(trust_env=False) as http:
        runs.accept(runs.new_run(USER, "source-1", "n", final="T"))
        with watch(server.url, "0") as reader:
            kind = reader.response.headers["content-type"].partition(";")[0]
            check_answer("get", "/api/events", 200, kind, "")
            check_event(reader.events(1)[0])
            check_refused(http, server.url, 429)
        with watch(server.url, "garbage") as reader:
            check_event(reader.events(1)[0])
        redis_server.stop()
        check_refused(http, server.url, 503)
        redis_server.start()


def check_refused(http: httpx.Client, url: str, status: int) -> None:
    answer = http.get(f"{url}/api/events")
    assert answer.status_code == status
    assert answer.headers["Retry-After"].isdigit()
    check_answer("get", "/api/events", status, answer.headers["content-type"], answer.json())

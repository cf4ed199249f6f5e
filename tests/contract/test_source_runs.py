"""Sources are ingested again and cancelled, over real HTTP and by both faces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis

from shared import keys, runs
from shared.facts import Succeeded
from shared.runs import RunRef
from tests.conftest import RunningRedis
from tests.servers import WebServer, web_server
from tests.signing import SECRET, bearer, hs256
from tests.sse import watch

JWT = {"AUTH_TYPE": "jwt", "JWT_SECRET_KEY": SECRET}


@pytest.fixture(params=["asgi", "wsgi"])
def server(
    request: pytest.FixtureRequest,
    redis_url: str,
    redis_server: RunningRedis,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[WebServer]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    with web_server(request.param, redis_url, database_url, **JWT) as server:
        yield server


def ask(server: WebServer, method: str, path: str, user: str = "alice", **more: Any) -> Any:
    headers = bearer(user) | more.pop("headers", {})
    url = f"{server.url}/api/sources{path}"
    return httpx.request(method, url, headers=headers, timeout=10, trust_env=False, **more)


def upload(server: WebServer) -> RunRef:
    taken = ask(server, "POST", "", files={"file": ("a.txt", b"hello")}).json()
    return RunRef("alice", taken["source_id"], taken["run_id"], taken["task_id"], "a.txt")


def test_a_source_is_ingested_again_and_cancelled_and_its_user_sees_it(server: WebServer) -> None:
    ref = upload(server)
    again = f"/{ref.source_id}/reingest"
    assert ask(server, "POST", again).status_code == 409
    runs.submit(ref, Succeeded(task=ref.final))
    taken = ask(server, "POST", again, headers={"Idempotency-Key": "k"})
    assert taken.status_code == 202
    assert ask(server, "POST", again, headers={"Idempotency-Key": "k"}).json() == taken.json()
    stopped = ask(server, "DELETE", f"/{ref.source_id}")
    assert (stopped.status_code, stopped.json()["source"]["status"]) == (200, "cancelled")
    with watch(server.url, taken.json()["cursor"], **bearer("alice")) as reader:
        told = reader.events(3)
    kinds = [event["type"].rpartition(".")[2] for event in told]
    assert kinds == ["queued", "queued", "cancelled"]
    assert [event["payload"].get("repeated") for event in told] == [None, True, None]


def test_nobody_else_s_source_is_touched(server: WebServer, redis_url: str) -> None:
    ref = upload(server)
    for method, path in (("DELETE", f"/{ref.source_id}"), ("POST", f"/{ref.source_id}/reingest")):
        answer = ask(server, method, path, user="bob")
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
    assert redis.Redis.from_url(redis_url).xlen(keys.stream("alice")) == 1


def test_another_site_s_page_can_not_use_the_cookie(server: WebServer) -> None:
    ref = upload(server)
    foreign = {"Origin": "http://evil.example", "Cookie": f"eventstream_token={hs256('alice')}"}
    own = {**foreign, "Origin": server.url}
    for method, path in (("DELETE", f"/{ref.source_id}"), ("POST", f"/{ref.source_id}/reingest")):
        url = f"{server.url}/api/sources{path}"
        refused = httpx.request(method, url, headers=foreign, timeout=10, trust_env=False)
        assert (refused.status_code, refused.json()["error"]) == (403, "cross_origin")
        taken = httpx.request(method, url, headers=own, timeout=10, trust_env=False)
        assert taken.is_success

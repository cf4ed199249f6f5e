"""`eventstream publish` on a real Redis."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis
from click.testing import CliRunner, Result

from shared import keys
from worker.cli.main import main


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["publish", *arguments])


def test_an_event_is_appended_and_its_id_printed(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    done = run("alice", "report.ready", '{"list": []}', "--scope-kind", "report", "--scope-id", "7")
    assert done.exit_code == 0, done.output
    rows: Any = redis.Redis.from_url(redis_url).xrange(keys.stream("alice"))
    assert done.output.strip() == rows[0][0].decode()
    event = json.loads(rows[0][1][b"e"])
    assert event["scope"] == {"kind": "report", "id": "7"}
    assert (event["type"], event["payload"]) == ("report.ready", {"list": []})


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("alice", "a.b", "{"), "takes a JSON object"),
        (("alice", "a.b", "[1]"), "takes a JSON object"),
        (("alice", "a.b", "[" * 100_000), "takes a JSON object"),
        (("alice", "a.b", '{"n": 1' + "0" * 5000 + "}"), "takes a JSON object"),
        (("alice", "a.b", '{"n": NaN}'), "not JSON"),
        (("alice", "", "{}"), "dotted name such as 'report.ready'"),
        (("alice", "ready", "{}"), "dotted name such as 'report.ready'"),
        (("alice", "backlog.truncated", "{}"), "what a stream says of itself"),
        (("alice", "a.b", "{}", "--scope-kind", "k"), "go together"),
        (("alice", "a.b", "{}", "--scope-id", "1"), "go together"),
        (("alice", "a.b", "{}", "--scope-kind", "", "--scope-id", "1"), "go together"),
        (("", "a.b", "{}"), "needs a user id"),
        (("alice", "a.b", "{}"), "can't be reached"),
    ],
)
def test_what_can_not_be_published_is_said(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], reason: str
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    done = run(*arguments)
    assert done.exit_code != 0
    assert reason in done.output
    assert "Traceback" not in done.output


def test_what_redis_refuses_is_said(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    redis.Redis.from_url(redis_url).set(keys.stream("alice"), "no stream")
    done = run("alice", "a.b", "{}")
    assert done.exit_code == 1
    assert "Redis refused it" in done.output and "WRONGTYPE" in done.output


def test_nothing_is_published_while_pushing_is_switched_off(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("ENABLE_SSE_PUSH", "false")
    done = run("alice", "a.b", "{}")
    assert done.exit_code == 1
    assert "ENABLE_SSE_PUSH is false" in done.output
    assert not redis.Redis.from_url(redis_url).exists(keys.stream("alice"))

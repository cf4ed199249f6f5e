"""Commands that go to Redis past redis-py's own retries: each gets the reply that is its own."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from shared.connections import ask, ask_together, redis_client


class TimeIsOver(Exception):
    """As Celery's SoftTimeLimitExceeded: raised in whatever a task is doing."""


def test_a_refusal_among_several_is_that_commands_alone(redis_url: str) -> None:
    client = redis_client(redis_url)
    said, refused, again = ask_together(client, [("ECHO", "a"), ("INCR", "a", "b"), ("ECHO", "c")])
    assert (said, again) == (b"a", b"c")
    assert isinstance(refused, redis.ResponseError)
    with pytest.raises(redis.ResponseError):
        ask(client, "INCR", "a", "b")


def test_a_reply_that_comes_after_its_caller_was_interrupted_is_nobodys(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = redis_client(redis_url)

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise TimeIsOver

    with monkeypatch.context() as patch, pytest.raises(TimeIsOver):
        patch.setattr(redis.Connection, "read_response", interrupted)
        ask(client, "BLPOP", "nothing", "0.1")
    assert ask(client, "ECHO", "mine") == b"mine"

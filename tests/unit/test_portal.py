"""A stream's driver on the loop's thread: whatever ends it, the thread that waits is let go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from web import portal
from web.outlet import Outlet, Send, body
from web.request import Request

REQUEST = Request({"host": "localhost"})


@pytest.fixture(autouse=True)
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A loop of this test's own, which needs no Redis."""
    with start_blocking_portal(name="portal") as own:
        loops = {os.getpid(): SimpleNamespace(portal=own, delivery=None)}
        monkeypatch.setattr(portal, "_loops", loops)
        yield


def test_a_failure_after_the_headers_is_logged_and_ends_the_response(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def open_events(delivery: object, request: Request, send: Send) -> Any:
        await Outlet(send).start(200, {"X-Test": "1"})
        await send(body(b"first"))
        return SimpleNamespace(serve=fail)

    monkeypatch.setattr(portal, "open_stream", open_events)
    answer = portal.answer_stream(REQUEST, None)
    assert (answer.status, answer.headers) == (200, [("x-test", "1")])
    assert list(answer.body) == [b"first"]
    answer.body.close()
    (record,) = [record for record in caplog.records if record.name == "web.portal"]
    assert record.getMessage() == "a stream failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


def test_a_failure_before_the_headers_is_the_servers_to_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(portal, "open_stream", fail)
    with pytest.raises(ValueError, match="broken"):
        portal.answer_stream(REQUEST, None)


async def fail(*_: object) -> None:
    raise ValueError("broken")

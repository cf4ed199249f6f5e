"""The stream as the WHATWG standard has it (HTML, 9.2.5 and 9.2.6), on both faces: to the byte, by
the standard's own rules, and by a client that others keep. Then what a cursor may be, and what not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import httpx_sse
import pytest
import redis

from shared import keys, wire
from shared.publisher import publish_user_event
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.servers import WebServer, web_server
from tests.sse import Reader, watch

USER = "local"
NO_LIMITS = {"SSE_MAX_CONCURRENT_PER_USER": "0", "EVENTS_REPLAY_BUDGET_REQUESTS_PER_WINDOW": "0"}
AWKWARD = 'é \u2028 \U0001f600 \r\n\n id: 7 \r data: x \x00 \ufeff "\\" </script>'
# What may stand between two blank lines; nothing else may.
RETRY = rb"retry: [1-9][0-9]*"
COMMENT = rb": [a-z_]+"
PRIME = rb"id: [0-9]+-[0-9]+"
EVENT = rb'id: ([0-9]+-[0-9]+)\ndata: \{"id":"\1",[\x20-\x7e]+\}'
NOTICE = rb'data: \{"type":"backlog.truncated",[\x20-\x7e]+\}'


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def server(request: pytest.FixtureRequest, redis_server: RunningRedis) -> Iterator[WebServer]:
    url = redis_server.url
    with web_server(request.param, url, SSE_KEEPALIVE_SECONDS="0.3", **NO_LIMITS) as server:
        yield server


def publish(number: int) -> list[str]:
    ids = [publish_user_event(USER, "test.event", {"n": n, "text": AWKWARD}) for n in range(number)]
    return [str(entry_id) for entry_id in ids]


@dataclass
class EventSource:
    """The standard's parser: takes bytes as they come, dispatches events."""

    events: list[tuple[str, str, str]] = field(default_factory=list)  # type, data, last event id
    last_event_id: str = ""
    reconnection_ms: int | None = None
    _rest: str = ""
    _type: str = ""
    _data: str = ""
    _id: str = ""

    def feed(self, data: bytes) -> None:
        self._rest += data.decode("ascii")  # which is UTF-8, however it is cut
        assert "\r" not in self._rest
        *lines, self._rest = self._rest.split("\n")
        for line in lines:
            self._line(line)

    def _line(self, line: str) -> None:
        if line == "":
            self._dispatch()
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            self._field(name, value.removeprefix(" "))

    def _field(self, name: str, value: str) -> None:
        match name:
            case "event":
                self._type = value
            case "data":
                self._data += value + "\n"
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if re.fullmatch("[0-9]+", value):
                self.reconnection_ms = int(value)

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        if self._data:
            data = self._data.removesuffix("\n")
            self.events.append((self._type or "message", data, self.last_event_id))
        self._data = self._type = ""


def stream(server: WebServer, until: int, cursor: str | None = None) -> tuple[bytes, EventSource]:
    """What a stream says, to the byte and as parsed, until it has given so many events."""
    said, source = b"", EventSource()
    with watch(server.url, cursor) as reader:
        for chunk in reader.response.iter_raw():
            said += chunk
            source.feed(chunk)
            if len(source.events) >= until and said.endswith(b": keepalive\n\n"):
                return said, source
    raise AssertionError("the stream ended")


def test_every_byte_is_of_a_form_that_the_standard_and_the_reference_name(
    client: redis.Redis, server: WebServer
) -> None:
    ids = publish(3)
    said, _ = stream(server, 3, cursor="0")
    *blocks, rest = said.split(b"\n\n")
    assert rest == b"", "whole blocks"
    forms = [RETRY, COMMENT, *[EVENT] * 3]
    for block, form in zip(blocks, forms, strict=False):
        assert re.fullmatch(form, block), block
    assert set(blocks[len(forms) :]) == {b": keepalive"}
    rows: Any = client.xrange(keys.stream(USER))
    frames = [wire.event_frame(entry_id, fields[b"e"]) for entry_id, fields in rows]
    assert b"\n\n".join(blocks[2:5]) + b"\n\n" == b"".join(frames)
    assert [row[0].decode() for row in rows] == ids


def test_a_prime_moves_the_cursor_and_fires_nothing(client: redis.Redis, server: WebServer) -> None:
    last = publish(2)[-1]
    said, source = stream(server, 0)
    assert re.fullmatch(RETRY + b"\n\n: connected\n\n" + PRIME + b"\n\n: keepalive\n\n", said)
    assert (source.events, source.last_event_id) == ([], last)
    assert 2000 <= (source.reconnection_ms or 0) <= 5000


def test_a_notice_fires_as_a_message_and_leaves_a_cursor_that_is_good(
    client: redis.Redis, server: WebServer
) -> None:
    ids = publish(6)
    client.xtrim(keys.stream(USER), maxlen=2, approximate=False)
    said, source = stream(server, 3, cursor=ids[0])
    blocks = said.split(b"\n\n")
    for block, form in zip(blocks[2:6], [NOTICE, PRIME, EVENT, EVENT], strict=True):
        assert re.fullmatch(form, block), block
    kind, data, _ = source.events[0]
    assert (kind, json.loads(data)["payload"]["cursor"]) == ("message", ids[3])
    assert source.last_event_id == ids[-1]
    assert blocks[3].decode() == f"id: {ids[3]}"


def test_a_client_that_others_keep_sees_the_same_events(
    client: redis.Redis, server: WebServer
) -> None:
    ids = publish(5)
    _, source = stream(server, 5, cursor="0")
    with (
        httpx.Client(timeout=10, trust_env=False) as http,
        httpx_sse.connect_sse(
            http, "GET", f"{server.url}/api/events", headers={"Last-Event-ID": "0"}
        ) as connection,
    ):
        found = []
        for event in connection.iter_sse():
            if event.data:  # it also gives what the standard does not fire
                found.append((event.event, event.data, event.id))
            if len(found) == 5:
                break
    assert found == source.events
    assert [entry_id for _, _, entry_id in found] == ids
    assert [json.loads(data)["payload"] for _, data, _ in found] == [
        {"n": n, "text": AWKWARD} for n in range(5)
    ]


def test_the_answers_head_is_what_the_reference_says(
    client: redis.Redis, server: WebServer
) -> None:
    with watch(server.url) as reader:
        headers = reader.response.headers
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-store"
        assert headers["x-accel-buffering"] == "no"
        assert not {"content-length", "content-encoding"} & set(headers)


# Cursors.


def first_of(
    server: WebServer, query: str = "", header: str | bytes | None = None
) -> tuple[str, str]:
    """How a stream begins: 'event', 'prime' or the reason of a notice, with the id."""
    sent: list[tuple[bytes, bytes]] = []
    if header is not None:
        raw = header.encode() if isinstance(header, str) else header
        sent = [(b"Last-Event-ID", value) for value in raw.split(b"\n")]
    with (
        httpx.Client(timeout=10, trust_env=False) as http,
        http.stream("GET", f"{server.url}/api/events{query}", headers=sent) as response,
    ):
        assert response.status_code == 200
        reader = Reader(response)
        assert "retry" in reader.block().fields
        assert reader.block().raw == ": connected"
        block = reader.block()
    if block.event is None:
        return "prime", block.fields["id"]
    if block.event["type"] == "backlog.truncated":
        return block.event["payload"]["reason"], block.event["payload"]["cursor"]
    return "event", block.fields["id"]


def test_the_header_goes_before_the_query(client: redis.Redis, server: WebServer) -> None:
    ids = publish(4)
    assert first_of(server, f"?last_event_id={ids[0]}", ids[2]) == ("event", ids[3])
    assert first_of(server, f"?last_event_id={ids[0]}") == ("event", ids[1])
    assert first_of(server, f"?last_event_id={ids[0]}", "garbage") == ("malformed_cursor", ids[3])
    assert first_of(server, "?last_event_id=garbage", ids[2]) == ("event", ids[3])


def test_an_empty_cursor_counts_as_none(client: redis.Redis, server: WebServer) -> None:
    ids = publish(3)
    for query, header in (("", ""), ("?last_event_id=", None), ("?last_event_id", "")):
        assert first_of(server, query, header) == ("prime", ids[-1]), (query, header)
    assert first_of(server, f"?last_event_id={ids[0]}", "") == ("event", ids[1])


def test_the_first_of_a_repeated_parameter_counts(client: redis.Redis, server: WebServer) -> None:
    ids = publish(3)
    query = "?x=1&last_event_id={}&last_event_id={}"
    assert first_of(server, query.format(ids[1], ids[0])) == ("event", ids[2])
    assert first_of(server, query.format(ids[0], "garbage")) == ("event", ids[1])
    assert first_of(server, query.format("", ids[0])) == ("prime", ids[2]), (
        "and an empty one is none"
    )


def test_a_header_that_is_repeated_is_no_cursor(client: redis.Redis, server: WebServer) -> None:
    ids = publish(3)
    assert first_of(server, header=f"{ids[0]}\n{ids[1]}") == ("malformed_cursor", ids[2])


@pytest.mark.parametrize("cursor", ["0", "0-0", "00", "000-00000000000000000000"])
def test_zero_is_before_the_first_entry(
    client: redis.Redis, server: WebServer, cursor: str
) -> None:
    ids = publish(2)
    assert first_of(server, header=cursor) == ("event", ids[0])


def test_a_time_alone_is_its_first_position(client: redis.Redis, server: WebServer) -> None:
    first = publish(1)[0]
    ms = int(first.partition("-")[0])
    wait_until(lambda: client.time()[0] * 1000 + client.time()[1] // 1000 > ms, "the next")
    second = publish(1)[0]
    assert first == f"{ms}-0"
    assert first_of(server, header=str(ms)) == ("event", second)
    assert first_of(server, f"?last_event_id={ms}") == ("event", second)
    assert first_of(server, f"?last_event_id=0{ms}-00") == ("event", second)


@pytest.mark.parametrize(
    "cursor",
    ["1", "99999999999999-0", "18446744073709551615", "18446744073709551615-18446744073709551615"],
)
def test_a_well_formed_cursor_of_nowhere_is_told(
    client: redis.Redis, server: WebServer, cursor: str
) -> None:
    publish(2)
    assert first_of(server, header=cursor) == ("journal_reset", "0-0")
    assert first_of(server, f"?last_event_id={cursor}") == ("journal_reset", "0-0")


@pytest.mark.parametrize(
    "cursor",
    [
        *[
            "garbage",
            "-",
            "-5",
            "1-",
            "1-2-3",
            "1-*",
            "$",
            "(1-0",
            "1.0",
            "1e3",
            "0x1",
            "1_0",
            "1,2",
        ],
        *["18446744073709551616", "1-18446744073709551616", "9" * 21, "0" * 21, "1" * 5000],
        *["é", "\u0661", "\uff11", "1\u00a0", "\U0001f600"],
    ],
)
def test_a_malformed_cursor_is_told_and_begins_at_the_end(
    client: redis.Redis, server: WebServer, cursor: str
) -> None:
    last = publish(2)[-1]
    told = ("malformed_cursor", last)
    assert first_of(server, header=cursor) == told
    assert first_of(server, f"?{httpx.QueryParams(last_event_id=cursor)}") == told


@pytest.mark.parametrize(
    "query", ["%00", "0%00", "%0A0", "0%0D%0Aid:%205", "%201", "+1", "1%20", "%ff", "%", "%zz"]
)
def test_a_cursor_of_odd_bytes_is_malformed(
    client: redis.Redis, server: WebServer, query: str
) -> None:
    last = publish(2)[-1]
    assert first_of(server, f"?last_event_id={query}") == ("malformed_cursor", last)


def test_bytes_of_no_text_in_a_header_are_malformed(client: redis.Redis, server: WebServer) -> None:
    last = publish(2)[-1]
    for header in (b"\xff\xfe", b"\xe9", b"1\xa0"):
        assert first_of(server, header=header) == ("malformed_cursor", last)

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest

from shared.encoding import encode_body, to_json
from shared.errors import EventRefused


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 2


class Side(StrEnum):
    LEFT = "left"


@dataclass
class Point:
    x: int
    colour: Colour


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), '"2026-01-01T00:00:00.000Z"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Decimal("1.50"), '"1.50"'),
        (Point(1, Colour.RED), '{"x":1,"colour":"red"}'),
        ({"b", "a"}, '["a","b"]'),
        (
            datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))),
            '"2026-01-01T00:00:00.000Z"',
        ),
        (datetime(2026, 1, 1), '"2026-01-01T00:00:00"'),
        (date(2026, 1, 1), '"2026-01-01"'),
        (time(12, 30), '"12:30:00"'),
        (Level.HIGH, "2"),
        (Side.LEFT, '"left"'),
        ((1, (2,)), "[1,[2]]"),
        (Path("a/b"), '"a/b"'),
        (MappingProxyType({"a": Colour.RED}), '{"a":"red"}'),
        ({1: "a", False: "b"}, '{"1":"a","false":"b"}'),
        ({None: 1, 2.5: 2}, '{"null":1,"2.5":2}'),
        ([{"1": {"1": {}}, "x": '"1":'}, {"1": 2}], '[{"1":{"1":{}},"x":"\\"1\\":"},{"1":2}]'),
        ({UUID(int=1): {Colour.RED: 1}}, '{"00000000-0000-0000-0000-000000000001":{"red":1}}'),
        ({Level.HIGH: 1, Side.LEFT: 2}, '{"2":1,"left":2}'),
        (
            [Point(1, Colour.RED), {date(2026, 1, 1): {1: {"x"}}}],
            '[{"x":1,"colour":"red"},{"2026-01-01":{"1":["x"]}}]',
        ),
        ("é\u2028</script>", '"\\u00e9\\u2028</script>"'),
        ("\ud800", '"\\ud800"'),
        (2**63, "9223372036854775808"),
    ],
)
def test_values_are_encoded_as_users_expect(value: Any, text: str) -> None:
    assert to_json(value) == text


CIRCULAR: dict[Any, Any] = {}
CIRCULAR["again"] = CIRCULAR
CIRCULAR_BY_DATE: dict[Any, Any] = {}
CIRCULAR_BY_DATE[date(2026, 1, 1)] = [CIRCULAR_BY_DATE]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "Out of range"),
        ({"x": [float("-inf")]}, "Out of range"),
        (Decimal("NaN"), "NaN has no JSON form"),
        ({float("nan"): 1}, "Out of range"),
        (object(), "object has no JSON form"),
        ({1: {2: object()}}, "object has no JSON form"),
        (b"x", "bytes has no JSON form"),
        ({b"x": 1}, "bytes has no JSON form"),
        ({(1, 2): 1}, "tuple can't be a key"),
        ({UUID(int=1): 1, str(UUID(int=1)): 2}, "two keys of an object are the same as text"),
        ({1: "a", "1": "b"}, "two keys of an object are the same as text"),
        ([{"x": {True: "a", "true": "b"}}], "two keys of an object are the same as text"),
        (MappingProxyType({None: "a", "null": "b"}), "two keys of an object are the same as text"),
        ({-2.5: "a", "-2.5": "b"}, "two keys of an object are the same as text"),
        (CIRCULAR, "Circular reference"),
        (CIRCULAR_BY_DATE, "holds itself"),
        (Point, "type has no JSON form"),
    ],
)
def test_what_json_has_no_form_for_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(EventRefused, match=rf"not JSON: .*{reason}"):
        to_json(value)


def test_a_body_has_the_members_of_an_event_in_order_and_no_id() -> None:
    body = encode_body("alice", "a.b", {"x": 1}, scope={"kind": "k", "id": "1"}, max_bytes=1000)
    assert list(json.loads(body)) == ["type", "ts", "user_id", "topic", "scope", "payload"]
    assert json.loads(body)["topic"] == "user:alice"


@pytest.mark.parametrize(
    ("user", "event_type", "payload", "reason"),
    [
        ("", "a.b", {}, "user id"),
        ("\ud800", "a.b", {}, "user id"),
        ("alice", "", {}, "dotted name"),
        ("alice", "ready", {}, "dotted name such as 'report.ready'.*not 'ready'"),
        ("alice", "report..ready", {}, "dotted name"),
        ("alice", ".ready", {}, "dotted name"),
        ("alice", "report.", {}, "dotted name"),
        ("alice", "report.ready\n", {}, "dotted name"),
        ("alice", "report.r\u00e9ady", {}, "dotted name"),
        ("alice", "report ready.now", {}, "dotted name"),
        ("alice", None, {}, "dotted name"),
        ("alice", ["a.b"], {}, "dotted name"),
        ("alice", "backlog.truncated", {}, "what a stream says of itself"),
        ("alice", "a.b", [1], "mapping, not list"),
        ("alice", "a.b", {"x": "y" * 1000}, "EVENT_MAX_BYTES allows 500"),
    ],
)
def test_a_bad_event_is_refused_with_its_reason(
    user: str, event_type: Any, payload: Any, reason: str
) -> None:
    with pytest.raises(EventRefused, match=reason):
        encode_body(user, event_type, payload, scope=None, max_bytes=500)


@pytest.mark.parametrize("event_type", ["a.b", "Report_1.is-ready.7", "source.ingest.queued"])
def test_any_other_dotted_name_is_taken_whatever_its_payload(event_type: str) -> None:
    body = encode_body("alice", event_type, {"of": "its own"}, scope=None, max_bytes=500)
    assert json.loads(body)["type"] == event_type

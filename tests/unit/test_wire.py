from __future__ import annotations

import json

import pytest

from shared import keys, wire
from shared.errors import MalformedCursor


@pytest.mark.parametrize(
    ("text", "cursor"),
    [
        (None, None),
        ("", None),
        ("0", "0-0"),
        ("0-0", "0-0"),
        ("1718900000000", "1718900000000-0"),
        ("1718900000000-7", "1718900000000-7"),
        ("18446744073709551615-18446744073709551615", "18446744073709551615-18446744073709551615"),
        ("007-01", "7-1"),
    ],
)
def test_a_cursor_is_a_stream_id_or_absent(text: str | None, cursor: str | None) -> None:
    assert wire.parse_cursor(text) == cursor


@pytest.mark.parametrize(
    "text",
    ["x", "-1", "1-", "1-2-3", "1.5", " 1", "1\n", "18446744073709551616", "1-9" * 9, "\u0661"],
)
def test_anything_else_is_malformed(text: str) -> None:
    with pytest.raises(MalformedCursor):
        wire.parse_cursor(text)


def test_cursors_are_ordered_as_numbers() -> None:
    ids = ["9-0", "10-0", "10-2", "10-10", "18446744073709551615-0"]
    assert sorted(reversed(ids), key=wire.cursor_key) == ids


def test_an_events_frame_has_the_id_spliced_in_first() -> None:
    frame = wire.event_frame(b"5-1", b'{"type":"a.b","payload":{"list":[]}}')
    assert frame == b'id: 5-1\ndata: {"id":"5-1","type":"a.b","payload":{"list":[]}}\n\n'


def test_a_truncation_notice_has_no_id_and_names_the_cursor_to_go_on_with() -> None:
    frame = wire.truncated_frame("trimmed", "7-0", "6-0")
    assert not frame.startswith(b"id:")
    assert json.loads(frame.removeprefix(b"data: ")) == {
        "type": "backlog.truncated",
        "payload": {"reason": "trimmed", "oldest_retained_id": "7-0", "cursor": "6-0"},
    }


@pytest.mark.parametrize("user", ["a", "a}b", "{a}", "a:b", "a b", "ä/💥", "%7B"])
def test_every_key_of_a_user_has_the_same_hash_tag(user: str) -> None:
    names = [keys.topic(user), keys.stream(user), keys.run(user, "r"), keys.sources(user)]
    tags = {name[name.index("{") + 1 : name.index("}")] for name in names}
    assert len(tags) == 1
    assert all(name.count("{") == 1 and name.count("}") == 1 for name in names)


def test_different_users_have_different_keys() -> None:
    users = ["a", "A", "a}", "a%7D", "a:stream", "ä"]
    assert len({keys.stream(user) for user in users}) == len(users)


def test_a_messages_frame_is_its_sequence_number_and_its_payload_as_it_is() -> None:
    frame = wire.message_frame(7, b'{"type":"answer","answer":"\\u0000"}')
    assert frame == b'id: 7\ndata: {"type":"answer","answer":"\\u0000"}\n\n'

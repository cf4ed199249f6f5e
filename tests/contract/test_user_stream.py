"""The steps on a user's stream and on its connections, over fakeredis and over a real Redis.

Truncation is exact: a cursor is told that something is gone when, and only when, something after it
is, or nothing proves that it isn't.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import fakeredis
import pytest
import redis

from shared import keys, wire
from shared.encoding import encode_body
from shared.pages import (
    MOST_BYTES,
    MOST_ENTRIES,
    Page,
    Status,
    most_entries,
    page_commands,
    page_of,
)
from shared.scripts import script
from tests.commands import wait_until
from tests.conftest import RunningRedis

USER = "alice"
BODY = '{"type":"t"}'
HOUR_MS = 3_600_000
TOPIC = keys.topic(USER)
STREAM = keys.stream(USER)
CONNECTIONS = keys.connections(USER)
DETAILS = keys.connection_details(USER)
REPLAY = keys.replay(USER)


@pytest.fixture(params=["fakeredis", "redis"])
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    if request.param == "fakeredis":
        with fakeredis.FakeRedis(server=fakeredis.FakeServer()) as client:
            yield client
        return
    server: RunningRedis = request.getfixturevalue("redis_server")
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        yield client


# The steps, each called in one place.


def append(
    client: redis.Redis,
    *bodies: str,
    token: str = "token",
    again: bool = False,
    maxlen: int = 1000,
    ttl_ms: int = HOUR_MS,
) -> list[str]:
    args = [TOPIC, "PUBLISH", maxlen, ttl_ms, token, "1" if again else "", *bodies]
    reply: list[bytes] = script("append").run(client, [STREAM], args)
    return [entry_id.decode() for entry_id in reply]


def put(client: redis.Redis, entry_id: str, prev: str, body: str = BODY) -> None:
    """An entry as the step makes it, with an id of the test's choice."""
    client.xadd(STREAM, {"p": prev, "t": "", "e": body}, id=entry_id)


def read(client: redis.Redis, cursor: str, limit: int = MOST_ENTRIES) -> Page:
    """One page, as the web process asks for it."""
    with client.pipeline(transaction=True) as pipeline:
        for command in page_commands(USER, cursor, limit):
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
        return page_of(cursor, limit, *map(_raw, pipeline.execute()))


def _raw(rows: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[tuple[bytes, list[bytes]]]:
    """Entries as they are on the wire, where redis-py has made dictionaries of their fields."""
    return [(entry_id, [part for pair in f.items() for part in pair]) for entry_id, f in rows]


def read_all(client: redis.Redis, cursor: str, limit: int = MOST_ENTRIES) -> tuple[Page, list[str]]:
    """The first page, and the ids of all that is sent until the journal's end."""
    page = first = read(client, cursor, limit)
    sent = page.frames
    while page.more:
        page = read(client, page.end, limit)
        sent += page.frames
    frames = sent.decode().split("\n\n")[:-1]
    return first, [frame.partition("\n")[0].removeprefix("id: ") for frame in frames]


@dataclass
class Admission:
    verdict: str
    answer: Any  # the stream's last id, or ms to wait


def admit(
    client: redis.Redis,
    connection: str = "one",
    *,
    cursor: str = "",
    most: int = 0,
    budget: int = 0,
    lease_ms: int = HOUR_MS,
    window_ms: int = HOUR_MS,
) -> Admission:
    args = [connection, lease_ms, most, budget, window_ms, cursor, f'{{"is":"{connection}"}}']
    verdict, answer = script("admit").run(client, [CONNECTIONS, DETAILS, REPLAY, STREAM], args)
    return Admission(verdict.decode(), answer.decode() if verdict == b"ok" else answer)


def renew(
    client: redis.Redis, connection: str = "one", *, at: str = "0-0 0", lease_ms: int = HOUR_MS
) -> tuple[str, int]:
    mark = keys.ended_connection(USER, connection)
    args = [connection, lease_ms, 2 * HOUR_MS, at, f'{{"is":"{connection}"}}']
    last_id, ended = script("renew").run(client, [CONNECTIONS, DETAILS, STREAM, mark], args)
    return last_id.decode(), ended


def end(client: redis.Redis, connection: str) -> int:
    step_keys = [CONNECTIONS, DETAILS, keys.ended_connection(USER, connection)]
    ended: int = script("end_connection").run(
        client, step_keys, [connection, TOPIC, "PUBLISH", HOUR_MS]
    )
    return ended


def listed(client: redis.Redis) -> list[tuple[str, ...]]:
    rows = script("list_connections").run(client, [CONNECTIONS, DETAILS], [])
    return [tuple(part.decode() for part in row) for row in rows]


@pytest.fixture
def announced(client: redis.Redis) -> Iterator[Any]:
    """Takes what has been announced since it was last asked."""
    with client.pubsub() as channel:  # type: ignore[no-untyped-call]
        channel.subscribe(TOPIC)
        wait_until(lambda: channel.get_message(timeout=0.1), "subscribed")

        def take() -> list[bytes]:
            client.publish(TOPIC, "the end")
            found: list[bytes] = []
            while True:
                message = channel.get_message(timeout=5)
                assert message is not None
                if message["data"] == b"the end":
                    return found
                found.append(message["data"])

        yield take


def now_ms(client: redis.Redis) -> int:
    seconds, micros = client.time()
    return seconds * 1000 + micros // 1000


# Truncation.


def key(cursor: str) -> tuple[int, int]:
    return wire.cursor_key(cursor)


def after(cursor: str) -> str:
    """The position right after another, which nobody has been given."""
    ms, seq = key(cursor)
    return f"{ms}-{seq + 1}" if seq < 2**64 - 1 else f"{ms + 1}-0"


def check(client: redis.Redis, ids: Sequence[str], cursors: Sequence[str], limit: int) -> set[str]:
    """Compares every cursor's answer with what really is gone; returns the verdicts seen.

    Args:
        client: to a journal to which `ids` were appended, and nothing else.
        ids: of every entry that there ever was in this life of the journal, in order.
        cursors: what to ask for.
        limit: of each page.
    """
    rows: Any = client.xrange(STREAM)
    retained = [row[0].decode() for row in rows]
    positions = ["0-0", *ids]
    edge = positions[-len(retained) - 1]
    verdicts = set()
    for cursor in cursors:
        page, sent = read_all(client, cursor, limit)
        if cursor in positions and key(cursor) >= key(edge):
            expected, start = Status.OK, cursor
        elif key(cursor) < key(edge):
            expected, start = Status.TRIMMED, edge
        else:
            expected, start = Status.JOURNAL_RESET, edge
        assert (page.status, page.start) == (expected, start), cursor
        assert page.oldest_id == (retained[0] if retained else None)
        assert sent == [entry_id for entry_id in retained if key(entry_id) > key(start)], cursor
        verdicts.add(str(page.status))
    return verdicts


@pytest.mark.parametrize("limit", [7, MOST_ENTRIES])
@pytest.mark.parametrize("maxlen", [1000, 40], ids=["all-retained", "trimmed"])
def test_each_of_503_cursors_is_told_exactly_what_is_gone(
    client: redis.Redis, maxlen: int, limit: int
) -> None:
    ids = [entry_id for _ in range(250) for entry_id in append(client, BODY, maxlen=maxlen)]
    retained = client.xlen(STREAM)
    assert retained >= min(maxlen, 250), "`~` may keep more than asked for, and never less"
    assert (retained < 250) is (maxlen < 250)
    given = set(ids)
    invented = [position for position in map(after, ids) if position not in given]
    cursors = ["0-0", *ids, *invented, "1-1", wire.LARGEST]
    assert len(cursors) <= 503
    verdicts = check(client, ids, cursors, limit)
    assert verdicts == ({"ok", "journal_reset"} | ({"trimmed"} if maxlen < 250 else set()))


@pytest.mark.parametrize("retained", [7, 6, 4, 2, 1])
def test_ids_of_any_length_compare_as_numbers(client: redis.Redis, retained: int) -> None:
    most = 2**64 - 1
    ids = ["1-1", f"9-{most}", "10-0", "99-5", "100-0", f"{most - 1}-3", f"{most}-{most - 1}"]
    for prev, entry_id in zip(["0-0", *ids], ids, strict=False):
        put(client, entry_id, prev)
    client.xtrim(STREAM, maxlen=retained, approximate=False)
    near = ["0-1", "1-0", "2-0", "9-0", f"9-{most - 1}", "10-1", "98-99", "99-6", f"99-{most}"]
    far = ["101-0", f"{2**53}-0", f"{2**53 + 1}-0", f"{most - 1}-2", f"{most - 1}-4", f"{most}-0"]
    check(client, ids, ["0-0", *ids, *near, *far, f"{most}-{most - 2}", wire.LARGEST], 2)


def test_the_position_on_the_edge_of_what_was_trimmed_has_missed_nothing(
    client: redis.Redis,
) -> None:
    ids = append(client, *[BODY] * 10)
    client.xtrim(STREAM, maxlen=4, approximate=False)
    assert read(client, ids[5]).status is Status.OK
    assert read(client, ids[4]).status is Status.TRIMMED


def test_where_a_notice_says_to_go_on_is_good_until_more_is_trimmed(client: redis.Redis) -> None:
    ids = append(client, *[BODY] * 10)
    client.xtrim(STREAM, maxlen=4, approximate=False)
    go_on = read(client, ids[0]).start
    assert read(client, go_on).status is Status.OK
    client.xtrim(STREAM, maxlen=2, approximate=False)
    page, sent = read_all(client, go_on)
    assert (page.status, sent) == (Status.TRIMMED, ids[8:])


def test_an_empty_journal_has_everything_after_its_beginning_and_knows_no_cursor(
    client: redis.Redis,
) -> None:
    nothing = Page(Status.OK, "0-0", None, 0, "0-0", b"", more=False)
    reset = Page(Status.JOURNAL_RESET, "0-0", None, 0, "0-0", b"", more=False)
    assert read(client, "0-0") == nothing
    assert read(client, "5-0") == reset
    ids = append(client, *[BODY] * 3)
    client.xtrim(STREAM, maxlen=0, approximate=False)
    assert read(client, "0-0") == nothing
    assert [read(client, cursor) for cursor in ids] == [reset] * 3


def test_a_journal_that_expired_is_told_and_nothing_is_repeated(client: redis.Redis) -> None:
    entry_id = append(client, BODY, ttl_ms=30)[0]
    wait_until(lambda: not client.exists(STREAM), "expired")
    page = read(client, entry_id)
    assert (page.status, page.start, page.frames) == (Status.JOURNAL_RESET, "0-0", b"")
    assert read(client, page.end).status is Status.OK


def test_a_journal_that_was_lost_and_filled_again_is_told_and_all_of_it_follows(
    client: redis.Redis,
) -> None:
    old = append(client, *[BODY] * 3)
    client.delete(STREAM)
    wait_until(lambda: now_ms(client) > key(old[-1])[0], "later")
    new = append(client, *[BODY] * 3)
    assert not set(old) & set(new)
    for cursor in old:
        page, sent = read_all(client, cursor)
        assert (page.status, page.start, sent) == (Status.JOURNAL_RESET, "0-0", new)


def test_another_users_cursor_or_one_of_the_future_is_told(client: redis.Redis) -> None:
    ids = append(client, *[BODY] * 3)
    first_ms, (ms, seq) = key(ids[0])[0], key(ids[-1])
    for cursor in (f"{first_ms - 1}-0", f"{ms}-{seq + 9}", f"{ms + 1_000_000}-0", wire.LARGEST):
        page, sent = read_all(client, cursor)
        assert (page.status, sent) == (Status.JOURNAL_RESET, ids)


# Pages.


def test_a_page_has_as_many_entries_as_it_may_and_says_whether_more_remain(
    client: redis.Redis,
) -> None:
    ids = append(client, *[BODY] * 10)
    page = read(client, "0-0", 4)
    assert (page.number, page.end, page.more, page.last_id) == (4, ids[3], True, None)
    page = read(client, ids[5], 4)
    assert (page.number, page.end, page.more, page.last_id) == (4, ids[9], False, ids[9])
    page = read(client, ids[9], 4)
    assert (page.number, page.end, page.more, page.last_id) == (0, ids[9], False, ids[9])


def test_a_page_has_a_mebibyte_at_most(client: redis.Redis) -> None:
    body = json.dumps({"text": "x" * 16_000})
    ids = [append(client, body)[0] for _ in range(150)]
    page = read(client, "0-0")
    frame = len(page.frames) // page.number
    assert len(page.frames) <= MOST_BYTES < len(page.frames) + frame
    assert page.more
    assert read_all(client, "0-0")[1] == ids


def test_an_entry_that_is_larger_than_a_page_comes_alone(client: redis.Redis) -> None:
    large = json.dumps({"text": "x" * (MOST_BYTES + 1)})
    ids = append(client, BODY, large, BODY)
    assert read(client, "0-0").end == ids[0]
    page = read(client, ids[0])
    assert (page.number, page.end, page.more) == (1, ids[1], True)
    assert read_all(client, "0-0")[1] == ids


def test_redis_answers_four_mebibytes_at_most() -> None:
    assert most_entries(16_384) == MOST_ENTRIES
    for size in (1, 16_384, 100_000, 1_000_000):
        assert (most_entries(size) + 1) * size <= 4 * MOST_BYTES
    assert most_entries(50_000_000) == 1


# Appending.


def test_what_is_announced_and_what_is_replayed_are_the_same_bytes(
    client: redis.Redis, announced: Any
) -> None:
    payloads: list[dict[str, Any]] = [
        {},
        {"list": [], "object": {}, "big": 2**60, "small": 1e-300, "float": 1.0},
        {"text": 'é \u2028 \U0001f600 \\ " \r\n\n data: id: \x00 %s %b %%'},
    ]
    bodies = [encode_body(USER, "a.b", p, scope=None, max_bytes=10_000) for p in payloads]
    ids = append(client, *bodies)
    frames = []
    for prev, entry_id, said in zip(["0-0", *ids], ids, announced(), strict=False):
        before, itself, frame = said.split(b" ", 2)
        assert (before.decode(), itself.decode()) == (prev, entry_id)
        frames.append(frame)
    assert len(frames) == 3
    assert read(client, "0-0").frames == b"".join(frames)
    for entry_id, body, payload, frame in zip(ids, bodies, payloads, frames, strict=True):
        assert frame == wire.event_frame(entry_id.encode(), body.encode())
        event = json.loads(frame.partition(b"\ndata: ")[2])
        assert (event["id"], event["payload"]) == (entry_id, payload)


def test_each_entry_knows_the_one_before_it_also_where_that_is_trimmed(
    client: redis.Redis,
) -> None:
    ids = [append(client, BODY, maxlen=1)[0] for _ in range(3)] + append(client, BODY, BODY)
    client.xtrim(STREAM, maxlen=3, approximate=False)
    rows: Any = client.xrange(STREAM)
    assert [fields[b"p"].decode() for _, fields in rows] == ids[1:4]


def test_a_step_that_is_repeated_appends_and_announces_nothing(
    client: redis.Redis, announced: Any
) -> None:
    ids = append(client, BODY, BODY, BODY, token="a")
    append(client, BODY, token="b")
    assert len(announced()) == 4
    assert append(client, BODY, BODY, BODY, token="a", again=True) == ids
    assert announced() == []
    assert client.xlen(STREAM) == 4


def test_a_step_whose_first_try_never_arrived_is_done_when_it_is_repeated(
    client: redis.Redis, announced: Any
) -> None:
    append(client, BODY, token="a")
    ids = append(client, BODY, BODY, token="b", again=True)
    assert len(announced()) == 3
    assert append(client, BODY, BODY, token="b", again=True) == ids
    assert client.xlen(STREAM) == 3


def test_what_was_trimmed_before_the_repetition_has_no_id_and_is_not_appended_again(
    client: redis.Redis,
) -> None:
    ids = append(client, BODY, BODY, BODY, token="a")
    client.xtrim(STREAM, maxlen=2, approximate=False)
    assert append(client, BODY, BODY, BODY, token="a", again=True) == ["", *ids[1:]]
    assert client.xlen(STREAM) == 2


def test_a_stream_lives_for_as_long_as_its_last_event_says(client: redis.Redis) -> None:
    append(client, BODY, ttl_ms=1000)
    append(client, BODY, ttl_ms=HOUR_MS)
    assert HOUR_MS - 10_000 < int(client.pttl(STREAM)) <= HOUR_MS


# Places and replays.


def test_as_many_are_let_in_as_may_be_and_no_more(client: redis.Redis) -> None:
    for connection in ("one", "two", "three"):
        assert admit(client, connection, most=3).verdict == "ok"
    refused = admit(client, "four", most=3)
    assert refused.verdict == "connections"
    assert client.zcard(CONNECTIONS) == 3
    assert client.hlen(DETAILS) == 6
    assert admit(client, "four", most=0).verdict == "ok", "0 is any number"


def test_who_is_refused_a_place_hears_when_the_first_lease_may_end(client: redis.Redis) -> None:
    admit(client, "one", most=2, lease_ms=HOUR_MS)
    admit(client, "two", most=2, lease_ms=5_000)
    before: Any = client.zrange(CONNECTIONS, 0, -1, withscores=True)
    assert 4_000 < admit(client, "three", most=2).answer <= 5_000
    assert client.zrange(CONNECTIONS, 0, -1, withscores=True) == before, "and renews nothing"


def test_a_lease_that_nobody_renews_ends_by_itself(client: redis.Redis) -> None:
    admit(client, "keeps", most=2, lease_ms=HOUR_MS)
    admit(client, "loses", most=2, lease_ms=30)
    wait_until(lambda: admit(client, "next", most=2).verdict == "ok", "a place")
    assert {row[0] for row in listed(client)} == {"keeps", "next"}
    assert client.hlen(DETAILS) == 4, "what was known of it is gone with it"
    assert client.zcard(CONNECTIONS) == 2


def test_keys_of_connections_end_with_the_last_lease(client: redis.Redis) -> None:
    admit(client, "one", lease_ms=5_000)
    for name in (CONNECTIONS, DETAILS):
        assert 4_000 < int(client.pttl(name)) <= 5_000
    admit(client, "two", lease_ms=HOUR_MS)
    admit(client, "three", lease_ms=5_000)  # of a process whose keepalives are more frequent
    renew(client, "one", lease_ms=5_000)
    for name in (CONNECTIONS, DETAILS):
        assert HOUR_MS - 10_000 < int(client.pttl(name)) <= HOUR_MS


def test_replays_are_counted_in_a_window_that_begins_with_the_first(client: redis.Redis) -> None:
    for _ in range(3):
        assert admit(client, cursor="0-0", budget=3, window_ms=5_000).verdict == "ok"
    left = int(client.pttl(REPLAY))
    refused = admit(client, cursor="0-0", budget=3, window_ms=HOUR_MS)
    assert refused.verdict == "replays"
    assert 4_000 < refused.answer <= left, "exactly until the window ends"


def test_a_replay_that_is_denied_costs_nothing_and_renews_nothing(client: redis.Redis) -> None:
    admit(client, "one", cursor="0-0", budget=1, window_ms=5_000)
    lease: Any = client.zscore(CONNECTIONS, "one")
    for _ in range(20):
        assert admit(client, "two", cursor="0-0", budget=1).verdict == "replays"
    assert client.get(REPLAY) == b"1"
    assert int(client.pttl(REPLAY)) <= 5_000
    assert client.zrange(CONNECTIONS, 0, -1) == [b"one"], "nor does it take a place"
    assert client.zscore(CONNECTIONS, "one") == lease


def test_a_window_that_ended_begins_anew(client: redis.Redis) -> None:
    assert admit(client, cursor="0-0", budget=1, window_ms=30).verdict == "ok"
    wait_until(
        lambda: admit(client, cursor="0-0", budget=1, window_ms=5_000).verdict == "ok", "anew"
    )
    assert client.get(REPLAY) == b"1"
    assert int(client.pttl(REPLAY)) > 4_000


def test_who_begins_at_the_end_replays_nothing(client: redis.Redis) -> None:
    admit(client, cursor="0-0", budget=1)
    for _ in range(5):
        assert admit(client, budget=1).verdict == "ok"
    assert client.get(REPLAY) == b"1"


def test_who_is_refused_a_place_is_charged_no_replay(client: redis.Redis) -> None:
    admit(client, "one", most=1)
    assert admit(client, "two", cursor="0-0", most=1, budget=5).verdict == "connections"
    assert client.get(REPLAY) is None


def test_who_is_let_in_hears_where_the_stream_ends(client: redis.Redis) -> None:
    assert admit(client).answer == "0-0"
    last = append(client, BODY, BODY)[-1]
    assert admit(client).answer == last
    assert admit(client, cursor="0-0").answer == last


# Leases of the living.


def test_a_renewed_lease_begins_again(client: redis.Redis) -> None:
    admit(client, "one", lease_ms=5_000)
    before: Any = client.zscore(CONNECTIONS, "one")
    assert renew(client, "one", lease_ms=HOUR_MS) == ("0-0", 0)
    after_it: Any = client.zscore(CONNECTIONS, "one")
    assert HOUR_MS - 10_000 < after_it - before <= HOUR_MS
    assert int(client.pttl(CONNECTIONS)) > 5_000
    assert int(client.pttl(DETAILS)) > 5_000


def test_a_renewal_tells_where_the_stream_ends_and_keeps_it(client: redis.Redis) -> None:
    admit(client)
    last = append(client, BODY, ttl_ms=5_000)[0]
    assert renew(client) == (last, 0)
    assert int(client.pttl(STREAM)) > HOUR_MS, "a stream that somebody watches does not expire"


def test_a_renewal_brings_back_what_was_lost(client: redis.Redis) -> None:
    admit(client, "one")
    for lost in ((CONNECTIONS, DETAILS), (DETAILS,), (CONNECTIONS,)):
        client.delete(*lost)
        assert renew(client, "one", at="7-0 1") == ("0-0", 0)
        assert listed(client) == [("one", '{"is":"one"}', "7-0 1")]
        assert min(int(client.pttl(name)) for name in (CONNECTIONS, DETAILS)) > 0


def test_connections_are_listed_with_where_they_stood_at_the_last_renewal(
    client: redis.Redis,
) -> None:
    last = append(client, BODY)[0]
    admit(client, "live", lease_ms=HOUR_MS)
    admit(client, "replays", cursor="5-0", lease_ms=HOUR_MS + 1000)
    rows = [("live", '{"is":"live"}', f"{last} 0"), ("replays", '{"is":"replays"}', "5-0 0")]
    assert listed(client) == rows
    renew(client, "live", at="9-9 1", lease_ms=HOUR_MS + 5000)
    assert listed(client) == [rows[1], ("live", '{"is":"live"}', "9-9 1")]


def test_a_connection_whose_lease_ended_is_not_listed(client: redis.Redis) -> None:
    admit(client, "lives")
    admit(client, "ended", lease_ms=30)
    renew(client, "lives")  # keeps the keys
    wait_until(lambda: [row[0] for row in listed(client)] == ["lives"], "not listed")


def test_a_connection_whose_details_were_lost_is_listed_from_its_next_renewal(
    client: redis.Redis,
) -> None:
    admit(client, "one")
    client.hdel(DETAILS, "one", "one.at")
    assert listed(client) == []
    renew(client, "one")
    assert [row[0] for row in listed(client)] == ["one"]


def test_the_end_of_a_connection_frees_its_place_and_is_announced(
    client: redis.Redis, announced: Any
) -> None:
    admit(client, "one", most=1)
    assert end(client, "one") == 1
    assert announced() == [b"!end one"]
    assert listed(client) == []
    assert client.hlen(DETAILS) == 0
    assert admit(client, "two", most=1).verdict == "ok"


def test_an_end_whose_announcement_was_lost_is_told_at_the_next_renewal(
    client: redis.Redis,
) -> None:
    last = append(client, BODY)[0]
    admit(client, "one", most=1)
    admit(client, "other")
    end(client, "one")
    assert renew(client, "one") == (last, 1)
    assert [row[0] for row in listed(client)] == ["other"], "it takes no place again"
    assert renew(client, "other") == (last, 0)
    assert HOUR_MS - 10_000 < int(client.pttl(keys.ended_connection(USER, "one"))) <= HOUR_MS


def test_the_end_of_no_connection_is_refused_and_leaves_no_trace(
    client: redis.Redis, announced: Any
) -> None:
    admit(client, "one")
    for name in ("two", "", "one.at"):
        assert end(client, name) == 0
    assert announced() == []
    assert [row[0] for row in listed(client)] == ["one"]
    assert not client.keys(keys.ended_connection(USER, "*"))

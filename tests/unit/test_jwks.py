"""When public keys are fetched, and what holds while they can't be."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.commands import wait_until
from tests.signing import key_server, rsa_jwk
from web.jwks import FRESH_SECONDS, MOST_WAITING, PAUSE_SECONDS, KeySet, fetch_jwks
from web.refusal import Refusal


class Source:
    """Keys, a clock, and how often they were asked for."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.now = 1000.0
        self.asked = 0
        self.answer: Exception | None = None

    def fetch(self) -> object:
        self.asked += 1
        if self.answer is not None:
            raise self.answer
        return {"keys": [rsa_jwk(name) for name in self.names]}

    def key_set(self) -> KeySet:
        return KeySet(self.fetch, lambda: self.now)


def found(keys: KeySet, kid: str) -> str | None:
    key = keys.find("RS256", kid)
    return None if key is None else key.key_id


def test_keys_are_fetched_once_and_kept() -> None:
    source = Source("one")
    keys = source.key_set()
    assert [found(keys, "one") for _ in range(3)] == ["one"] * 3
    assert source.asked == 1


def test_a_new_key_is_found_and_a_withdrawn_one_is_forgotten() -> None:
    source = Source("one")
    keys = source.key_set()
    assert found(keys, "one") == "one"
    source.names = ["two"]
    source.now += PAUSE_SECONDS
    assert keys.blocks("RS256", "two")
    assert found(keys, "two") == "two"
    assert found(keys, "one") is None


def test_unknown_keys_are_asked_for_at_most_every_ten_seconds() -> None:
    source = Source("one")
    keys = source.key_set()
    for number in range(50):
        assert found(keys, f"made up {number}") is None
        source.now += 0.1
    assert source.asked == 1
    source.now += PAUSE_SECONDS
    assert found(keys, "made up") is None
    assert source.asked == 2


def test_what_no_key_can_ever_verify_asks_for_nothing() -> None:
    source = Source("one")
    keys = source.key_set()
    assert found(keys, "one")
    source.now += FRESH_SECONDS
    assert keys.find("HS256", "one") is None
    assert not keys.blocks("none", None)
    assert source.asked == 1


def test_old_keys_are_fetched_again_and_stay_good_where_that_fails() -> None:
    source = Source("one")
    keys = source.key_set()
    assert found(keys, "one") == "one"
    source.now += FRESH_SECONDS
    source.answer = httpx.ConnectError("away")
    assert not keys.blocks("RS256", "one")
    assert found(keys, "one") == "one"
    wait_until(lambda: keys._under_way is None, "the second fetch")
    assert found(keys, "one") == "one"
    assert source.asked == 2, "not again within ten seconds"


@pytest.mark.parametrize(
    "answer", [httpx.ReadTimeout("slow"), httpx.InvalidURL("odd"), ValueError("no JSON")]
)
def test_where_no_key_can_be_had_nobody_is_called_a_stranger(answer: Exception) -> None:
    source = Source("one")
    source.answer = answer
    keys = source.key_set()
    for _ in range(3):
        with pytest.raises(Refusal) as raised:
            keys.find("RS256", "one")
        assert raised.value.status == 503
        assert raised.value.headers["Retry-After"] == "2"
    assert source.asked == 1
    source.answer = None
    source.now += PAUSE_SECONDS
    assert found(keys, "one") == "one"


@pytest.mark.parametrize("answer", [None, [], {}, {"keys": 1}, "keys"])
def test_what_is_no_key_set_counts_as_a_failure(answer: Any) -> None:
    with pytest.raises(Refusal, match="can't be reached"):
        KeySet(lambda: answer).find("RS256", "one")


def test_members_that_are_no_keys_spoil_no_other() -> None:
    members = [None, 7, {}, {"kty": ["RSA"]}, {"kty": "RSA", "kid": "one"}, rsa_jwk("one")]
    assert found(KeySet(lambda: {"keys": members}), "one") == "one"


def test_many_at_once_fetch_once_and_all_are_answered() -> None:
    source = Source("one")
    asking: list[int] = []

    def clock() -> float:
        asking.append(threading.get_ident())
        return source.now

    def fetch() -> object:
        wait_until(lambda: len(set(asking)) == 8, "all are asking")
        return source.fetch()

    keys = KeySet(fetch, clock)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(found, [keys] * 8, ["one"] * 8)) == ["one"] * 8
    assert source.asked == 1


def test_nobody_waits_for_a_fetch_whose_key_is_at_hand() -> None:
    source = Source("one")
    arrived, answered = threading.Event(), threading.Event()

    def fetch() -> object:
        if source.asked:
            arrived.set()
            answered.wait(10)
        return source.fetch()

    keys = KeySet(fetch, lambda: source.now)
    assert found(keys, "one") == "one"
    source.now += FRESH_SECONDS
    try:
        assert [found(keys, "one") for _ in range(3)] == ["one"] * 3
        assert not keys.blocks("RS256", "one")
        wait_until(arrived.is_set, "the second fetch")
        assert source.asked == 1
    finally:
        answered.set()


def hanging(source: Source) -> tuple[KeySet, threading.Event]:
    """Keys at hand, from a server that from now on hangs until the event is set."""
    answered = threading.Event()

    def fetch() -> object:
        if source.asked:
            answered.wait(30)
        return source.fetch()

    keys = KeySet(fetch, lambda: source.now)
    assert found(keys, "one") == "one"
    source.now += PAUSE_SECONDS
    return keys, answered


def test_a_flood_of_unknown_keys_makes_few_wait_and_none_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("web.jwks.WAIT_SECONDS", 30.0)
    source = Source("one")
    keys, answered = hanging(source)

    def status(number: int) -> int:
        try:
            keys.find("RS256", f"made up {number}")
        except Refusal as refusal:
            return refusal.status
        return 401

    with ThreadPoolExecutor(MOST_WAITING + 20) as pool:
        asking = [pool.submit(status, number) for number in range(MOST_WAITING + 20)]
        wait_until(lambda: sum(each.done() for each in asking) == 20, "20 are answered")
        assert {each.result() for each in asking if each.done()} == {503}
        assert found(keys, "one") == "one"
        source.now += 31  # since the fetch began: nobody waits for it any more
        assert status(0) == 503
        answered.set()
        assert [each.result() for each in asking].count(401) == MOST_WAITING


def test_a_server_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.jwks.FETCH_SECONDS", 0.2)
    with key_server(rsa_jwk("one")) as server:
        server.pause_seconds = 0.05
        with pytest.raises(TimeoutError):
            fetch_jwks(server.url)


def test_keys_come_over_http_and_the_address_stays_out_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with key_server(rsa_jwk("one")) as server:
        url = server.url.replace("//", "//name:password@")
        keys = KeySet(lambda: fetch_jwks(url))
        assert found(keys, "one") == "one"
        server.status = 500
        with pytest.raises(Refusal), caplog.at_level(logging.WARNING):
            KeySet(lambda: fetch_jwks(url)).find("RS256", "one")
    assert "HTTPStatusError" in caplog.text
    assert "password" not in caplog.text

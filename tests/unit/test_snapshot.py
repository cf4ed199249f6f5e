"""What is read once for many."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.errors import RedisUnavailable
from tests.commands import wait_until
from web.snapshot import Snapshot


def test_whoever_asks_meanwhile_gets_the_same_reading() -> None:
    gate, read = threading.Event(), []

    def slow() -> int:
        gate.wait(10)
        read.append(1)
        return len(read)

    snapshot = Snapshot(slow)
    with ThreadPoolExecutor(10) as threads:
        asked = [threads.submit(snapshot.get) for _ in range(10)]
        gate.set()
        assert {each.result()[1] for each in asked} == {1}
    snapshot.expire()
    assert snapshot.get()[1] == 2
    wait_until(lambda: snapshot.get()[1] == 3, "read anew after a second")


def test_a_failure_is_told_to_all_who_ask_within_a_second() -> None:
    tried = []

    def fail() -> int:
        tried.append(1)
        raise RedisUnavailable

    snapshot = Snapshot(fail)
    for _ in range(5):
        with pytest.raises(RedisUnavailable):
            snapshot.get()
    assert len(tried) == 1

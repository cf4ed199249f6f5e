"""What is read once for many."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.errors import RedisUnavailable
from tests.commands import wait_until
from web.shared_reading import SharedReading


def test_whoever_asks_meanwhile_gets_the_same_reading() -> None:
    gate, read = threading.Event(), []

    def slow() -> int:
        gate.wait(10)
        read.append(1)
        return len(read)

    reading = SharedReading(slow)
    with ThreadPoolExecutor(10) as threads:
        asked = [threads.submit(reading.get) for _ in range(10)]
        gate.set()
        assert {each.result()[1] for each in asked} == {1}
    reading.expire()
    assert reading.get()[1] == 2
    wait_until(lambda: reading.get()[1] == 3, "read anew after a second")


def test_a_failure_is_told_to_all_who_ask_within_a_second() -> None:
    tried = []

    def fail() -> int:
        tried.append(1)
        raise RedisUnavailable

    reading = SharedReading(fail)
    depths = []
    for _ in range(5):
        with pytest.raises(RedisUnavailable) as raised:
            reading.get()
        depths.append(len(raised.traceback))
    assert len(tried) == 1
    assert depths[1:] == depths[1:2] * 4, "its traceback does not grow"

from __future__ import annotations

import asyncio
from weakref import ref

import pytest

from web.wheel import Wheel

TICK_SECONDS = 0.01


class Item:
    """Is due a number of times, so far apart."""

    def __init__(self, times: int, apart_seconds: float, *, fails: bool = False) -> None:
        self.left = times
        self.apart_seconds = apart_seconds
        self.fails = fails
        self.called_at: list[float] = []
        self.is_over = asyncio.Event()

    def due(self) -> float | None:
        now = asyncio.get_running_loop().time()
        self.called_at.append(now)
        self.left -= 1
        if self.left == 0:
            self.is_over.set()
        if self.fails:
            raise ValueError("broken")
        return now + self.apart_seconds if self.left else None


def test_each_is_called_at_its_time_and_never_before() -> None:
    async def go() -> None:
        wheel, loop = Wheel(TICK_SECONDS), asyncio.get_running_loop()
        begin = loop.time()
        items = [Item(3, 0.05), Item(1, 0), Item(2, 0.1)]
        for item in items:
            wheel.add(item, begin + 0.03)
        async with asyncio.timeout(10):
            await asyncio.gather(*[item.is_over.wait() for item in items])
        for item in items:
            assert item.called_at[0] >= begin + 0.03
            gaps = zip(item.called_at, item.called_at[1:], strict=False)
            assert all(later - earlier >= item.apart_seconds for earlier, later in gaps)

    asyncio.run(go())


def test_one_that_fails_does_not_keep_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        wheel, loop = Wheel(TICK_SECONDS), asyncio.get_running_loop()
        broken, good = Item(1, 0, fails=True), Item(2, 0.02)
        for item in (broken, good):
            wheel.add(item, loop.time())
        async with asyncio.timeout(10):
            await good.is_over.wait()

    asyncio.run(go())
    assert "something that was due failed" in caplog.text


def test_nobody_waits_in_memory_for_a_time_that_means_nothing_any_more() -> None:
    async def go() -> None:
        wheel, loop = Wheel(TICK_SECONDS), asyncio.get_running_loop()
        gone, other = Item(1, 0), Item(1, 0)
        wheel.add(gone, loop.time() + 3600)
        seen = ref(gone)
        del gone
        assert seen() is None
        wheel.add(other, loop.time())
        async with asyncio.timeout(10):
            await other.is_over.wait()

    asyncio.run(go())


def test_a_wheel_that_has_stopped_calls_nothing() -> None:
    async def go() -> None:
        wheel, loop = Wheel(TICK_SECONDS), asyncio.get_running_loop()
        item, other = Item(1, 0), Item(1, 0)
        wheel.add(item, loop.time())
        wheel.stop()
        wheel.add(other, loop.time())
        async with asyncio.timeout(10):
            await other.is_over.wait()
        assert item.called_at == []

    asyncio.run(go())

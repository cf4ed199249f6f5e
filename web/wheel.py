"""A timer wheel: one timer for all that is due some time, however many wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Hashable)


class Wheel(Generic[T]):
    """Calls `due(item)` at an item's time, to within a tick.

    `due` returns the item's next time (of the loop's clock, in seconds), or None for never again.
    """

    def __init__(self, due: Callable[[T], float | None], tick_seconds: float) -> None:
        self._due = due
        self._tick_seconds = tick_seconds
        self._slots: dict[int, list[T]] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._turned = 0  # the last slot that was called

    def add(self, item: T, when: float) -> None:
        """Has `due` called for an item at a time; a time that has passed is the next tick."""
        if self._timer is None:
            self._turned = int(self._loop.time() / self._tick_seconds)
            self._wait()
        slot = max(int(when / self._tick_seconds), self._turned) + 1
        self._slots.setdefault(slot, []).append(item)

    def stop(self) -> None:
        """Calls nothing any more."""
        self._slots.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._timer = self._loop.call_later(self._tick_seconds, self._turn)

    def _turn(self) -> None:
        now = int(self._loop.time() / self._tick_seconds)
        due: list[T] = []
        for slot in range(self._turned + 1, now + 1):
            due += self._slots.pop(slot, ())
        self._turned = now
        for item in due:
            try:
                again = self._due(item)
            except Exception:  # the timer's edge: the others are due all the same
                log.exception("something that was due failed")
                continue
            if again is not None:
                self.add(item, again)
        if self._slots:
            self._wait()
        else:
            self._timer = None

"""A timer wheel: one timer for all that is due some time, however many wait for it.

It keeps nobody alive: of clients that come and go, hundreds of megabytes would wait for their time.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol
from weakref import ref

log = logging.getLogger(__name__)


class Timed(Protocol):
    """Something that has to do something at its time."""

    def due(self) -> float | None:
        """Does it; returns its next time (of the loop's clock), or None for never again."""


class Wheel:
    """Calls `due()` of each at its time, to within a tick."""

    def __init__(self, tick_seconds: float) -> None:
        self._tick_seconds = tick_seconds
        self._slots: dict[int, list[ref[Timed]]] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._turned = 0  # the last slot that was called

    def add(self, timed: Timed, when: float) -> None:
        """Has it called at a time of the loop's clock; one that has passed is the next tick."""
        if self._timer is None:
            self._turned = int(self._loop.time() / self._tick_seconds)
            self._wait()
        slot = max(int(when / self._tick_seconds), self._turned) + 1
        self._slots.setdefault(slot, []).append(ref(timed))

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
        due: list[ref[Timed]] = []
        for slot in range(self._turned + 1, now + 1):
            due += self._slots.pop(slot, ())
        self._turned = now
        for reference in due:
            timed = reference()
            if timed is None:
                continue
            try:
                again = timed.due()
            except Exception:  # the timer's edge: the others are due all the same
                log.exception("something that was due failed")
                continue
            if again is not None:
                self.add(timed, again)
        if self._slots:
            self._wait()
        else:
            self._timer = None

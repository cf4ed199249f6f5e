"""The machine under the benchmark: cores, descriptors, and what processes use."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import psutil

SETTLE_SECONDS = 15.0
SETTLE_STEP_SECONDS = 0.5
SETTLED_PART = 0.002


@cache
def cores() -> tuple[int, int]:
    """The core for the server, and the one for everything else; the same where there is one.

    To be called first before anything is pinned.
    """
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[-1]


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Pins this thread to a core for the block. Children that it makes stay there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_descriptor_limit() -> int:
    """Lets this process and its children open as many files as they may; returns how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


class Footprint:
    """What a process and its descendants use together."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)

    def _all(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """User and system time since they started."""
        return sum(times.user + times.system for times in (p.cpu_times() for p in self._all()))

    def memory_bytes(self) -> int:
        """Resident memory, added up."""
        return sum(process.memory_info().rss for process in self._all())

    def descriptors(self) -> int:
        """Open file descriptors, added up."""
        return sum(process.num_fds() for process in self._all())

    def settled_memory_bytes(self) -> int:
        """Resident memory once it hardly changes any more."""
        deadline = time.monotonic() + SETTLE_SECONDS
        before = self.memory_bytes()
        while time.monotonic() < deadline:
            time.sleep(SETTLE_STEP_SECONDS)
            now = self.memory_bytes()
            if abs(now - before) < SETTLED_PART * before:
                return now
            before = now
        return before

    def settled_descriptors(self, wanted: int) -> int:
        """Open descriptors once they are no more than wanted, or after a while."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while (now := self.descriptors()) > wanted and time.monotonic() < deadline:
            time.sleep(SETTLE_STEP_SECONDS)
        return now

"""What many ask for at once is read once: ten who look cost as much as one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from shared.encoding import now_iso

T = TypeVar("T")

GOOD_SECONDS = 1.0


class SharedReading(Generic[T]):
    """The latest reading of something, at most a second old. Thread-safe."""

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._latest: tuple[str, T] | Exception | None = None
        self._good_until = 0.0

    def get(self) -> tuple[str, T]:
        """When it was read (ISO 8601), and what was; whoever comes meanwhile waits for the same.

        Raises:
            Exception: what reading it raises, for all who ask within a second of that too.
        """
        with self._lock:
            if self._latest is None or time.monotonic() >= self._good_until:
                try:
                    self._latest = now_iso(), self._read()
                except Exception as error:  # it is told to whoever asks
                    self._latest = error
                self._good_until = time.monotonic() + GOOD_SECONDS
            if isinstance(self._latest, Exception):
                raise self._latest.with_traceback(None)  # else it grows with each who asks
            return self._latest

    def expire(self) -> None:
        """Has the next one read it anew: it was changed."""
        with self._lock:
            self._good_until = 0.0

"""A circuit: what has just failed for one fails at once for all.

Without it everybody would wait for a server that hangs, each for a timeout and one after another.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.errors import RedisUnavailable

PAUSE_SECONDS = 1.0


class Circuit:
    """Open for a second after a failure; then one may try, and its success closes it.

    No lock, so that a fork can't copy a held one: where threads race, a second one tries.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._is_open = False
        self._again_at = -math.inf

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Watches what asks Redis.

        Raises:
            RedisUnavailable: it failed, or the circuit is open and nothing was tried.
        """
        now = self._clock()
        if now < self._again_at:
            raise RedisUnavailable
        if self._is_open:
            self._again_at = now + PAUSE_SECONDS  # the others share this one's fate
        try:
            yield
        except RedisUnavailable:
            self._is_open = True
            self._again_at = self._clock() + PAUSE_SECONDS
            raise
        self._is_open = False
        self._again_at = -math.inf

"""A Redis that takes its time, for what must not wait for it, or must outlast it."""

from __future__ import annotations

import time
from typing import Any


class SlowRedis:
    """A client whose every step takes some time."""

    def __init__(self, client: Any, seconds: float) -> None:
        self._client = client
        self._seconds = seconds

    def execute_command(self, *args: Any) -> Any:
        time.sleep(self._seconds)
        return self._client.execute_command(*args)

    def eval(self, *args: Any) -> Any:
        return self._client.eval(*args)

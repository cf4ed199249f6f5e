"""The reaper as a process of its own: `python -m tests.scenarios.reaper`."""

from __future__ import annotations

import time
from contextlib import suppress

import redis

from tests.scenarios.app import app
from worker import reaper

EVERY_SECONDS = 0.5


def main() -> None:
    app.finalize()
    reaper.LOOK_AGAIN_SECONDS = EVERY_SECONDS  # type: ignore[assignment]
    print("reaper ready.", flush=True)
    while True:
        with suppress(redis.ConnectionError, redis.TimeoutError):
            reaper.reap()
        time.sleep(EVERY_SECONDS)


if __name__ == "__main__":
    main()

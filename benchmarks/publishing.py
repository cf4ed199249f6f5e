"""What publishing costs one process that does nothing else: microseconds a call, and an event.

A program of its own: `publishing.py CALLS` prints JSON. `REDIS_URL` names the Redis.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from shared.publisher import publish_user_event

BATCH = 100
WARM_UP = 200
USER = "publisher"
EVENT_TYPE = "benchmark.tick"
PAYLOAD = {"padding": "x" * 130}  # makes an event of about 256 bytes

PublishMany = Callable[[str, Sequence[tuple[str, dict[str, Any]]]], Any]


def main(calls: int) -> None:
    _call(WARM_UP)
    figures = {"call_us": _microseconds_each(_call, calls), "batch_us": None}
    publish_many = getattr(importlib.import_module("shared.publisher"), "publish_user_events", None)
    if publish_many is not None:
        batches = _batches(publish_many)
        batches(WARM_UP)
        figures["batch_us"] = _microseconds_each(batches, calls)
    print(json.dumps(figures))


def _microseconds_each(publish: Callable[[int], None], count: int) -> float:
    began = time.perf_counter()
    publish(count)
    return (time.perf_counter() - began) / count * 1e6


def _call(count: int) -> None:
    for _ in range(count):
        if publish_user_event(USER, EVENT_TYPE, PAYLOAD) is None:
            raise SystemExit("an event was not journaled")


def _batches(publish_many: PublishMany) -> Callable[[int], None]:
    def publish(count: int) -> None:
        for _ in range(count // BATCH):
            publish_many(USER, [(EVENT_TYPE, PAYLOAD)] * BATCH)

    return publish


if __name__ == "__main__":
    main(int(sys.argv[1]))

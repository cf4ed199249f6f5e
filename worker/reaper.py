"""The reaper: beat has it look at runs whose deadline passed, so that no run stays open for ever.

Any number may run side by side: each decision is one atomic step.
"""

from __future__ import annotations

import json
import time
from typing import Any

from celery import current_app, shared_task

from shared import keys
from shared.connections import redis_client
from shared.facts import Succeeded
from shared.runs import TERMINAL, RunRef, lapse, submit
from shared.settings import get_settings

BATCH = 100


@shared_task(name="worker.reap", ignore_result=True, acks_late=False)
def reap() -> int:
    """Closes runs, or marks them stalled, whose deadline passed; returns how many it looked at."""
    return sum(reap_shard(number) for number in range(keys.OPEN_SHARDS))


def reap_shard(number: int) -> int:
    """Does the same for one of the sixteen sets of open runs."""
    client = redis_client(get_settings().require_redis_url())
    shard = keys.open_shard(number)
    members: Any = client.zrangebyscore(shard, "-inf", time.time() * 1000, start=0, num=BATCH)
    for member in members:
        ref = RunRef.from_header(json.loads(member))
        deadline_ms = None if ref is None else _look_at(ref)
        if deadline_ms is None:
            client.zrem(shard, member)
        else:
            client.zadd(shard, {member: deadline_ms})
    return len(members)


def _look_at(ref: RunRef) -> int | None:
    """Returns when to look again, as a Unix time in ms; None for never."""
    result = current_app.AsyncResult(ref.final)
    if result.state == "SUCCESS":  # stored, but its signal was lost
        value = result.result
        submit(ref, Succeeded(task=ref.final, result=value if isinstance(value, dict) else {}))
    outcome = lapse(ref)
    return None if outcome.status in TERMINAL else outcome.deadline_ms

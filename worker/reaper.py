"""The reaper: beat has it look at runs whose deadline passed, so that no run stays open for ever.

Any number may run side by side: each decision is one atomic step.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from celery import current_app, shared_task

from shared import keys
from shared.connections import app_redis
from shared.facts import Succeeded
from shared.runs import TERMINAL, RunRef, lapse, submit

BATCH = 100
LOOK_AGAIN_SECONDS = 30

log = logging.getLogger(__name__)


@shared_task(name="worker.reap", ignore_result=True, acks_late=False)
def reap() -> int:
    """Closes runs, or marks them stalled, whose deadline passed; returns how many it looked at."""
    return sum(reap_shard(number) for number in range(keys.OPEN_SHARDS))


def reap_shard(number: int) -> int:
    """Does the same for one of the sixteen sets of open runs."""
    client = app_redis()
    shard = keys.open_shard(number)
    members: Any = client.zrangebyscore(shard, "-inf", time.time() * 1000, start=0, num=BATCH)
    for member in members:
        ref = RunRef.from_header(json.loads(member))
        again_ms = (time.time() + LOOK_AGAIN_SECONDS) * 1000
        try:
            is_open = ref is not None and _look_at(ref)
        except Exception:  # one run's trouble must not keep the others open
            log.exception("the reaper could not look at %s", ref)
            is_open = True
        if is_open:
            client.zadd(shard, {member: again_ms})
        else:
            client.zrem(shard, member)
    return len(members)


def _look_at(ref: RunRef) -> bool:
    """Returns whether the run is still open."""
    outcome = lapse(ref, "ask")
    for task in outcome.tasks:
        result = current_app.AsyncResult(task)
        if result.state == "SUCCESS":  # stored, but its signal was lost
            value = result.result
            submit(ref, Succeeded(task=task, result=value if isinstance(value, dict) else {}))
    if outcome.tasks:
        outcome = lapse(ref, "fail")
    return outcome.status not in TERMINAL | {""}

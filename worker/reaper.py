"""The reaper: a thread of beat that looks at runs whose deadline passed, so that none stays open.

It is no task: a busy or dead worker must not keep the truth from users. Any number may run side by
side: each decision is one atomic step.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from celery import Celery

from shared import keys
from shared.errors import RedisUnavailable
from shared.facts import Fact, Failed, Succeeded
from shared.runs import TERMINAL, Outcome, RunRef, lapse, submit
from shared.settings import get_settings
from shared.steps import reachable_redis
from worker.failures import describe
from worker.logs import suffix
from worker.message_reaper import MessageReaper
from worker.results import Results

REAP_EVERY_SECONDS = 10
BATCH = 100
MOST_BATCHES = 100  # of one shard in a round
LOOK_AGAIN_SECONDS = 30  # a run is looked at so often, whatever its deadlines

log = logging.getLogger(__name__)


class Reaper:
    """Looks at open runs, and asks the result backend of one application."""

    def __init__(self, app: Celery) -> None:
        self._results = Results(app)

    def run(self) -> None:
        """Looks every ten seconds, or as often as the lease is long, for as long as the process."""
        every_seconds = min(REAP_EVERY_SECONDS, get_settings().ingest_lease_seconds)
        was_away = False
        while True:
            time.sleep(every_seconds)
            try:
                if was_away:  # who is at work renews its lease first
                    with reachable_redis() as client:
                        client.ping()
                    was_away = False
                else:
                    self.reap()
            except RedisUnavailable as error:
                log.warning("the reaper waits for Redis: %s", error.__cause__)
                was_away = True
            except Exception:  # the thread's edge: runs would stay open
                log.exception("the reaper failed, and looks again")

    def reap(self) -> int:
        """Closes runs, or marks them stalled, whose deadline passed; returns how many it saw.

        Raises:
            RedisUnavailable: Redis did not answer.
        """
        seen = 0
        for number in range(keys.OPEN_SHARDS):
            for _ in range(MOST_BATCHES):
                size = self.reap_batch(number)
                seen += size
                if size < BATCH:
                    break
        return seen

    def reap_batch(self, number: int) -> int:
        """Does so for what is due in one of the sixteen sets of open runs, at most a hundred."""
        shard = keys.open_shard(number)
        with reachable_redis() as client:
            seconds, microseconds = client.time()  # deadlines are by Redis's clock
            now_ms = seconds * 1000 + microseconds // 1000
            claim_ms = now_ms + LOOK_AGAIN_SECONDS * 1000
            members: Any = client.zrangebyscore(shard, "-inf", now_ms, start=0, num=BATCH)
            if members:  # should this reaper die, another one looks
                client.zadd(shard, dict.fromkeys(members, claim_ms), xx=True)
        for member in members:
            try:
                self._settle(shard, member, claim_ms)
            except RedisUnavailable:
                raise
            except Exception:  # one run's trouble must not keep the others open
                log.exception("the reaper could not look at %r", member)
        return len(members)

    def _settle(self, shard: str, member: bytes, claim_ms: int) -> None:
        ref = RunRef.from_header(json.loads(member))
        outcome = self.look_at(ref) if ref is not None else None
        with reachable_redis() as client:
            if outcome is None or outcome.status in TERMINAL | {""}:
                client.zrem(shard, member)
            elif outcome.next_ms is not None and outcome.next_ms < claim_ms:
                # A fact that came meanwhile may have set an earlier one.
                client.zadd(shard, {member: outcome.next_ms}, xx=True, lt=True)

    def look_at(self, ref: RunRef) -> Outcome:
        """Decides what became of a run, by its deadlines and by the result backend.

        Raises:
            RedisUnavailable: Redis did not answer.
        """
        outcome = lapse(ref, "ask")
        if not outcome.tasks:
            return outcome
        for task in outcome.tasks:
            if self._is_told(ref, task):
                break
        outcome = lapse(ref, "fail")
        if outcome.ended:
            log.warning(
                "nothing is heard of run=%s source=%s user=%s: it has failed",
                *(ref.run_id, ref.source_id, ref.user_id),
            )
        return outcome

    def _is_told(self, ref: RunRef, task: str) -> bool:
        try:
            return self._tell(ref, task)
        except RedisUnavailable:
            raise
        except Exception:  # what a backend gives back is anything, and the run is to end
            log.exception("the stored end of task %s can't be told%s", task, suffix(ref))
            return False

    def _tell(self, ref: RunRef, task: str) -> bool:
        """Reports an end that is stored, but whose signal was lost; whether the run is over."""
        fact: Fact
        match self._results.ending_of(task):
            case "SUCCESS", value:
                fact = Succeeded(task=task, result=value if isinstance(value, Mapping) else {})
            case "FAILURE", exception if _was_sent(ref, task):
                error, details = describe(exception)
                fact = Failed(task=task, error=error, details=details)
            case _:  # of a task that was never sent: an earlier one failed, and the step says so
                return False
        outcome = submit(ref, fact)
        if outcome is None:
            raise RedisUnavailable
        return outcome.status in TERMINAL


def _was_sent(ref: RunRef, task: str) -> bool:
    with reachable_redis() as client:
        return bool(client.hexists(keys.run(ref.user_id, ref.run_id), f"task:{task}"))


class ReaperThread:
    """Runs the reapers in the beat process of one application, once."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._process: int | None = None

    def start(self, sender: Any, **_: Any) -> None:
        """beat_init, beat_embedded_init: an embedded beat sends both."""
        if sender.app is not self._app or self._process == os.getpid():
            return
        self._process = os.getpid()
        for name, reaper in (("runs", Reaper(self._app)), ("messages", MessageReaper())):
            threading.Thread(
                target=reaper.run, name=f"eventstream-reaper-{name}", daemon=True
            ).start()

"""Two workers on one queue, and messages that come again while their task still runs."""

from __future__ import annotations

import signal
from functools import partial

from tests.scenarios.app import UNDECODABLE
from tests.scenarios.bench import Bench
from tests.scenarios.cases import EARLY, LATE, PROCESSES, Cases, Seen, Victim

cases = Cases("With messages that come again", "{pool}-two-workers")
scenario = partial(cases.add, pools=PROCESSES)
AGAIN = "(started( \\d)?, (progress, )?)+"


def ascends(seen: Seen) -> None:
    """No event of an execution that another has replaced."""
    assert seen.attempts == sorted(seen.attempts)


@scenario(
    "It takes longer than its message is hidden, on two workers",
    "queued, started, progress, started 2 and so on, completed",
    varies=f"queued, {AGAIN}completed",
    acks=LATE,
    then=ascends,
)
def _(bench: Bench) -> None:
    bench.send("take_time", seconds=5)


@scenario(
    "It waits longer for its time than its message is hidden, on two workers, and is revoked",
    "queued, cancelled: revoked",
)
def _(bench: Bench) -> None:
    result = bench.send("succeed", {"countdown": 5})
    bench.app.control.revoke(result.id)


@scenario(
    "It waits longer for its time than its message is hidden, on two workers",
    "queued, started, started 2 and so on, completed",
    varies="queued, started, (started \\d, )*completed",
    then=ascends,
)
def _(bench: Bench) -> None:
    bench.send("succeed", {"countdown": 5})


@scenario(
    "It retries at once, on two workers",
    "queued, started, retrying, started 2, completed",
    varies="queued, started, (retrying, )?started 2, completed",
    then=ascends,
)
def _(bench: Bench) -> None:
    bench.send("retry_once", countdown=0)


@scenario(
    "Its message is no JSON, and Celery drops it", "queued, failed: never_started", acks=EARLY
)
def _(bench: Bench) -> None:
    bench.send("succeed", {"serializer": UNDECODABLE})


@scenario(
    "Its worker is killed, and no other comes",
    "queued, started, stalled: worker_lost, failed: worker_lost",
    acks=LATE,
    victim=Victim("killed-alone", signal.SIGKILL, heir=False),
)
def _(bench: Bench) -> None:
    bench.send("take_forever_once")
    bench.see("started")
    bench.strike()

"""A pool's processes that are killed under their tasks."""

from __future__ import annotations

import os
import signal

from tests.scenarios.bench import Bench
from tests.scenarios.cases import (
    EARLY,
    LATE,
    PROCESSES,
    Cases,
    Seen,
    ran_once,
)

cases = Cases("With its process")
scenario = cases.add


# Celery tells nobody of the dead process, and may take longer than a lease to send it again.
PERHAPS_STALLED = "(stalled: worker_lost, )?"


@scenario("Its process is killed", "queued, started, failed: worker_lost", pools=PROCESSES)
def _(bench: Bench) -> None:
    bench.send("die")


@scenario(
    "Its process is killed, with reject_on_worker_lost",
    "queued, started, started 2, completed",
    varies=f"queued, started, {PERHAPS_STALLED}started 2, completed",
    pools=PROCESSES,
    acks=LATE,
)
def _(bench: Bench) -> None:
    bench.send("die_and_come_again")


def died_three_times(seen: Seen) -> None:
    assert seen.marks == ["died"] * 3


@scenario(
    "Its process is killed each time, with reject_on_worker_lost",
    "queued, started, started 2, started 3, failed: poison",
    varies=f"queued, (started( \\d)?, {PERHAPS_STALLED}){{3}}failed: poison",
    pools=PROCESSES,
    acks=LATE,
    then=died_three_times,
)
def _(bench: Bench) -> None:
    bench.send("die_again_and_again")


@scenario(
    "Its process is killed, with retry_on_worker_lost",
    "queued, started, retrying, started 2, completed",
    pools=PROCESSES,
)
def _(bench: Bench) -> None:
    bench.send("die_and_retry")


@scenario(
    "Its process is killed until no retry_on_worker_lost is left",
    "queued, started, retrying, started 2, failed: worker_lost",
    pools=PROCESSES,
)
def _(bench: Bench) -> None:
    bench.send("die_until_retries_run_out")


@scenario(
    "Its process is killed when its result is stored and nobody is told",
    "queued, started, completed",
    pools=PROCESSES,
    then=ran_once,
)
def _(bench: Bench) -> None:
    bench.send("die_before_ok")


@scenario(
    "Its process is killed when its success was told",
    "queued, started, completed",
    pools=PROCESSES,
    then=ran_once,
)
def _(bench: Bench) -> None:
    bench.send("die_after_ok")


@scenario(
    "Its process is killed when its retry was told",
    "queued, started, retrying, started 2, completed",
    pools=PROCESSES,
)
def _(bench: Bench) -> None:
    bench.send("die_after_retry")


def ended_unheard(seen: Seen) -> None:
    """The frozen body came to its end, and nobody was told."""
    assert "ended" in seen.marks[1:]


@scenario(
    "Its process freezes for longer than a lease",
    "queued, started, failed: worker_lost",
    pools=PROCESSES,
    acks=EARLY,
    then=ended_unheard,
)
@scenario(
    "Its process freezes for longer than a lease",
    "queued, started, stalled: worker_lost, started 2, completed",
    pools=PROCESSES,
    acks=LATE,
    then=ended_unheard,
)
def _(bench: Bench) -> None:
    bench.send("freeze_once")
    bench.wait(lambda: bench.marks, "its process id")
    pid = int(bench.marks[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        bench.see("completed" if bench.case.late else "failed: worker_lost")
    finally:
        os.kill(pid, signal.SIGCONT)
    ends = 2 if bench.case.late else 1
    bench.wait(lambda: bench.marks.count("ended") == ends, "the end of its body")

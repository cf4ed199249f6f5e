"""Tasks that are revoked, that expire, and runs that their user cancels."""

from __future__ import annotations

from celery import uuid

from tests.scenarios.bench import Bench
from tests.scenarios.cases import (
    PROCESSES,
    THREADS,
    Cases,
    Seen,
    ran_once,
)

cases = Cases("By being called off")
scenario = cases.add


@scenario(
    "It is revoked while it waits for its time", "queued, cancelled: revoked", pools=PROCESSES
)
def _(bench: Bench) -> None:
    result = bench.send("succeed", {"countdown": 2})
    bench.app.control.revoke(result.id)


@scenario(
    "It is revoked while it runs",
    "queued, started, progress, completed",
    pools=PROCESSES,
)
def _(bench: Bench) -> None:
    result = bench.send("take_time")
    bench.see("started")
    bench.app.control.revoke(result.id)


@scenario(
    "It is revoked with terminate while it runs",
    "queued, started, progress, cancelled: revoked",
    varies="queued, started, progress, (stalled: interrupted, (progress, )?)?cancelled: revoked",
    pools=PROCESSES,
)
def _(bench: Bench) -> None:
    result = bench.send("take_time", seconds=30)
    bench.see("started", "progress")
    bench.app.control.revoke(result.id, terminate=True)


@scenario(
    "It is revoked with terminate while it runs",
    "queued, started, progress, completed",
    pools=THREADS,
)
def _(bench: Bench) -> None:
    result = bench.send("take_time", seconds=1)
    bench.see("started", "progress")
    bench.app.control.revoke(result.id, terminate=True)


@scenario(
    "It is revoked with terminate after its end, in a receiver of the team's own",
    "queued, started, completed",
    pools=PROCESSES,
)
def _(bench: Bench) -> None:
    result = bench.send("linger")
    bench.see("completed")
    bench.app.control.revoke(result.id, terminate=True)


@scenario("It expires before it is run", "queued, failed: expired")
def _(bench: Bench) -> None:
    bench.send("succeed", {"expires": -1})


@scenario(
    "It is revoked while no worker is there, which nobody remembers",
    "queued, started, completed",
    then=ran_once,
)
def _(bench: Bench) -> None:
    task_id = uuid()
    bench.app.control.revoke(task_id, destination=["nobody@lab"])
    bench.send("succeed", {"task_id": task_id})


def never_ran(seen: Seen) -> None:
    assert seen.marks == []


@scenario(
    "Its user cancels it while it waits for its time",
    "queued, cancelled: cancelled",
    then=never_ran,
)
def _(bench: Bench) -> None:
    bench.send("succeed", {"countdown": 2})
    bench.cancel()


@scenario(
    "Its user cancels it while no worker is there", "queued, cancelled: cancelled", then=never_ran
)
def _(bench: Bench) -> None:
    message = bench.park("succeed")
    bench.cancel()
    bench.deliver(message)


def never_ended(seen: Seen) -> None:
    assert seen.marks == ["began"]


@scenario(
    "Its user cancels it while it runs",
    "queued, started, progress, cancelled: cancelled",
    then=never_ended,
)
def _(bench: Bench) -> None:
    bench.send("take_time", seconds=3)
    bench.see("started", "progress")
    bench.cancel()

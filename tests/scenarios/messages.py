"""Messages that come twice, that no worker can read, or that are never sent."""

from __future__ import annotations

import pytest

from tests.scenarios.app import NO_MAPPING
from tests.scenarios.bench import Bench
from tests.scenarios.cases import (
    EARLY,
    LATE,
    POOLED,
    Cases,
    Seen,
)

cases = Cases("With its message")
scenario = cases.add


def ran_both_attempts(seen: Seen) -> None:
    assert seen.marks == ["0", "1"]


@scenario(
    "Its first attempt's message comes again during the second attempt",
    "queued, started, retrying, started 2, completed",
    then=ran_both_attempts,
    acks=LATE,
    pools=POOLED,
)
def _(bench: Bench) -> None:
    message = bench.park("retry_once", countdown=0.1)
    bench.deliver(message)
    bench.see("started 2")
    bench.deliver(message)


@scenario("No worker knows it", "queued, failed: unknown_task")
def _(bench: Bench) -> None:
    message = bench.park("succeed")
    name = bench.task("succeed").name.encode()
    bench.deliver(message.replace(name, b"scenario.unknown"))


@scenario("Its keyword arguments are no mapping", "queued, failed: internal_error", acks=EARLY)
def _(bench: Bench) -> None:
    bench.send("succeed", {"serializer": NO_MAPPING})


@scenario("Its message has a content type that is refused", "queued, failed: rejected", acks=EARLY)
def _(bench: Bench) -> None:
    bench.send("succeed", {"serializer": "pickle"})


@scenario("The broker is away when it is sent", "queued, failed: not_sent")
def _(bench: Bench) -> None:
    from kombu import Connection
    from kombu.exceptions import OperationalError

    with (
        Connection(
            "redis://127.0.0.1:1/0", transport_options={"socket_connect_timeout": 1}
        ) as away,
        pytest.raises(OperationalError),
    ):
        bench.send("succeed", {"connection": away, "retry": False})


@scenario("It is called in the producer, by apply()", "", acks=EARLY)
def _(bench: Bench) -> None:
    bench.task("succeed").apply(kwargs=bench.who)

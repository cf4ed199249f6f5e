"""How tasks end by themselves, by their code and by their limits, on every pool."""

from __future__ import annotations

from typing import Any

import pytest
from celery import chain, chord, group

from tests.scenarios.app import NO_MAPPING
from tests.scenarios.bench import Bench
from tests.scenarios.cases import EARLY, LATE, POOLED, PROCESSES, Cases, Seen

cases = Cases("By its own doing")
scenario = cases.add


# Celery tells nobody of the dead process, and may take longer than a lease to send it again.
PERHAPS_STALLED = "(stalled: worker_lost, )?"


def ran_once(seen: Seen) -> None:
    assert seen.marks == ["ran"]


@scenario("It succeeds", "queued, started, completed", then=ran_once)
def _(bench: Bench) -> None:
    bench.send("succeed")


@scenario("It counts", "queued, started, progress, completed")
def _(bench: Bench) -> None:
    bench.send("count")


@scenario("It raises", "queued, started, failed: internal_error")
def _(bench: Bench) -> None:
    bench.send("fail")


@scenario("It raises an error for its user", "queued, started, failed: unreadable")
def _(bench: Bench) -> None:
    bench.send("refuse")


def tells_the_retry(seen: Seen) -> None:
    assert seen.attempts == [0, 1, 1, 2, 2]
    (retrying,) = seen.payloads("retrying")
    assert retrying["attempts"] == 3
    assert retrying["eta"] is not None
    assert retrying["error"]["code"] == "unreadable"


@scenario("It retries", "queued, started, retrying, started 2, completed", then=tells_the_retry)
def _(bench: Bench) -> None:
    bench.send("retry_once")


@scenario("It retries itself by autoretry_for", "queued, started, retrying, started 2, completed")
def _(bench: Bench) -> None:
    bench.send("retry_by_itself")


@scenario(
    "It retries until none is left", "queued, started, retrying, started 2, failed: unreadable"
)
def _(bench: Bench) -> None:
    bench.send("give_up")


def ran_both_attempts(seen: Seen) -> None:
    assert seen.marks == ["0", "1"]


@scenario(
    "It calls retry(throw=False) and returns",
    "queued, started, retrying, started 2, completed",
    then=ran_both_attempts,
)
def _(bench: Bench) -> None:
    bench.send("retry_and_return")


@scenario(
    "Its first attempt's message comes again during the second attempt",
    "queued, started, retrying, started 2, completed",
    then=ran_both_attempts,
    acks=LATE,
    pools=POOLED,
)
def _(bench: Bench) -> None:
    message = parked(bench, "retry_once", countdown=0.1)
    bench.broker.lpush(bench.queue, message)
    bench.see("started 2")
    bench.broker.lpush(bench.queue, message)


def parked(bench: Bench, name: str, **arguments: Any) -> Any:
    """The message of a task, as the broker holds it; taken from a queue that nobody consumes."""
    place = f"parked-{bench.user}"
    bench.send(name, {"queue": place}, **arguments)
    message = bench.broker.lpop(place)
    assert isinstance(message, bytes)
    return message.replace(place.encode(), bench.queue.encode())


@scenario("It raises Ignore", "queued, started, failed: ignored")
def _(bench: Bench) -> None:
    bench.send("ignore")


@scenario("It raises Reject(requeue=False)", "queued, started, failed: rejected")
def _(bench: Bench) -> None:
    bench.send("reject")


@scenario("It raises Reject(requeue=True)", "queued, started, failed: rejected", acks=EARLY)
def _(bench: Bench) -> None:
    bench.send("requeue")


@scenario(
    "It raises Reject(requeue=True)",
    "queued, started, stalled: interrupted, started 2, completed",
    acks=LATE,
)
def _(bench: Bench) -> None:
    bench.send("requeue")


@scenario("It calls sys.exit", "queued, started, failed: worker_lost", pools=POOLED)
def _(bench: Bench) -> None:
    bench.send("leave")


@scenario("Its exception can't be pickled", "queued, started, failed: internal_error")
def _(bench: Bench) -> None:
    bench.send("unpicklable")


@scenario("Its exception can't be shown", "queued, started, failed: internal_error")
def _(bench: Bench) -> None:
    bench.send("unprintable")


@scenario("Its result is no JSON", "queued, started, failed: internal_error")
def _(bench: Bench) -> None:
    bench.send("return_no_json")


def called_back(seen: Seen) -> None:
    assert set(seen.marks) == {"errback"}  # Celery sends it twice


@scenario(
    "It exceeds its hard time limit, with an errback",
    "queued, started, failed: time_limit",
    pools=PROCESSES,
    then=called_back,
)
def _(bench: Bench) -> None:
    errback = bench.app.tasks["scenario.errback"].s(user_id=bench.user).set(queue=bench.queue)
    bench.send("run_too_long", {"link_error": errback})
    bench.wait(lambda: "errback" in bench.marks, "the errback")


@scenario(
    "It exceeds its hard time limit, with acks_on_timeout=False",
    "queued, started, stalled: worker_lost, started 2, completed",
    pools=PROCESSES,
    acks=LATE,
)
def _(bench: Bench) -> None:
    bench.send("run_too_long_once")


@scenario("It exceeds its soft time limit", "queued, started, failed: time_limit", pools=PROCESSES)
def _(bench: Bench) -> None:
    bench.send("be_interrupted")


@scenario("It catches its soft time limit", "queued, started, completed", pools=PROCESSES)
def _(bench: Bench) -> None:
    bench.send("mind_the_limit")


@scenario(
    "Its soft time limit ends within the receiver that tells of its success",
    "queued, started, completed",
    pools=PROCESSES,
)
def _(bench: Bench) -> None:
    bench.send("be_interrupted_in_our_receiver")


@scenario("A receiver of the team's own raises", "queued, started, completed", then=ran_once)
def _(bench: Bench) -> None:
    bench.send("trip")


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
    pools=PROCESSES,
)
def _(bench: Bench) -> None:
    result = bench.send("take_time", seconds=30)
    bench.see("started", "progress")
    bench.app.control.revoke(result.id, terminate=True)


@scenario(
    "It is revoked with terminate while it runs",
    "queued, started, progress, completed",
    pools=("threads",),
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


@scenario("No worker knows it", "queued, failed: unknown_task")
def _(bench: Bench) -> None:
    message = parked(bench, "succeed")
    name = bench.task("succeed").name.encode()
    bench.broker.lpush(bench.queue, message.replace(name, b"scenario.unknown"))


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


def sums_once(seen: Seen) -> None:
    assert seen.marks == ["joined"]
    assert seen.payloads("completed")[0]["sum"] == 6


@scenario("A chain", "queued, started, completed")
def _(bench: Bench) -> None:
    steps = [bench.task("part").si(**bench.who, number=n) for n in range(3)]
    bench.send_canvas(chain(*steps))


@scenario("A chain whose second step fails", "queued, started, failed: unreadable")
def _(bench: Bench) -> None:
    first = bench.task("part").si(**bench.who, number=1)
    last = bench.task("succeed").si(**bench.who)
    bench.send_canvas(chain(first, bench.task("refuse").si(**bench.who), last))


@scenario("A group", "queued, started, completed")
def _(bench: Bench) -> None:
    bench.send_canvas(group(bench.task("part").si(**bench.who, number=n) for n in range(4)))


@scenario("A chord", "queued, started, completed", then=sums_once)
def _(bench: Bench) -> None:
    members = [bench.task("part").s(**bench.who, number=n) for n in range(4)]
    bench.send_canvas(chord(members, bench.task("join").s(**bench.who)))


@scenario("A chord of which a member fails", "queued, started, failed: unreadable")
def _(bench: Bench) -> None:
    members = [bench.task("part").s(**bench.who, number=1), bench.task("refuse").si(**bench.who)]
    bench.send_canvas(chord(members, bench.task("join").s(**bench.who)))


@scenario("It replaces itself by another task", "queued, started, completed", then=ran_once)
def _(bench: Bench) -> None:
    bench.send("become_another")


@scenario("It replaces itself by a chord", "queued, started, completed", then=sums_once)
def _(bench: Bench) -> None:
    bench.send("become_a_chord")


@scenario("It sends another task off", "queued, started, completed", then=ran_once)
def _(bench: Bench) -> None:
    bench.send("send_another_off")
    bench.wait(lambda: bench.marks == ["ran"], "the other task")


@scenario(
    "Another run of the same source is started while it runs",
    "queued, started, progress, cancelled: superseded, queued, started, completed",
    pools=POOLED,
)
def _(bench: Bench) -> None:
    bench.send("take_time", seconds=1)
    bench.see("started", "progress")
    bench.send("succeed")
    bench.see("completed")

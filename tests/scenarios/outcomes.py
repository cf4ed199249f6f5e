"""How tasks end by themselves, by their code and by their limits."""

from __future__ import annotations

from tests.scenarios.bench import Bench
from tests.scenarios.cases import (
    EARLY,
    LATE,
    POOLED,
    PROCESSES,
    THREADS,
    Cases,
    Seen,
    ran_once,
)

cases = Cases("By its own doing")
scenario = cases.add


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
    "queued, started, started 2, completed",
    then=ran_both_attempts,
)
def _(bench: Bench) -> None:
    bench.send("retry_and_return")


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


@scenario("It calls sys.exit", "queued, started, failed: worker_lost", pools=POOLED, acks=EARLY)
def _(bench: Bench) -> None:
    bench.send("leave")


@scenario(
    "It calls sys.exit",
    "queued, started, stalled: interrupted, failed: worker_lost",
    pools=PROCESSES,
    acks=LATE,
)
def _(bench: Bench) -> None:
    bench.send("leave")


@scenario(
    "It calls sys.exit",
    "queued, started, stalled: interrupted, started 2, completed",
    pools=THREADS,
    acks=LATE,
)
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

"""Tasks of every kind that canvases are made of, for the tests of runs that are one."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import redis
from celery import Task, chain, chord, group, shared_task, signals

from worker.ingest import IngestError, stage, track

INGEST = {"user": "user_id", "source": "source_id"}


class Broken(IngestError):
    """This can't be done."""

    code = "broken"


def ran(source_id: str, label: str) -> int:
    """Notes that a task's body ran; returns how often it did."""
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        client.rpush(f"ran:{source_id}", label)
        return int(client.incr(f"ran:{source_id}:{label}"))


@shared_task(base=Task, name="canvas.step", ingest=INGEST)
def step(user_id: str, source_id: str, label: str) -> dict[str, str]:
    """Tracked, without stages."""
    ran(source_id, label)
    return {"label": label}


@shared_task(base=Task, name="canvas.staged", ingest={**INGEST, "stages": {"read": 1, "write": 3}})
def staged(user_id: str, source_id: str, label: str) -> dict[str, str]:
    """Tracked, with two stages."""
    ran(source_id, label)
    with stage("read"):
        list(track(range(2)))
    with stage("write"):
        list(track(range(2)))
    return {"label": label}


@shared_task(base=Task, name="canvas.plain")
def plain(source_id: str, label: str) -> dict[str, str]:
    """Untracked."""
    ran(source_id, label)
    return {"label": label}


@shared_task(base=Task, name="canvas.waits")
def waits(source_id: str, label: str) -> None:
    """Untracked, and takes longer than a chord's unlock waits before it asks again."""
    time.sleep(2)
    ran(source_id, label)


@shared_task(base=Task, name="canvas.gather", ingest=INGEST)
def gather(results: list[Any], user_id: str, source_id: str, label: str) -> dict[str, Any]:
    """A chord's body that takes what its header returned."""
    ran(source_id, label)
    return {"label": label, "gathered": len(results)}


@shared_task(base=Task, name="canvas.breaks")
def breaks(source_id: str, label: str) -> None:
    """Untracked, and fails."""
    ran(source_id, label)
    raise Broken


@shared_task(base=Task, bind=True, name="canvas.retries", max_retries=2)
def retries(self: Any, source_id: str, label: str) -> dict[str, str]:
    """Untracked, and fails the first time."""
    if ran(source_id, label) == 1:
        raise self.retry(exc=Broken(), countdown=0.1)
    return {"label": label}


@shared_task(base=Task, bind=True, name="canvas.replaces", ingest=INGEST)
def replaces(self: Any, user_id: str, source_id: str, label: str, by: str) -> None:
    """Tracked, and puts a canvas in its own place."""
    ran(source_id, label)
    who = {"user_id": user_id, "source_id": source_id}
    one, two = (step.si(**who, label=f"{label}{n}") for n in (1, 2))
    quiet = plain.si(source_id, f"{label}3")
    canvases = {
        "task": one,
        "chain": chain(one, quiet),
        "group": group(one, quiet, two),
        "chord": chord([one, quiet], two),
        "broken": chord([one, breaks.si(source_id, f"{label}4")], two),
        "broken group": group(quiet, breaks.si(source_id, f"{label}4")),
    }
    raise self.replace(canvases[by])


@shared_task(base=Task, bind=True, name="canvas.hands_over", ingest=INGEST)
def hands_over(self: Any, user_id: str, source_id: str, label: str, by: str) -> None:
    """Tracked, and puts tasks of other sources in its own place."""
    ran(source_id, label)
    one, two, three = (step.si(user_id, f"{source_id}-{n}", f"{label}{n}") for n in (1, 2, 3))
    canvases = {
        "task": one,
        "chain": chain(one, two),
        "chain of one source": chain(one, one.clone()),
        "group": group(one, two),
        "chord": chord([one, chain(two, two.clone())], three),
    }
    raise self.replace(canvases[by])


@shared_task(base=Task, bind=True, name="canvas.dies", ingest=INGEST, max_retries=2)
def dies(self: Any, user_id: str, source_id: str, label: str, by: str) -> dict[str, str]:
    """Tracked; its process is killed when its next message is about to be published."""
    if ran(source_id, label) > 2:
        return {"label": label}
    if by == "retry":
        raise self.retry(exc=Broken(), countdown=0)
    raise self.replace(step.si(user_id=user_id, source_id=source_id, label=f"{label}1"))


def die_once(sender: str, headers: dict[str, Any], body: Any, **_: Any) -> None:
    """before_task_publish, after the project's own receiver."""
    source = body[1].get("source_id")
    is_next = headers.get("retries") or headers.get("replaced_task_nesting")
    if is_next and str(body[1].get("label")).startswith("dies") and ran(source, "killed") == 1:
        os.kill(os.getpid(), signal.SIGKILL)


signals.before_task_publish.connect(die_once, weak=False)


@shared_task(base=Task, name="canvas.starts")
def starts(user_id: str, source_id: str, label: str) -> str:
    """Untracked, and starts a run from within a worker."""
    from worker.pipeline import start_ingest

    members = [plain.si(source_id, f"{label}{n}") for n in range(3)]
    return start_ingest(group(members), user_id=user_id, source_id=source_id).run_id


@shared_task(base=Task, name="canvas.sends_off", ingest=INGEST)
def sends_off(user_id: str, source_id: str, label: str) -> None:
    """Tracked, and sends off a chain that its run does not wait for."""
    ran(source_id, label)
    who = {"user_id": user_id, "source_id": source_id}
    chain(step.si(**who, label=f"{label}1"), plain.si(source_id, f"{label}2")).apply_async(
        countdown=0.5
    )


@shared_task(base=Task, name="canvas.calls", ingest=INGEST)
def calls(user_id: str, source_id: str, label: str) -> None:
    """Tracked, and calls another task in place, which sends off what its run does not wait for."""
    sends_off.apply((user_id, source_id, label))


@shared_task(base=Task, name="canvas.mends", ingest=INGEST)
def mends(task_id: str, user_id: str, source_id: str, label: str) -> None:
    """An errback, tracked."""
    ran(source_id, label)

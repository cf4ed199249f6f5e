"""Which chords Celery left hanging: all members succeeded, and the body was not published in full.

It happens to a child that is killed after it stored its result and before it counted for the chord
(Celery then acknowledges the message), or while it is the one to send the body (the claim to do so
outlives it, and the message that comes again finds it taken). The run can then only fail, as
`chain_broken`, or as `never_started` where the child had said of the next task that it is about to
be sent; and that is the truth. What Celery's own result backend says is the evidence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import redis
from celery import Celery

from worker.canvas import Canvas, finals, is_plain, task_ids, tree, within

PUBLISHED = "soak:published"  # a set of task ids, each with its nesting
REPLACED = "soak:replaced:"  # a list for each source: ids of members, and of the body

# The ids of the members' ends; of each task that the body begins with, what publishing it notes.
Chord = tuple[list[str], list[list[str]]]


def note_published(client: Any, headers: Mapping[str, Any]) -> None:
    """To be called when the broker has a message."""
    client.sadd(PUBLISHED, _entry(headers["id"], headers.get("replaced_task_nesting") or 0))


def note_replaced(client: Any, source_id: str, members: list[str], body: str, nesting: int) -> None:
    """To be called before a task replaces itself by a chord."""
    entry = (members, [[_entry(body, nesting)]])
    client.rpush(REPLACED + source_id, json.dumps(entry))


def hangs(client: redis.Redis, app: Celery, source_id: str, canvas: Canvas) -> bool:
    """Whether a chord of a run hangs, as far as Celery's result backend tells."""
    replaced: Any = client.lrange(REPLACED + source_id, 0, -1)
    for members, body in (*_chords(canvas), *map(json.loads, replaced)):
        is_sent = all(any(client.smismember(PUBLISHED, entries)) for entries in body)
        if not is_sent and all(app.AsyncResult(task).state == "SUCCESS" for task in members):
            return True
    return False


def _chords(canvas: Canvas) -> Iterable[Chord]:
    for signature in tree(canvas):
        inner = within(signature)
        match signature.get("subtask_type"):
            case "chord":
                pairs = [(inner[:-1], inner[-1])]
            case "chain":
                pairs = [([a], b) for a, b in pairwise(inner) if not is_plain(a)]
            case _:
                pairs = []
        for header, body in pairs:
            members = [end for member in header for end in finals(member, lambda part: True)]
            yield members, [[_entry(task, n) for n in range(4)] for task in _firsts(body)]


def _firsts(canvas: Canvas) -> Iterable[str]:
    """The ids of the tasks that are published when a canvas is."""
    if is_plain(canvas):
        yield from task_ids(canvas)
        return
    inner = within(canvas)
    match canvas["subtask_type"]:
        case "chain":
            inner = inner[:1]
        case "chord":
            inner = inner[:-1]
    for signature in inner:
        yield from _firsts(signature)


def _entry(task_id: str, nesting: int) -> str:
    return f"{task_id} {nesting}"

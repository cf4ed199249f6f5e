"""How a tracked task begins: the start gate before its body, and the run named in its message.

`before_start` is the one place in Celery that can keep a body from running.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Mapping
from itertools import count
from math import inf
from typing import Any

import redis
from celery import Celery
from celery.exceptions import Ignore, ImproperlyConfigured

from shared.facts import Accepted, Started
from shared.runs import HEADER, TERMINAL, RunRef, new_run, point_to, submit
from worker.execution import Execution, current, enter
from worker.heartbeat import heartbeat

log = logging.getLogger(__name__)

GROUPS_REMEMBERED = 1000


def option(task: Any) -> Mapping[str, Any]:
    """The task's `ingest` option; empty where it is not tracked."""
    return getattr(task, "ingest", None) or {}


def gate_all(sender: Celery, **_: Any) -> None:
    """Puts the start gate before every tracked task that the application knows."""
    for task in sender.tasks.values():
        if option(task) and not getattr(type(task).before_start, "is_gate", False):
            _check(task)
            _gate(type(task))


def _check(task: Any) -> None:
    weights = option(task).get("stages", {})
    is_right = isinstance(weights, Mapping) and all(
        isinstance(weight, (int, float)) and 0 < weight < inf for weight in weights.values()
    )
    if not is_right or not {"user", "source"} <= set(option(task)):
        raise ImproperlyConfigured(
            f"The ingest option of {task.name} is {option(task)!r}. It takes 'user' and 'source', "
            "the names of the arguments with their ids, and 'stages', names with a weight over 0."
        )


def _gate(task_class: Any) -> None:
    own = task_class.before_start

    @functools.wraps(own)
    def before_start(task: Any, task_id: str, args: Any, kwargs: Any) -> None:
        _begin(task, task_id)
        own(task, task_id, args, kwargs)

    before_start.is_gate = True  # type: ignore[attr-defined]
    before_start.__module__ = __name__  # Celery skips what comes from its own module
    task_class.before_start = before_start


def _begin(task: Any, task_id: str) -> None:
    request = task.request
    ref = RunRef.from_header((request.headers or {}).get(HEADER))
    if ref is None:  # eager, or called without a message
        return
    beat = heartbeat()
    execution = Execution(
        ref, task_id, request.retries, request.replaced_task_nesting, beat.flush_later
    )
    lost, timeout = _comes_again(task)
    outcome = submit(
        ref,
        Started(
            task=task_id,
            nonce=execution.nonce,
            retries=request.retries,
            nesting=request.replaced_task_nesting,
            lost=lost,
            timeout=timeout,
            stages=option(task).get("stages", {}),
        ),
    )
    verdict = outcome.verdict if outcome else "ok"
    if verdict == "closed" and outcome and outcome.status == "completed" and task_id != ref.final:
        return  # sent off within a run that did not wait for it: it runs, and says nothing
    if verdict in ("closed", "duplicate"):
        log.info("task %s is not run: its run %s has ended", task_id, ref.run_id)
        raise Ignore
    enter(execution)
    beat.watch(execution)


def _comes_again(task: Any) -> tuple[bool, bool]:
    """Whether the broker redelivers after a lost worker, and after a hard time limit."""
    acks_on_timeout = getattr(task, "acks_on_timeout", None)
    if acks_on_timeout is None:
        acks_on_timeout = task.acks_on_failure_or_timeout
    late = bool(task.acks_late)
    return late and bool(task.reject_on_worker_lost), late and not acks_on_timeout


_group_runs: dict[str, int] = {}  # the number of each group's latest run: where to begin to look


def on_publish(app: Celery, sender: str, body: Any, headers: dict[str, Any], **_: Any) -> None:
    """before_task_publish: names the run in the message, and makes it exist if it is new."""
    task = app.tasks.get(sender)
    if HEADER in headers or not option(task):
        return
    owner = _owner(task, body[0], body[1])
    if owner is None:
        log.error("task %s is not tracked: %r names no user and source", sender, option(task))
        return
    execution = current()
    if execution and (execution.ref.user_id, execution.ref.source_id) == owner:
        execution.dispatched = True
        ref = execution.ref
    else:
        final = _final(app, body[2]) or headers["id"]
        ref = _accepted(owner, final, headers.get("group"))
    headers[HEADER] = ref.to_header()
    try:
        point_to(ref, headers["id"])
    except (redis.ConnectionError, redis.TimeoutError) as error:
        log.warning("no pointer from task %s to its run: %s", headers["id"], error)


def _accepted(owner: tuple[str, str], final: str, group: str | None) -> RunRef:
    """A run that exists: a new one, or the group's that is still open.

    A group's run may end before its last members are published: they share the next one, since
    a run of each one's own would supersede that of the one before.
    """
    if group is None:
        ref = new_run(*owner, owner[1], final=final)
        submit(ref, Accepted())
        return ref
    for number in count(_group_runs.get(group, 1)):
        ref = new_run(*owner, owner[1], final=final, group=f"{group} {number}")
        outcome = submit(ref, Accepted())
        if not (outcome and outcome.verdict == "duplicate" and outcome.status in TERMINAL):
            break
    _group_runs[group] = number
    if len(_group_runs) > GROUPS_REMEMBERED:
        _group_runs.pop(next(iter(_group_runs)), None)
    return ref


def _owner(task: Any, args: Any, kwargs: Any) -> tuple[str, str] | None:
    try:
        arguments = inspect.signature(task.run).bind_partial(*args, **kwargs).arguments
        user_id, source_id = (arguments[option(task)[key]] for key in ("user", "source"))
    except (KeyError, TypeError):
        return None
    owner = (str(user_id), str(source_id))
    return owner if all(owner) and None not in (user_id, source_id) else None


def _final(app: Celery, embed: Mapping[str, Any]) -> str | None:
    """The id of the task whose success will end the run: a chain's last tracked, a chord's body."""
    following = [*(embed.get("chain") or []), *filter(None, [embed.get("chord")])]
    for signature in following:  # a chain is kept last task first
        if option(app.tasks.get(signature.get("task"))):
            task_id = signature.get("options", {}).get("task_id")
            if task_id:
                return str(task_id)
    return None

"""The message of a task in a run: it names the run, and Redis knows of it before the broker."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from itertools import count
from typing import Any

from celery import _state

from shared.facts import Accepted, Sent
from shared.runs import HEADER, MANY, TERMINAL, RunRef, new_run, submit
from worker.canvas import UNLOCK, following, task_ids
from worker.execution import current
from worker.owners import ends, owner_of, owner_of_chord

log = logging.getLogger(__name__)

PROTOCOL = "that needs Celery's message protocol 2, and its setting task_protocol is another"
ROLE = "role"  # in the header, beside the run
CARRIED = "carried"  # of a task that is none of our business, and only takes the run along
ASIDE = "aside"  # of a task that the run may end without
BODY = "body"  # in the header of a chord's unlock: the role of the body that it sends
GROUPS_REMEMBERED = 1000
_FOLLOWING = "eventstream_following"  # on a task's request: the ids of what comes next


def run_in(headers: Any) -> tuple[RunRef | None, str]:
    """The run that a message's headers name, and the task's role in it."""
    header: Any = (headers or {}).get(HEADER)
    ref = RunRef.from_header(header)
    return (ref, str(header.get(ROLE, ""))) if ref is not None else (None, "")


def on_publish(sender: str, body: Any, headers: dict[str, Any], **_: Any) -> None:
    """before_task_publish: names the run in the message, and makes it exist if it is new."""
    if isinstance(body, Mapping):
        if HEADER in headers or owner_of(sender, (body["args"], body["kwargs"]), {}, is_sure=False):
            _say_protocol()
        return
    ref, role = run_in(headers)
    is_told = False
    if ref is None:
        ref, role, is_told = _join(sender, body, headers)
        if ref is None:
            return
    if ROLE not in headers.get(HEADER, ()):  # a new mapping: the given one may be a signature's
        roles = {ROLE: CARRIED, BODY: role} if sender == UNLOCK else {ROLE: role} if role else {}
        headers[HEADER] = ref.to_header() | roles
    if not is_told and _counts(sender, role) and not _is_again(headers):
        _tell(ref, headers)


@cache
def _say_protocol() -> None:
    """Says it once: a message of protocol 1 has its task's id elsewhere, and is read otherwise."""
    log.error("no task is tracked here: %s", PROTOCOL)


def on_published(sender: str, body: Any, headers: dict[str, Any], **_: Any) -> None:
    """after_task_publish: a task's next message is on the way.

    Not said before: a worker that is killed in between gets the task's last message again, and
    must still run it.
    """
    ref, role = run_in(headers) if not isinstance(body, Mapping) else (None, "")
    if ref is not None and _counts(sender, role) and _is_again(headers):
        _tell(ref, headers)


def _counts(sender: str, role: str) -> bool:
    return role != CARRIED or sender.startswith("celery.")


def _is_again(headers: Mapping[str, Any]) -> bool:
    """Whether it is a retry's message, or one of a task in the place of the running one."""
    return bool(headers.get("retries")) or getattr(_request(), "id", None) == headers["id"]


def _request() -> Any:
    """The request of the task at work here; within one that was called in place, its caller's."""
    for task in reversed(_state._task_stack.stack):  # type: ignore[attr-defined]
        for request in reversed(task.request_stack.stack):
            if not request.is_eager or run_in(request.headers)[0] is not None:
                return request
    return None


def _tell(ref: RunRef, headers: Mapping[str, Any]) -> None:
    submit(
        ref,
        Sent(
            task=headers["id"],
            retries=headers.get("retries") or 0,
            nesting=headers.get("replaced_task_nesting") or 0,
            eta_ms=_eta_ms(headers),
        ),
    )


def _join(sender: str, body: Any, headers: dict[str, Any]) -> tuple[RunRef | None, str, bool]:
    """The run that a message without one belongs to, and its task's role in it.

    The third says whether Redis has been told of the message.
    """
    request = _request()
    running, _ = run_in(getattr(request, "headers", None))
    embed = body[2]
    owner = owner_of(sender, body, headers)
    if owner is None and running is None and sender != UNLOCK and not _is_followed(embed):
        return None, "", False
    after, group = following(headers, embed)
    ids = {headers["id"]}
    if sender == UNLOCK:
        chord = body[0][1]
        chord_after, group = following({"group": body[0][0]}, {"chord": chord})
        after, ids = [*chord_after, *after], set(task_ids(chord))
    owner = owner or owner_of_chord(sender, embed, after)
    if running is not None and _stays(running, request, owner, ids):
        role = _role_within(running, request, ids, sender, owner is not None or bool(ends(after)))
        return running, role, False
    if owner is None:
        return None, "", False
    return _accepted(owner, ends(after) or [headers["id"]], group, headers), "", True


def _stays(running: RunRef, request: Any, owner: tuple[str, str] | None, ids: set[str]) -> bool:
    """Whether a task is in the run of the one at work, which publishes it.

    One of another source is too where it is in that one's place, or where Celery sends it next and
    the run waits for it: a chain is one run, and so is a chord.
    """
    if owner in (None, (running.user_id, running.source_id)) or _replaces(request):
        return True
    return _role_of(request) == "" and bool(ids & _following(request))


def _is_followed(embed: Mapping[str, Any]) -> bool:
    return bool(embed.get("chain") or embed.get("chord"))


def _role_within(
    running: RunRef, request: Any, ids: set[str], sender: str, is_tracked: bool
) -> str:
    """The role of a task that is published while one of a run is at work.

    What Celery itself sends next, or in the place of the running task, has the running one's. It
    may be untracked, if something tracked comes after it.
    """
    role = _role_of(request)
    if not (_replaces(request) or ids & _following(request)):
        role = CARRIED
    if role == CARRIED:
        errbacks = {errback.get("task") for errback in request.errbacks or ()}
        return ASIDE if is_tracked and sender not in errbacks else CARRIED
    if role == "" and not (is_tracked or running.final in ids or _replaces(request)):
        return ASIDE
    return role


def _role_of(request: Any) -> str:
    """The role of the running task; of one that unlocks a chord, of the body that it sends."""
    header = request.headers[HEADER]
    return str(header.get(BODY, "") if request.task == UNLOCK else header.get(ROLE, ""))


def _replaces(request: Any) -> bool:
    """Whether the running task is being replaced, so that what it sends is sent in its place."""
    execution = current()
    return execution is not None and execution.task_id == request.id and execution.replaced


def _following(request: Any) -> set[str]:
    """The ids of the tasks that Celery publishes when the running one is done, or replaced."""
    found: set[str] | None = getattr(request, _FOLLOWING, None)
    if found is None:
        after = [*(request.chain or [])[-1:], *([request.chord] if request.chord else [])]
        if request.task == UNLOCK:
            after.append(request.args[1])
        found = {request.id, *(task for signature in after for task in task_ids(signature))}
        setattr(request, _FOLLOWING, found)
    return found


def _accepted(
    owner: tuple[str, str], finals: list[str], group: str, headers: Mapping[str, Any]
) -> RunRef:
    """A run that exists: a new one, or the group's that is still open.

    A group's run may be complete before its last members are published: they share the next one,
    since a run of each one's own would supersede that of the one before. Members of one that has
    failed or was cancelled meanwhile are not run, as those that were published before it.
    """
    told = headers.get(HEADER)
    name = str(told.get("name") or owner[1]) if isinstance(told, Mapping) else owner[1]
    fact = Accepted(
        task=headers["id"],
        eta_ms=_eta_ms(headers),
        finals=finals,
    )
    final = finals[0] if len(finals) == 1 else MANY
    if not group:
        ref = new_run(*owner, name, final=final)
        submit(ref, fact)
        return ref
    latest, first = _group_runs.get(group, (1, headers["id"]))
    goes_on = headers["id"] != first
    for number in count(latest):
        ref = new_run(*owner, name, final=final, group=f"{group} {number}")
        outcome = submit(ref, fact)
        if not (outcome and outcome.verdict == "duplicate" and outcome.status in TERMINAL):
            break
        if goes_on and outcome.status != "completed":
            break
    _group_runs[group] = number, first
    if len(_group_runs) > GROUPS_REMEMBERED:
        _group_runs.pop(next(iter(_group_runs)), None)
    return ref


# The number of each group's latest run, and the id of the member that came first: the same again
# is the same canvas, published once more.
_group_runs: dict[str, tuple[int, str]] = {}


def _eta_ms(headers: Mapping[str, Any]) -> int | None:
    eta = headers.get("eta")
    return int(datetime.fromisoformat(eta).timestamp() * 1000) if eta else None

"""Whose a task is: the applications whose tasks may be tracked, and what their calls say."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from celery import Celery, _state

from shared.runs import HEADER
from worker.canvas import IN_ONE_TASK, UNLOCK, Canvas, finals, options_of, parts
from worker.option import arguments, option, tell_wrong

log = logging.getLogger(__name__)

_apps: list[Celery] = []  # those whose tasks may be tracked, the latest first


def know(app: Celery) -> None:
    """Has an application's tasks looked up by name."""
    if app not in _apps:
        _apps.insert(0, app)


def application() -> Celery:
    """The application to work with: the current one if it is known, else the latest that is."""
    now = _state.get_current_app()
    return now if now in _apps or not _apps else _apps[0]


def task_named(name: object) -> Any:
    """The task of that name, a tracked one if there is one; None where no application knows it."""
    found = [task for app in _apps if (task := app.tasks.get(str(name))) is not None]
    return next(filter(option, found), found[0] if found else None)


def _is_tracked(signature: Canvas) -> bool:
    told = options_of(signature).get("headers") or ()
    return HEADER in told or bool(option(task_named(signature.get("task"))))


def ends(after: Sequence[Canvas]) -> list[str]:
    """The tracked tasks that end what comes after a task."""
    return next((found for s in reversed(after) if (found := finals(s, _is_tracked))), [])


def owner_of(
    sender: str, body: Any, headers: Mapping[str, Any], *, is_sure: bool = True
) -> tuple[str, str] | None:
    """The user and the source of a tracked task: by the call's header, or by its option.

    None for a task that is not tracked, and where neither names them; `is_sure` says to log that.
    `body` holds the task's positional and its named arguments first.
    """
    told, task = headers.get(HEADER), task_named(sender)
    if isinstance(told, Mapping):
        owner = (told.get("user"), told.get("source"))
    elif option(task):
        owner = arguments(task, body[0], body[1])
    else:
        tell_wrong(task)
        if sender in IN_ONE_TASK and option(task_named(_inner(body))):
            log.error("%s of %s is not tracked: use a group", sender, _inner(body))
        return None
    if None in owner or not all(map(str, owner)):
        if is_sure:
            log.error(
                "task %s is not tracked: %r names no user and source", sender, told or option(task)
            )
        return None
    return str(owner[0]), str(owner[1])


def owner_of_chord(
    sender: str, embed: Mapping[str, Any], after: Sequence[Canvas]
) -> tuple[str, str] | None:
    """The user and the source of the chord that an untracked task is in, or unlocks."""
    chain = embed.get("chain") or [{}]
    if not (sender == UNLOCK or embed.get("chord") or options_of(chain[0]).get("chord")):
        return None
    for part in (part for signature in after for part in parts(signature)):
        given = part.get("args") or ()
        body = (given if part.get("immutable") else (None, *given), part.get("kwargs") or {})
        told = options_of(part).get("headers") or {}
        if owner := owner_of(str(part.get("task")), body, told, is_sure=False):
            return owner
    return None


def _inner(body: Any) -> str:
    task = body[1].get("task") if isinstance(body[1], Mapping) else None
    return str(task.get("task")) if isinstance(task, Mapping) else ""

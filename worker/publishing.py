"""The message of a task in a run: it names the run, and Redis knows of it before the broker."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import count
from typing import Any, cast

from celery import Celery, _state
from celery.utils.imports import symbol_by_name
from kombu.utils.objects import cached_property

from shared.facts import Accepted, ErrorInfo, Failed, Passed, Sent
from shared.runs import HEADER, MANY, TERMINAL, RunRef, new_run, submit
from worker.option import option

log = logging.getLogger(__name__)

ROLE = "role"  # in the header, beside the run
CARRIED = "carried"  # of a task that is none of our business, and only takes the run along
ASIDE = "aside"  # of a task that another sent off: the run may end without it
GROUPS_REMEMBERED = 1000
NOT_SENT = ErrorInfo("not_sent", "This could not be handed to a worker. Please try again.", True)
_STARMAPS = ("celery.map", "celery.starmap")


def run_in(headers: Any) -> tuple[RunRef | None, str]:
    """The run that a message's headers name, and the task's role in it."""
    header: Any = (headers or {}).get(HEADER)
    ref = RunRef.from_header(header)
    return (ref, str(header.get(ROLE, ""))) if ref is not None else (None, "")


def on_publish(app: Celery, sender: str, body: Any, headers: dict[str, Any], **_: Any) -> None:
    """before_task_publish: names the run in the message, and makes it exist if it is new."""
    ref, role = run_in(headers)
    if ref is None:
        ref, role, is_told = _join(app, sender, body, headers)
        if ref is None:
            return
        headers[HEADER] = ref.to_header() | ({ROLE: role} if role else {})
        if is_told:
            return
    if role != CARRIED or sender.startswith("celery."):
        submit(
            ref,
            Sent(
                task=headers["id"],
                retries=headers.get("retries") or 0,
                nesting=headers.get("replaced_task_nesting") or 0,
                eta_ms=_eta_ms(headers),
            ),
        )


def _join(
    app: Celery, sender: str, body: Any, headers: dict[str, Any]
) -> tuple[RunRef | None, str, bool]:
    """The run that a message without one belongs to, and its task's role in it.

    The third says whether Redis has been told of the message.
    """
    request = getattr(_state.get_current_task(), "request", None)
    running, _ = run_in(getattr(request, "headers", None))
    follows = running is not None and headers["id"] in _following(request)
    owner = _owner(app, sender, body, headers)
    if running is not None and owner in (None, (running.user_id, running.source_id)):
        if follows:
            return running, "", False
        return running, ASIDE if owner else CARRIED, False
    if owner is None:
        return None, "", False
    embed = body[2]
    finals = _ends(app, embed) or [headers["id"]]
    return _accepted(owner, finals, _group(headers, embed), headers), "", True


def _owner(
    app: Celery, sender: str, body: Any, headers: Mapping[str, Any]
) -> tuple[str, str] | None:
    """The user and the source of a tracked task: by the call's header, or by its option."""
    told = headers.get(HEADER)
    task = app.tasks.get(sender)
    if isinstance(told, Mapping):
        owner = (told.get("user"), told.get("source"))
    elif option(task):
        owner = _arguments(task, body[0], body[1])
    else:
        if sender in _STARMAPS and option(app.tasks.get(_inner(body))):
            log.error("%s of %s is not tracked: use a group", sender, _inner(body))
        return None
    if None in owner or not all(map(str, owner)):
        log.error(
            "task %s is not tracked: %r names no user and source", sender, told or option(task)
        )
        return None
    return str(owner[0]), str(owner[1])


def _arguments(task: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    try:
        given = inspect.signature(task.run).bind_partial(*args, **kwargs).arguments
    except TypeError:
        return None, None
    return given.get(option(task)["user"]), given.get(option(task)["source"])


def _inner(body: Any) -> str:
    task = body[1].get("task") if isinstance(body[1], Mapping) else None
    return str(task.get("task")) if isinstance(task, Mapping) else ""


def _accepted(
    owner: tuple[str, str], finals: list[str], group: str | None, headers: Mapping[str, Any]
) -> RunRef:
    """A run that exists: a new one, or the group's that is still open.

    A group's run may end before its last members are published: they share the next one, since
    a run of each one's own would supersede that of the one before.
    """
    told = headers.get(HEADER)
    name = str(told.get("name") or owner[1]) if isinstance(told, Mapping) else owner[1]
    fact = Accepted(
        task=headers["id"],
        eta_ms=_eta_ms(headers),
        finals=finals,
    )
    final = finals[0] if len(finals) == 1 else MANY
    if group is None:
        ref = new_run(*owner, name, final=final)
        submit(ref, fact)
        return ref
    for number in count(_group_runs.get(group, 1)):
        ref = new_run(*owner, name, final=final, group=f"{group} {number}")
        outcome = submit(ref, fact)
        if not (outcome and outcome.verdict == "duplicate" and outcome.status in TERMINAL):
            break
    _group_runs[group] = number
    if len(_group_runs) > GROUPS_REMEMBERED:
        _group_runs.pop(next(iter(_group_runs)), None)
    return ref


_group_runs: dict[str, int] = {}  # the number of each group's latest run: where to begin to look


def _eta_ms(headers: Mapping[str, Any]) -> int | None:
    eta = headers.get("eta")
    return int(datetime.fromisoformat(eta).timestamp() * 1000) if eta else None


def _following(request: Any) -> set[str]:
    """The ids of the tasks that Celery publishes when the running one is done, or replaced."""
    after = [*(request.chain or [])[-1:], *(request.callbacks or [])]
    if request.chord:
        after.append(request.chord)
    return {request.id, *(task for signature in after for task in task_ids(signature))}


def task_ids(signature: Mapping[str, Any]) -> Iterable[str]:
    """The ids of all tasks in a signature, however it is nested."""
    for part in parts(signature):
        if task_id := part.get("options", {}).get("task_id"):
            yield str(task_id)


def parts(signature: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """The plain signatures within one, however it is nested; a plain one is its own."""
    kwargs = signature.get("kwargs") or {}
    match signature.get("subtask_type"):
        case "chain" | "group":
            within = kwargs.get("tasks") or ()
        case "chord":
            header = kwargs.get("header") or ()
            within = [*([header] if isinstance(header, Mapping) else header), kwargs.get("body")]
        case _:
            yield signature
            return
    for inner in within:
        if inner:
            yield from parts(inner)


def finals(app: Celery, signature: Mapping[str, Any]) -> list[str]:
    """The ids of the tracked tasks that a signature ends with."""
    kwargs = signature.get("kwargs") or {}
    match signature.get("subtask_type"):
        case "chain":
            tasks = kwargs.get("tasks") or ()
            return next((found for task in reversed(tasks) if (found := finals(app, task))), [])
        case "group":
            return [final for task in kwargs.get("tasks") or () for final in finals(app, task)]
        case "chord":
            body = kwargs.get("body")
            return finals(app, body) if body else []
    options = signature.get("options") or {}
    is_tracked = option(app.tasks.get(str(signature.get("task")))) or HEADER in (
        options.get("headers") or ()
    )
    return [str(options["task_id"])] if is_tracked and options.get("task_id") else []


def _ends(app: Celery, embed: Mapping[str, Any]) -> list[str]:
    """The tasks whose success ends a message's run: those after it, as far as it knows them."""
    chain = embed.get("chain") or []  # last task first
    chord = embed.get("chord") or (chain and (chain[0].get("options") or {}).get("chord"))
    for signature in [*([chord] if chord else []), *chain]:
        if found := finals(app, signature):
            return found
    return []


def _group(headers: Mapping[str, Any], embed: Mapping[str, Any]) -> str | None:
    """The group that the message's task is a member of, or the chain that it begins."""
    chain = embed.get("chain") or []
    group = headers.get("group") or (chain and (chain[0].get("options") or {}).get("group_id"))
    return str(group) if group else None


def watch_sending(app: Celery) -> None:
    """Has a run end whose message can't be published: no signal tells of that."""
    base: Any = symbol_by_name(cast(Any, app.amqp_cls))
    if getattr(base, "tells_runs", False):
        return

    class TellingAMQP(base):  # type: ignore[misc]
        tells_runs = True

        @cached_property
        def send_task_message(self) -> Any:
            send = self._create_task_sender()

            @functools.wraps(send)
            def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
                try:
                    return send(producer, name, message, **options)
                except Exception:
                    _not_sent(message.headers)
                    raise

            return send_task_message

    app.amqp_cls = cast(Any, TellingAMQP)


def _not_sent(headers: Mapping[str, Any]) -> None:
    ref, role = run_in(headers)
    if ref is None or headers.get("retries") or headers.get("replaced_task_nesting"):
        return  # what fails to publish its own next attempt says so itself
    task = headers["id"]
    submit(ref, Passed(task=task) if role else Failed(task=task, error=NOT_SENT))

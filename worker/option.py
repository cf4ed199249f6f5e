"""A task's `ingest` option: which arguments of the task hold its user and its source.

A wrong one makes its task untracked, and is said in the log once in each process.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from inspect import Parameter
from math import inf
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ingest:
    """What makes a task tracked; a mapping with the same names does as well.

    Args:
        user: the name of the argument that holds the user's id.
        source: the name of the argument that holds the source's id.
        stages: the stages of the bar, each with its weight.
    """

    user: str
    source: str
    stages: Mapping[str, float] = field(default_factory=dict)


_NAMES = tuple(f.name for f in fields(Ingest))
_TAKEN = (
    "It takes 'user' and 'source', the names of the arguments with their ids, and 'stages', "
    "names with a weight over 0."
)
_told: set[str] = set()  # what was said of wrong options


def option(task: Any) -> Mapping[str, Any]:
    """The task's `ingest` option; empty where it is not tracked, as with a wrong option."""
    given = _given(task)
    return given if given and isinstance(given, Mapping) and not _wrong(given) else {}


def tell_wrong(task: Any) -> None:
    """Logs what is wrong with the task's `ingest` option, unless that was said before."""
    given = _given(task)
    if not given:
        return
    wrong = _wrong(given) or _missing(task)
    sentence = f"task {task.name} is not tracked, its ingest option is wrong: {wrong}. {_TAKEN}"
    if wrong and sentence not in _told:
        _told.add(sentence)
        log.error("%s", sentence)


def arguments(task: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The user and the source that a tracked task's call names; None for what it doesn't."""
    try:
        call = _signature(task.run).bind_partial(*args, **kwargs)
    except TypeError:
        return None, None
    chosen = option(task)
    user, source = chosen["user"], chosen["source"]
    if not {user, source} <= set(call.arguments):
        call.apply_defaults()
    given = {**call.kwargs, **call.arguments}
    return given.get(user), given.get(source)


def _given(task: Any) -> Any:
    given = getattr(task, "ingest", None)
    return {n: getattr(given, n) for n in _NAMES} if isinstance(given, Ingest) else given


def _wrong(given: Any) -> str:
    """What is wrong with an option whatever its task; "" for nothing."""
    if not isinstance(given, Mapping):
        return f"{given!r} is neither an Ingest nor a mapping"
    for name in given:
        if name not in _NAMES:
            return f"{name!r} is not known"
    for name in ("user", "source"):
        if name not in given:
            return f"{name!r} is missing"
        if not isinstance(given[name], str) or not given[name]:
            return f"{name!r} is {given[name]!r}"
    weights = given.get("stages") or {}
    is_right = isinstance(weights, Mapping) and all(
        isinstance(weight, (int, float)) and 0 < weight < inf for weight in weights.values()
    )
    return "" if is_right else f"'stages' is {weights!r}"


def _missing(task: Any) -> str:
    """Which argument of its option a task doesn't have; "" for none."""
    try:
        parameters = _signature(task.run).parameters
    except (TypeError, ValueError):  # such as C code has none
        return ""
    if any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values()):
        return ""
    chosen = option(task)
    names = [chosen[name] for name in ("user", "source")]
    return next((f"the task has no argument {n!r}" for n in names if n not in parameters), "")


_signature = lru_cache(maxsize=1024)(inspect.signature)  # reading one takes longer than using it

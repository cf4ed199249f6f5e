"""A task's `ingest` option: which arguments of the task hold its user and its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any

from celery.exceptions import ImproperlyConfigured


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


def option(task: Any) -> Mapping[str, Any]:
    """The task's `ingest` option; empty where it is not tracked."""
    given = getattr(task, "ingest", None)
    if isinstance(given, Ingest):
        return {f.name: getattr(given, f.name) for f in fields(given)}
    return given or {}


def check(task: Any) -> None:
    """Raises ImproperlyConfigured where the option of a tracked task is not right."""
    weights = option(task).get("stages") or {}
    is_right = isinstance(weights, Mapping) and all(
        isinstance(weight, (int, float)) and 0 < weight < inf for weight in weights.values()
    )
    if not is_right or not {"user", "source"} <= set(option(task)):
        raise ImproperlyConfigured(
            f"The ingest option of {task.name} is {option(task)!r}. It takes 'user' and 'source', "
            "the names of the arguments with their ids, and 'stages', names with a weight over 0."
        )

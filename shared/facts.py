"""What can be reported about a run, each fact a frozen dataclass with the values its step takes.

Text that ends in an event is given to the step as JSON; Lua splices it and never decodes it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from typing import Any, ClassVar

from shared.encoding import to_json
from shared.errors import EventRefused
from shared.payloads import LONGEST_TEXT
from shared.settings import get_settings
from shared.steps import Priority

log = logging.getLogger(__name__)

# What the step itself puts into a payload; a task's result may not replace it.
RESERVED = frozenset({"run_id", "name", "attempt", "percent", "seconds", "error", "reason"})
_ROOM_FOR_THE_REST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error as its user sees it: a code, a sentence, and whether trying again may help."""

    code: str
    message: str
    retryable: bool = False

    def to_json(self) -> str:
        """As it stands in an event; a sentence of undue length is cut."""
        return to_json(replace(self, message=self.message[:LONGEST_TEXT]))


@dataclass(frozen=True, slots=True)
class Report:
    """How far one task is in one stage.

    With `parts`, it says instead that so many other tasks share the stage. `complete` means done
    whatever the numbers say; `total` is None where it isn't known.
    """

    stage: str
    done: int = 0
    total: int | None = None
    unit: str | None = None
    parts: int | None = None
    complete: bool = False

    def values(self) -> list[str]:
        """The six values of a progress report, as the step takes them: text as JSON.

        A number that is none, or not finite, counts as unknown; `done` stays within 0 and `total`.
        """
        total, done = _number(self.total), _number(self.done) or 0
        done = max(0, done if total is None else min(done, total))
        texts = ["" if n is None else to_json(n) for n in (self.parts, done, total)]
        unit = self.unit and str(self.unit)[:LONGEST_TEXT]
        return [
            to_json(str(self.stage)[:LONGEST_TEXT]),
            *texts,
            to_json(unit),
            _text(self.complete),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One report about a run. `task` is a task id; an empty nonce means the current execution."""

    kind: ClassVar[str]
    priority: ClassVar[Priority] = Priority.NORMAL
    task: str = ""
    nonce: str = ""
    reports: Sequence[Report] = field(default=(), metadata={"own": True})

    def values(self) -> list[str]:
        """The fields as the step takes them: name, value, ..."""
        pairs: list[str] = []
        for f in fields(self):
            if not f.metadata.get("own"):
                pairs += [f.name, _text(getattr(self, f.name))]
        return pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted(Fact):
    """The run exists from here on: before its message is published."""

    kind = "accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Fact):
    """An execution begins. `lost`, `timeout`: its message comes again after such an end."""

    kind = "started"
    retries: int
    nesting: int
    lost: bool
    timeout: bool
    stages: Mapping[str, int] = field(default_factory=dict, metadata={"own": True})

    def values(self) -> list[str]:
        """The fields as the step takes them; stages as lines of weight and name."""
        lines = "".join(f"{weight} {to_json(name)}\n" for name, weight in self.stages.items())
        return [*_base_values(self), "stages", lines]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Fact):
    """The execution is alive, and perhaps further."""

    kind = "progress"
    priority = Priority.PROGRESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Flush(Fact):
    """Nothing new; sends progress that was held back, if its time has come."""

    kind = "flush"
    priority = Priority.PROGRESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded(Fact):
    """A task succeeded. `result` is what was produced, merged into the completed event."""

    kind = "succeeded"
    priority = Priority.TERMINAL
    result: Mapping[str, Any] = field(default_factory=dict, metadata={"own": True})

    def values(self) -> list[str]:
        """The fields as the step takes them; the result as JSON members."""
        return [*_base_values(self), "result", _members(self.result)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Fact):
    """A task failed, finally, by its own word."""

    kind = "failed"
    priority = Priority.TERMINAL
    error: ErrorInfo
    details: Mapping[str, Any] = field(default_factory=dict, metadata={"own": True})

    def values(self) -> list[str]:
        """The fields as the step takes them; details as JSON members."""
        return [*_base_values(self), "details", _members(self.details)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost(Failed):
    """The worker's main process saw an execution end: `cause` is lost, timeout or rejected."""

    kind = "lost"
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted(Fact):
    """An execution ended without a result; its message may come again, or not."""

    kind = "interrupted"
    comes_again: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying(Fact):
    """The execution numbered `retries` failed and its retry is on the way."""

    kind = "retrying"
    retries: int
    nesting: int
    eta: str | None
    eta_ms: int | None
    error: ErrorInfo

    def values(self) -> list[str]:
        """The fields as the step takes them; the eta as JSON."""
        return [*_base_values(self), "eta", to_json(self.eta)]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver(Fact):
    """The execution ended by replacing itself with a canvas under its own id."""

    kind = "handed_over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked(Fact):
    """A task was revoked, or expired before it ran."""

    kind = "revoked"
    priority = Priority.TERMINAL
    expired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Lapsed(Fact):
    """Some deadline of the run may have passed; the step looks which."""

    kind = "lapsed"


def _base_values(fact: Fact) -> list[str]:
    return Fact.values(fact)


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "1" if value else "0"
        case ErrorInfo():
            return value.to_json()
    return str(value)


def _number(value: object) -> int | float | None:
    """The value, if it is a finite number; anything may come out of a task."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        return None
    return value


def _members(mapping: Mapping[str, Any]) -> str:
    """A mapping as JSON members with a leading comma.

    What has no JSON form, or would make the event too large, is left out and logged: the end of
    a run is worth more than what it says besides.
    """
    left = get_settings().event_max_bytes - _ROOM_FOR_THE_REST_BYTES
    members = []
    for name, value in mapping.items():
        if str(name) in RESERVED:
            continue
        try:
            member = f"{to_json(str(name))}:{to_json(value)}"
        except EventRefused as error:
            log.error("%r is left out of an event: %s", name, error)
            continue
        left -= len(member) + 1
        if left < 0:
            log.error("%r and what follows is left out of an event: too large", name)
            break
        members.append("," + member)
    return "".join(members)

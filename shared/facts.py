"""What can be reported about a run, each fact a frozen dataclass with the values its step takes.

Text that ends in an event is given to the step as JSON; Lua splices it and never decodes it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from shared.events import to_json
from shared.outbox import Priority
from shared.settings import get_settings

log = logging.getLogger(__name__)

# What the step itself puts into a payload; a task's result may not replace it.
RESERVED = frozenset({"run_id", "name", "attempt", "percent", "seconds", "error", "reason"})
_ROOM_FOR_THE_REST_BYTES = 2048


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error as its user sees it: a code, a sentence, and whether trying again may help."""

    code: str
    message: str
    retryable: bool = False


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
        """The six values of a progress report, as the step takes them."""
        numbers = (self.parts, self.done, self.total)
        texts = [to_json(self.stage), *(_text(number) for number in numbers)]
        return [*texts, to_json(self.unit), _text(self.complete)]


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
    """An execution ended without a result."""

    kind = "interrupted"


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
            return to_json(value)
    return str(value)


def _members(mapping: Mapping[str, Any]) -> str:
    """A mapping as JSON members with a leading comma; too large a one is left out and logged."""
    kept = {str(k): v for k, v in mapping.items() if str(k) not in RESERVED}
    text = to_json(kept)[1:-1]
    limit = get_settings().event_max_bytes - _ROOM_FOR_THE_REST_BYTES
    if len(text) > limit:
        log.error("a run's result of %d bytes is left out of its event: %r", len(text), list(kept))
        return ""
    return f",{text}" if text else ""

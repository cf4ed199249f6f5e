"""What can be reported about a run, each fact a frozen dataclass with the values its step takes.

Text that ends in an event is given to the step as JSON; Lua splices it and never decodes it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from typing import Any, ClassVar

from shared.encoding import to_json
from shared.payloads import LONGEST_TEXT
from shared.settings import get_settings
from shared.steps import Priority

log = logging.getLogger(__name__)

# What the step itself puts into a payload; a task's result may not replace it.
RESERVED = frozenset({"run_id", "name", "attempt", "percent", "seconds", "error", "reason"})
_ROOM_FOR_THE_REST_BYTES = 4096


def known_number(value: object) -> int | float | None:
    """The value, if it is a number that a float can hold; anything may come out of a task."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if isfinite(value) else None
    except OverflowError:  # an int may be of any size
        return None


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
    whatever the numbers say; `total` is None where it isn't known. `weight` counts where the run
    does not know the stage yet. One without a stage only says its note, "" for none any more.
    """

    stage: str = ""
    done: int = 0
    total: int | None = None
    unit: str | None = None
    parts: float | None = None
    complete: bool = False
    weight: float = 1
    note: str | None = None

    def values(self) -> list[str]:
        """The eight values of a progress report, as the step takes them: text as JSON.

        A number that is none, not finite, or too large for a float, counts as unknown; `done` stays
        within 0 and `total`.
        """
        total, done = known_number(self.total), known_number(self.done) or 0
        done = max(0, done if total is None else min(done, total))
        numbers = (known_number(self.parts), done, total)
        texts = ["" if n is None else to_json(n) for n in numbers]
        unit = self.unit and str(self.unit)[:LONGEST_TEXT]
        weight = known_number(self.weight) or 1
        return [
            to_json(str(self.stage)[:LONGEST_TEXT]) if self.stage else "",
            *texts,
            to_json(unit),
            _text(self.complete),
            to_json(weight if weight > 0 else 1),
            "" if self.note is None else to_json(str(self.note)[:LONGEST_TEXT] or None),
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
    """The run exists from here on: before its message is published.

    Args:
        task: the task whose message comes next, if one does; `eta_ms` is when it may run.
        finals: the tasks whose success completes the run; by default the one in its reference.
        stages: what is known of the bar: for each stage its weight, and how many tasks share it.
        unit: what the tasks of a stage are, such as `files`.
        exclusive: refuse it (verdict `running`) where a run of the same source is open.
        repeat_state: where the run exists already, append its state as it is once more.
    """

    kind = "accepted"
    eta_ms: int | None = None
    finals: Sequence[str] = field(default=(), metadata={"own": True})
    stages: Mapping[str, tuple[float, int]] = field(default_factory=dict, metadata={"own": True})
    unit: str | None = None
    exclusive: bool = False
    repeat_state: bool = False

    def values(self) -> list[str]:
        """The fields as the step takes them; a plan as lines of weight, number and name."""
        plan = "".join(f"{w} {n} {to_json(name)}\n" for name, (w, n) in self.stages.items())
        pairs = [*_base_values(self), "stages", plan, "unit", to_json(self.unit)]
        return [*pairs, "finals", "\n".join(self.finals)] if self.finals else pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent(Fact):
    """A task's message is about to be published; with `retries` over 0 it is a retry's."""

    kind = "sent"
    retries: int = 0
    nesting: int = 0
    eta_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Fact):
    """An execution begins.

    `late` says that its message comes again when its worker is lost, and `grace_ms` how long that
    may take. `worker` is what its worker is called.
    """

    kind = "started"
    retries: int
    nesting: int
    late: bool
    grace_ms: int
    worker: str = ""
    stages: Mapping[str, float] = field(default_factory=dict, metadata={"own": True})

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
    """The worker's main process saw an execution end without its own word.

    `retries` is None where that is not known. `rejected`: its message was thrown away.
    """

    kind = "lost"
    comes_again: bool
    grace_ms: int
    retries: int | None = None
    nesting: int = 0
    rejected: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted(Fact):
    """An execution ended without a result; its message may come again, or not.

    `error` is what the run ends with when nothing comes. `retries` is None where it is not known.
    """

    kind = "interrupted"
    error: ErrorInfo
    comes_again: bool
    grace_ms: int
    retries: int | None = None
    nesting: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed(Fact):
    """One of Celery's own tasks, which only sends the next, is over."""

    kind = "passed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying(Fact):
    """The execution numbered `retries` failed and its retry is on the way.

    `attempts` is how many there may be in all; None for any number.
    """

    kind = "retrying"
    retries: int
    nesting: int
    attempts: int | None
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
    """A task was revoked, or a message of it expired. `retries` is None where it is not known."""

    kind = "revoked"
    priority = Priority.TERMINAL
    expired: bool
    retries: int | None = None
    nesting: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel(Fact):
    """Somebody asked for the end of the run."""

    kind = "cancel"
    priority = Priority.TERMINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Lapsed(Fact):
    """Some deadline of the run may have passed; the step looks which.

    `mode` says what to do where nothing can come again: `show` that nothing is heard, `ask` for
    the tasks in question, or `fail`.
    """

    kind = "lapsed"
    mode: str


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


def _members(mapping: Mapping[str, Any]) -> str:
    """A mapping as JSON members with a leading comma.

    What can't be read, has no JSON form, or would make the event too large, is left out and logged:
    the end of a run is worth more than what it says besides.
    """
    left = get_settings().event_max_bytes - _ROOM_FOR_THE_REST_BYTES
    members = []
    for name, value in _items(mapping):
        member = "" if name in RESERVED else _member(name, value)
        left -= len(member)
        if left < 0:
            log.error("%r and what follows is left out of an event: too large", name)
            break
        members.append(member)
    return "".join(members)


def _items(mapping: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    try:
        for name, value in mapping.items():
            yield str(name), value
    except Exception as error:  # a mapping is a task's own code
        log.error("what can't be read of a mapping is left out of an event: %r", error)


def _member(name: str, value: object) -> str:
    try:
        return f",{to_json(name)}:{to_json(value)}"
    except Exception as error:  # so is what it holds
        log.error("%r is left out of an event: %r", name, error)
        return ""

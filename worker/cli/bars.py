"""Events on a screen: live bars, one for each source, on a terminal; else one line an event."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from shared.events import BACKLOG_TRUNCATED

_PREFIX = "source.ingest."
_NAME_WIDTH = 24
_BAR_WIDTH = 20  # leaves room for the detail where a line has 80 characters
_COLOURS = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "retrying": "yellow",
    "stalled": "yellow",
}


class View(Protocol):
    """Something that shows events, each a line of JSON."""

    def show(self, line: str) -> None:
        """Shows one event."""


@dataclass(slots=True)
class Bar:
    """What is known of one source, from its events in order."""

    run_id: str = ""
    name: str = ""
    state: str = "queued"
    percent: float = 0
    detail: str = ""

    def apply(self, state: str, payload: Mapping[str, Any]) -> None:
        """Takes in one event: `state` is the last word of its type.

        One that is repeated tells how its run stands, which may not be the source's latest.
        """
        run_id = str(payload.get("run_id") or self.run_id)
        if payload.get("repeated") and self.run_id not in ("", run_id):
            return
        self.run_id = run_id
        self.state = "running" if state in ("started", "progress") else state
        self.name = printable(str(payload.get("name") or self.name))
        self.percent = float(payload.get("percent") or self.percent)
        if state == "started":
            self.percent = float(payload.get("percent") or 0)
        self.detail = printable(_detail(state, payload))


def printable(text: str) -> str:
    """A text of strangers without the control characters that a terminal would obey."""
    return "".join(c if c.isprintable() else "�" for c in text)


def _detail(state: str, payload: Mapping[str, Any]) -> str:
    match state:
        case "progress":
            return _counted(payload)
        case "completed":
            return _produced(payload)
        case "failed":
            return _sentence(payload)
        case "retrying":
            return f"{_sentence(payload)} {_next_attempt(payload)}".strip()
        case "stalled" | "cancelled":
            return str(payload.get("reason") or "")
    return ""


def _sentence(payload: Mapping[str, Any]) -> str:
    error = payload.get("error")
    return str(error.get("message", "") if isinstance(error, Mapping) else error or "")


def _next_attempt(payload: Mapping[str, Any]) -> str:
    """Which attempt comes, and of how many; executions that were lost count besides."""
    number, most = int(payload.get("attempt") or 0) + 1, payload.get("attempts")
    return f"(attempt {number} of {most} next)" if most and number <= most else ""


def _counted(payload: Mapping[str, Any]) -> str:
    stage, done, total = payload.get("stage"), payload.get("done"), payload.get("total")
    counted = f"{done}/{total}" if total else str(done or "")
    return " ".join(str(word) for word in (stage, counted, payload.get("unit")) if word)


def _produced(payload: Mapping[str, Any]) -> str:
    failed = payload.get("failed_files") or []
    parts = [
        _count(payload[key], key) for key in ("files", "chunks") if payload.get(key) is not None
    ]
    parts += [f"{len(failed)} not read"] if failed else []
    parts += [f"{payload['seconds']:.1f} s"] if payload.get("seconds") is not None else []
    return ", ".join(parts)


def _count(number: object, plural: str) -> str:
    return f"{number} {plural[:-1] if number == 1 else plural}"


class Lines:
    """One line an event, as it came."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, line: str) -> None:
        """Writes the event and sends it on its way."""
        self._stream.write(line + "\n")
        self._stream.flush()


class Bars:
    """Live bars on a terminal. What belongs to no source is written above them."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, tuple[Bar, TaskID]] = {}

    def show(self, line: str) -> None:
        """Moves the bar of the event's source."""
        event = json.loads(line)
        kind, payload = str(event["type"]), event.get("payload") or {}
        if not kind.startswith(_PREFIX):
            self._write(kind, payload)
            return
        source_id = str((event.get("scope") or {}).get("id"))
        bar, task = self._bars.get(source_id, (Bar(), None))
        bar.apply(kind.removeprefix(_PREFIX), payload)
        if task is None:
            task = self._progress.add_task("", total=100, bar=bar)
            self._bars[source_id] = bar, task
        self._progress.update(task, completed=bar.percent)

    def _write(self, kind: str, payload: Mapping[str, Any]) -> None:
        if kind == BACKLOG_TRUNCATED:
            text = f"Some events are gone ({payload.get('reason')}); what follows is complete."
        else:
            text = f"{kind} {json.dumps(payload)}"
        self._progress.console.print(Text(printable(text), style="dim"))


class _BarText(TextColumn):
    """A column of one of the bar's texts; never read as markup."""

    def __init__(self, field: str, width: int | None = None) -> None:
        super().__init__("", markup=False)
        self._field = field
        self._width = width

    def render(self, task: Any) -> Text:
        bar: Bar = task.fields["bar"]
        style = _COLOURS.get(bar.state, "")
        text = Text(getattr(bar, self._field), style=style, no_wrap=True, overflow="ellipsis")
        if self._width is not None:
            text.truncate(self._width, overflow="ellipsis", pad=True)
        return text


@contextmanager
def view(stream: TextIO | None = None) -> Iterator[View]:
    """Gives the view that fits where the output goes: bars on a terminal, else lines."""
    stream = stream or sys.stdout
    if not stream.isatty():
        yield Lines(stream)
        return
    columns = (
        _BarText("name", _NAME_WIDTH),
        BarColumn(bar_width=_BAR_WIDTH),
        TextColumn("{task.percentage:>3.0f}%"),
        _BarText("state", 9),
        _BarText("detail"),
    )
    with Progress(*columns, console=Console(file=stream)) as progress:
        yield Bars(progress)

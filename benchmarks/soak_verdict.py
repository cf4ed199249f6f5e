"""What became of the soak's runs: what was told of each, against what its shape says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis

from shared import keys

USERS = 20
TERMINAL = {"completed", "failed", "cancelled"}
BROKEN = {"chain_broken", "never_started"}  # what a chord that hangs is told as


@dataclass
class Expected:
    """A run, and what must become of it."""

    words: str
    status: str
    tasks: int
    implicit: bool
    source: str
    canvas: Any = None


@dataclass
class Verdict:
    """What became of all runs."""

    runs: int = 0
    terminals: int = 0
    duplicates: int = 0
    lost: int = 0
    hanging: int = 0  # runs that failed since Celery never sent the body of a chord
    wrong: list[str] = field(default_factory=list)

    def line(self) -> str:
        return (
            f"runs {self.runs}, terminals {self.terminals}, duplicates {self.duplicates}, "
            f"wrong {len(self.wrong)}, lost {self.lost}"
            + (f" (a chord left hanging by Celery: {self.hanging})" if self.hanging else "")
        )

    def is_well(self) -> bool:
        return not (self.duplicates or self.wrong or self.lost) and self.terminals == self.runs


class Journal:
    """What the users' streams hold, read as it grows."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._cursors = dict.fromkeys(users(), "0-0")
        self.events: dict[str, list[dict[str, Any]]] = {}  # by source
        self.ended: set[str] = set()

    def read(self) -> None:
        for user, cursor in self._cursors.items():
            rows: Any = self._client.xrange(keys.stream(user), f"({cursor}")
            for entry_id, fields in rows:
                self._cursors[user] = entry_id.decode()
                event = json.loads(fields[b"e"])
                self.events.setdefault(event["scope"]["id"], []).append(event)
                if kind_of(event) in TERMINAL:
                    self.ended.add(event["scope"]["id"])


def users() -> list[str]:
    return [f"user-{n}" for n in range(USERS)]


def kind_of(event: Mapping[str, Any]) -> str:
    return str(event["type"]).removeprefix("source.ingest.")


def judge(expected: list[Expected], journal: Journal, hangs: Callable[[Expected], bool]) -> Verdict:
    """Compares what was told of each run with what had to be; `hangs` is asked of few."""
    verdict = Verdict(runs=len(expected))
    for run in expected:
        events = journal.events.get(run.source, [])
        terminals = [kind_of(e) for e in events if kind_of(e) in TERMINAL]
        verdict.terminals += len(terminals)
        verdict.duplicates += max(0, len(terminals) - 1)
        verdict.lost += not terminals
        if not terminals:
            continue
        code = (events[-1]["payload"].get("error") or {}).get("code")
        if code in BROKEN and hangs(run) and not _fault(run, events, code):
            verdict.hanging += 1
        elif fault := _fault(run, events):
            shown = " ".join(map(kind_of, events))
            verdict.wrong.append(f"{run.source} {run.words}: {fault}: {shown}")
    return verdict


def _fault(run: Expected, events: list[dict[str, Any]], code: str = "") -> str:
    """What is wrong with the events of a run that has ended; empty where nothing is.

    With `code` it had to fail with that one.
    """
    status = "failed" if code else run.status
    kinds = [kind_of(e) for e in events]
    payload = events[-1]["payload"]
    if kinds[0] != "queued" or kinds.count("queued") != 1:
        return "queued other than once"
    if kinds[-1] not in TERMINAL:
        return "something follows its end"
    if len({e["payload"]["run_id"] for e in events}) != 1:
        return "more than one run"
    if kinds[-1] != status:
        return f"{kinds[-1]} instead of {status} ({payload.get('error')})"
    if status == "failed" and payload["error"]["code"] != (code or "meant_to_fail"):
        return f"failed with {payload['error']}"
    before = (0, 0)
    for event in events:
        now = (event["payload"]["attempt"], event["payload"]["percent"])
        if now < before:
            return f"attempt and percent {before}, then {now}"
        before = now
        total = event["payload"].get("total")
        if not run.implicit and run.tasks > 1 and total not in (None, run.tasks):
            return f"a total of {total} instead of {run.tasks}"
    return ""

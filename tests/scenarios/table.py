"""The table of scenarios in the documentation: `bin/test tests/scenarios --write-table`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PATH = Path(__file__).parents[2] / "docs/reference/celery-scenarios.md"
_HEAD = """# What a client sees of what happens to a task

Written by the tests in `tests/scenarios`, from what a client of `/api/events` saw of real workers:
`bin/test tests/scenarios --write-table`. Types are those of `source.ingest.*`
([Events](events.md)); a number is the attempt's, after a colon stands an error's code or a reason,
and progress is named once for any number of it. Each run ended once, and nothing followed.
"""
PROPERTY = "scenario"  # of a test's report, with a row
_COLUMNS = ("What happens", "Pools", "Acknowledges", "What the client sees")


@dataclass(frozen=True)
class Row:
    """One scenario on one pool; `place` is its place among all."""

    place: int
    part: str
    title: str
    pool: str
    acks: str
    sees: str


def render(rows: Iterable[Row]) -> str:
    """The document: a table for each part; pools that show the same share a row."""
    parts: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.place):
        parts.setdefault(row.part, []).append(row)
    return "\n".join([_HEAD, *(_part(part, parts[part]) for part in parts)])


def _part(title: str, rows: list[Row]) -> str:
    merged: dict[tuple[str, str], dict[str, set[str]]] = {}
    for row in rows:
        pools = merged.setdefault((row.title, row.sees), {})
        pools.setdefault(row.pool, set()).add(row.acks)
    lines = [
        f"| {what} | {', '.join(pools)} | {acks} | {_steps(sees)} |"
        for (what, sees), by_pool in merged.items()
        for acks, pools in _by_acks(by_pool).items()
    ]
    head = f"| {' | '.join(_COLUMNS)} |"
    return "\n".join([f"## {title}", "", head, "|---" * len(_COLUMNS) + "|", *lines, ""])


def _by_acks(by_pool: dict[str, set[str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for pool, acks in by_pool.items():
        grouped.setdefault(" or ".join(sorted(acks)), []).append(pool)
    return grouped


def _steps(sees: str) -> str:
    if not sees:
        return "nothing"
    *steps, end = sees.split(", ")
    return " → ".join([*steps, f"**{end}**"])

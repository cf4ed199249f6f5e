"""The figures that are shown, their targets, and the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.table import Table

OURS = "eventstream"
MEMORY = "nchan-memory"
REDIS = "nchan-redis"
PEERS = (MEMORY, REDIS)

Medians = Mapping[tuple[str, str], float]  # by system and "line.figure"


@dataclass(frozen=True, slots=True)
class Figure:
    """A row. Met when within `limit`, and so many times better than each peer in `times`."""

    key: str  # "line.figure"
    label: str
    digits: int
    limit: float | None = None
    more_is_better: bool = False
    times: tuple[tuple[str, float], ...] = ()
    compared: bool = True

    def met(self, medians: Medians) -> bool | None:
        """Whether what is shown meets the target; None where it has none, or was not measured."""
        ours = medians.get((OURS, self.key))
        if ours is None or (self.limit is None and not self.times):
            return None
        if self.limit is not None and not self._at_least(ours, self.limit):
            return False
        beaten = (self.ratio(medians, peer) for peer, _ in self.times)
        return all(
            found is None or found >= factor
            for found, (_, factor) in zip(beaten, self.times, strict=True)
        )

    def _at_least(self, value: float, limit: float) -> bool:
        value = round(value, self.digits)
        return value >= limit if self.more_is_better else value <= limit

    def ratio(self, medians: Medians, peer: str) -> float | None:
        """How many times better than a peer: above 1 is better, whichever way that is."""
        ours, theirs = medians.get((OURS, self.key)), medians.get((peer, self.key))
        if not self.compared or not ours or not theirs or min(ours, theirs) < 0:
            return None
        return ours / theirs if self.more_is_better else theirs / ours

    def target(self) -> str:
        """The target in words."""
        parts = []
        if self.limit is not None:
            parts.append(f"{'≥' if self.more_is_better else '≤'} {self.show(self.limit)}")
        names = {MEMORY: "memory", REDIS: "Redis"}
        parts += [f"≥ {factor:g} x {names[peer]}" for peer, factor in self.times]
        return ", ".join(parts)

    def show(self, value: float | None) -> str:
        """A value as it stands in the table."""
        return "" if value is None else f"{value:,.{self.digits}f}"


FIGURES = (
    Figure("held.held", "connections held", 0, 10_000, more_is_better=True, compared=False),
    Figure("held.headers_s", "  all have headers after, s", 2, 5),
    Figure("held.idle_kb", "idle memory, KB a connection", 1, 12),
    Figure("frame.us", "server CPU, µs a frame", 1, 10),
    Figure("frame.frames_per_write", "  frames a write", 2, 1.05, compared=False),
    Figure("burst.s", "burst, s", 3, 0.06, times=((MEMORY, 12), (REDIS, 12))),
    Figure("fanout.frames_per_s", "fan-out, frames/s", 0, more_is_better=True),
    Figure("fanout.frames_per_write", "  frames a write", 2, compared=False),
    Figure(
        "users.events_per_s",
        "many users, events/s",
        0,
        55_000,
        more_is_better=True,
        times=((MEMORY, 1), (REDIS, 8)),
    ),
    Figure("users.server_cpu_percent", "  server CPU, % of a core", 0, compared=False),
    Figure("latency.p50_ms", "latency p50, ms", 2, 0.6),
    Figure("latency.p99_ms", "latency p99, ms", 2, 1.2),
    Figure("replay.p50_ms", "replay of 200, p50 ms", 2, 1.0),
    Figure("replay.plain_p50_ms", "  with delayed acknowledgements", 2),
    Figure(
        "replay.per_s",
        "replay of 200, requests/s",
        0,
        3500,
        more_is_better=True,
        times=((MEMORY, 2), (REDIS, 2)),
    ),
    Figure("publish.call_us", "publish, µs a call", 0, 100),
    Figure("publish.batch_us", "publish in batches, µs an event", 1, 15),
    Figure("churn.growth_percent", "memory after churn, % more", 1, 10, compared=False),
    Figure("churn.descriptors_left", "descriptors left by churn", 0, 0, compared=False),
    Figure("churn.per_s", "churn, connections/s", 0, more_is_better=True),
)


def medians_of(runs: Mapping[tuple[str, str], list[float]]) -> dict[tuple[str, str], float]:
    """The median of each figure's runs."""
    return {key: median(values) for key, values in runs.items() if values}


def table_of(medians: Medians, titles: Mapping[str, str]) -> Table:
    """The table of what was measured."""
    table = Table(title="Delivery: medians", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("figure", no_wrap=True)
    peers = [peer for peer in PEERS if peer in titles]
    for title in ("ours", "target", *(titles[peer] for peer in peers)):
        table.add_column(title, justify="right", no_wrap=True)
    if peers:
        table.add_column("x better", justify="right")
    table.add_column("met")
    for figure in FIGURES:
        values = [medians.get((system, figure.key)) for system in (OURS, *peers)]
        if any(value is not None for value in values):
            table.add_row(*_row(figure, medians, values, peers))
    return table


def _row(
    figure: Figure, medians: Medians, values: list[float | None], peers: list[str]
) -> list[str]:
    shown = [figure.show(value) for value in values]
    ratios = [figure.ratio(medians, peer) for peer in peers]
    texts = ["-" if ratio is None else f"{ratio:.1f}" for ratio in ratios]
    better = [" / ".join(texts) if any(ratios) else ""] if peers else []
    met = {True: "yes", False: "NO", None: ""}[figure.met(medians)]
    return [figure.label, shown[0], figure.target(), *shown[1:], *better, met]

"""The figures of all runs, as they come, and as JSON."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console

from benchmarks.loadgen import LoadgenFailed
from benchmarks.measures import Figures, Plan
from benchmarks.table import FIGURES, medians_of
from worker.cli.children import ChildFailed

FAILURES = (ChildFailed, LoadgenFailed)

say = Console(stderr=True, highlight=False)


@dataclass
class Results:
    """Each figure's runs, by system and "line.figure", and what could not be measured."""

    runs: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    failures: list[str] = field(default_factory=list)

    def take(self, system: str, line: str, measure: Callable[[], Figures]) -> None:
        """Measures once and keeps the figures."""
        began = time.monotonic()
        try:
            figures = measure()
        except FAILURES as error:
            self.failures.append(f"{system}: {line}: {error}")
            say.print(f"{system:13} {line:8} failed: {error}", style="red", markup=False)
            return
        for name, value in figures.items():
            self.runs[system, f"{line}.{name}"].append(value)
        shown = ", ".join(f"{name} {value:,.6g}" for name, value in figures.items())
        took = time.monotonic() - began
        say.print(f"{system:13} {line:8} {shown}  ({took:.0f} s)", markup=False, soft_wrap=True)

    def as_json(self, plan: Plan, runs: int) -> str:
        """All figures: medians and single runs, which targets are met, what failed."""
        medians = medians_of(self.runs)
        figures: dict[str, dict[str, dict[str, object]]] = defaultdict(dict)
        for (system, key), values in self.runs.items():
            figures[system][key] = {"median": medians[system, key], "runs": values}
        met = {figure.key: figure.met(medians) for figure in FIGURES}
        document = {
            "runs": runs,
            "seconds": plan.seconds,
            "figures": figures,
            "targets_met": {key: value for key, value in met.items() if value is not None},
            "failures": self.failures,
        }
        return json.dumps(document, indent=2)

"""The benchmark of the message journal as a program: that it measures, not how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import environment

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "journal.py"


@pytest.mark.timeout(300)
def test_every_figure_is_measured(tmp_path: Path) -> None:
    found = tmp_path / "figures.json"
    options = ["--only", "write,prune", "--seconds", "1", "--rows", "20000", "--json", str(found)]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *options],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    medians = json.loads(found.read_text())["medians"]
    for way in ("ours", "events", "batches"):
        for name in ("events_per_s", "commits_per_s", "cpu_percent", "p50_ms", "p99_ms"):
            assert 0 < medians[f"{way}.50.{name}"] < float("inf"), (way, name)
    assert medians["ours.1.events_per_s"] > 0
    assert medians["prune.s"] > 0 and medians["prune.delete_s"] > 0

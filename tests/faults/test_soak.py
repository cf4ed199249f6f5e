"""A small soak: runs of random shape on workers that are killed. The whole: benchmarks/soak.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.soak_verdict import Expected, Journal, judge
from tests.servers import environment

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "soak.py"


@pytest.mark.timeout(500)
def test_every_run_of_a_small_soak_ends_once_and_as_its_shape_says() -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--runs", "60"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    last = done.stdout.splitlines()[-1]
    assert last.startswith("runs 60, terminals 60, duplicates 0, wrong 0, lost 0"), said


def told(*kinds: str, percents: tuple[int, ...] = (), code: str = "", total: int = 3) -> Journal:
    """A journal with these events of one run."""
    journal = Journal.__new__(Journal)
    journal.events = {"s": []}
    for number, kind in enumerate(kinds):
        payload = {"run_id": "r", "attempt": 1, "percent": (*percents, *[50] * 9)[number]}
        payload |= {"total": total, "error": {"code": code}}
        journal.events["s"].append({"type": f"source.ingest.{kind}", "payload": payload})
    return journal


RIGHT = ("queued", "started", "completed")


@pytest.mark.parametrize(
    ("journal", "status", "line"),
    [
        (told(*RIGHT), "completed", "terminals 1, duplicates 0, wrong 0, lost 0"),
        (told(*RIGHT, "completed"), "completed", "terminals 2, duplicates 1, wrong 0, lost 0"),
        (told(*RIGHT, "progress"), "completed", "terminals 1, duplicates 0, wrong 1, lost 0"),
        (told(*RIGHT), "failed", "terminals 1, duplicates 0, wrong 1, lost 0"),
        (told("queued", "started"), "completed", "terminals 0, duplicates 0, wrong 0, lost 1"),
        (told(*RIGHT, percents=(9, 8)), "completed", "terminals 1, duplicates 0, wrong 1, lost 0"),
        (told(*RIGHT, total=4), "completed", "terminals 1, duplicates 0, wrong 1, lost 0"),
        (
            told("queued", "failed", code="meant_to_fail"),
            "failed",
            "terminals 1, duplicates 0, wrong 0, lost 0",
        ),
        (
            told("queued", "failed", code="worker_lost"),
            "failed",
            "terminals 1, duplicates 0, wrong 1, lost 0",
        ),
    ],
)
def test_the_soak_sees_what_is_off(journal: Journal, status: str, line: str) -> None:
    verdict = judge([Expected("chain", status, 3, False, "s")], journal, lambda run: False)
    assert verdict.line() == f"runs 1, {line}"


def test_a_chord_that_celery_left_hanging_is_counted_apart_if_the_run_failed_for_it() -> None:
    run = [Expected("chain", "completed", 3, False, "s")]
    broken = told("queued", "failed", code="chain_broken")
    assert judge(run, broken, lambda run: True).line().endswith("hanging by Celery: 1)")
    assert len(judge(run, broken, lambda run: False).wrong) == 1
    assert len(judge(run, told("queued", "failed", code="poison"), lambda run: True).wrong) == 1
    goes_on = told("queued", "failed", "progress", code="chain_broken")
    assert len(judge(run, goes_on, lambda run: True).wrong) == 1

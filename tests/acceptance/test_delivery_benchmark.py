"""The benchmark of delivery as a program: that it measures what it says, not how fast this is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import environment

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "delivery.py"
COMPILERS = [os.environ.get("CC", "cc"), "cc", "gcc", "clang"]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the load generator needs epoll: Linux"),
    pytest.mark.skipif(
        not any(map(shutil.which, COMPILERS)),
        reason="the load generator is C: install gcc or clang, or name a compiler in CC",
    ),
]


def test_every_frame_of_a_burst_and_of_each_replay_arrives_and_is_counted(tmp_path: Path) -> None:
    found = tmp_path / "figures.json"
    options = "--only replay,burst --connections 50 --seconds 1 --runs 1 --no-nchan --no-auth"
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *options.split(), "--json", str(found)],
        env=environment(XDG_CACHE_HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(found.read_text())
    assert document["failures"] == []
    figures = {key: runs["median"] for key, runs in document["figures"]["eventstream"].items()}
    assert figures["burst.expected"] == 100 * 50
    assert figures["burst.arrived"] == figures["burst.expected"]
    assert figures["burst.s"] > 0
    assert figures["replay.expected"] >= 200
    assert figures["replay.arrived"] == figures["replay.expected"]
    assert figures["replay.broken"] == 0
    assert figures["replay.p50_ms"] > 0

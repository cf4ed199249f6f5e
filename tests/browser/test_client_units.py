"""The client's unit tests, which Node's own test runner runs: Playwright brings a Node along."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from playwright._impl._driver import compute_driver_executable

TESTS = Path(__file__).parents[1] / "client"


@pytest.mark.parametrize("file", sorted(TESTS.glob("*.test.mjs")), ids=lambda file: file.stem)
def test_the_client_keeps_its_rules_in_every_case(file: Path) -> None:
    node = compute_driver_executable()[0]
    ran = subprocess.run(
        [node, "--test", "--test-reporter=tap", str(file)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "# pass 0" not in ran.stdout

"""Runs a lab once, whoever asks first, with all of its scenarios side by side; writes the table."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios import running, table
from tests.scenarios.cases import Case, Seen
from tests.scenarios.lab import Plan

Observe = Callable[[Plan, Case], Seen]
_WRITE = "--write-table"


@pytest.fixture(scope="session")
def observe(request: pytest.FixtureRequest, server_folder: Path) -> Observe:
    """What a case's client saw, in a lab with all selected cases of its plan.

    Test processes that run side by side share what they saw: a lab is set up once.
    """
    selected = [_case(item) for item in request.session.items]

    broken: dict[Plan, Exception] = {}

    @cache
    def observe_all(plan: Plan) -> dict[str, Seen]:
        cases = [case for case in selected if case is not None and case.plan == plan.name]

        def see() -> list[Seen]:
            if plan in broken:
                raise broken[plan]
            try:
                return running.run(plan, cases, server_folder)
            except Exception as error:  # a lab that can't be set up is not tried for each case
                broken[plan] = error
                raise

        seen = _once(plan.name, see, request.config)
        return {str(case): one for case, one in zip(cases, seen, strict=True)}

    return lambda plan, case: observe_all(plan)[str(case)]


def _case(item: pytest.Item) -> Case | None:
    call = getattr(item, "callspec", None)
    case = call.params.get("case") if call else None
    return case if isinstance(case, Case) else None


def _once(name: str, see: Callable[[], list[Seen]], config: pytest.Config) -> list[Seen]:
    """Calls `see` in one of several test processes; the others read what it returned."""
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if session is None:
        return see()
    shared: Any = config._tmp_path_factory.getbasetemp().parent  # type: ignore[attr-defined]
    kept = Path(shared) / f"scenarios-{name}-{session}.json"
    with _locked(kept.with_suffix(".lock")):
        if not kept.exists():
            kept.write_text(json.dumps([asdict(one) for one in see()]))
        return [Seen(**one) for one in json.loads(kept.read_text())]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    text = f"write {table.PATH.name} from what the scenarios' clients saw"
    parser.addoption(_WRITE, action="store_true", default=False, help=text)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption(_WRITE, False) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_TableWriter())


class _TableWriter:
    """Collects what every passed scenario's client saw; test processes report it to this one."""

    def __init__(self) -> None:
        self.rows: list[table.Row] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            for name, row in report.user_properties:
                if name == table.PROPERTY and isinstance(row, dict):
                    self.rows.append(table.Row(**row))

    def pytest_sessionfinish(self) -> None:
        table.PATH.write_text(table.render(self.rows))

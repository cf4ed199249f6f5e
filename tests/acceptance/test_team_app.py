"""The example of a team's own project: its README's commands, run as written, elsewhere."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.commands import wait_until
from tests.servers import environment, free_port, stop
from worker.cli.children import Child, spawn

PROJECT = Path(__file__).parents[2] / "examples" / "team_app"
TERMINAL = {"completed", "failed", "cancelled"}


class Project:
    """A copy of the example, and its processes."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("__pycache__"))
        self.folder = folder
        self.lines: list[str] = []
        self.ports = {"5000": str(free_port()), "8000": str(free_port())}
        text = (folder / "README.md").read_text()
        self.commands = re.findall(r"^\$ (.+)$", text, re.MULTILINE)
        programs = str(Path(sys.executable).parent)
        env = environment(REDIS_URL=redis_url)
        self._env = env | {
            "PATH": f"{programs}:{env['PATH']}",
            "FLASK_RUN_PORT": self.ports["5000"],
            "UVICORN_PORT": self.ports["8000"],
            "EVENTS_URL": f"http://localhost:{self.ports['8000']}",
        }

    def url(self, port: str) -> str:
        return f"http://localhost:{self.ports[port]}"

    @contextmanager
    def running(self, *starts: str) -> Iterator[None]:
        """Runs the README's commands that start so, until the block's end."""
        with ExitStack() as stack:
            for start in starts:
                (command,) = [c for c in self.commands if start in c]
                stack.enter_context(self._process(command))
            for port in self.ports:
                wait_until(partial(self._answers, port), f"{port}: {self.lines[-30:]}")
            yield

    @contextmanager
    def _process(self, command: str) -> Iterator[Child]:
        words = shlex.split(command.replace(":5000", f":{self.ports['5000']}"))
        env = dict(self._env)
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            env[name] = value if name != "DATABASE_URL" else "postgresql://nobody@127.0.0.1:1/none"
        program = shutil.which(words[0], path=env["PATH"])
        assert program is not None, words[0]
        child = spawn(
            words[0],
            [program, *words[1:]],
            env=env,
            cwd=self.folder,
            sink=lambda name, line: self.lines.append(line),
        )
        try:
            yield child
        finally:
            stop(child)

    def _answers(self, port: str) -> bool:
        try:
            return httpx.get(self.url(port), trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def upload(self, name: str, rows: str) -> dict[str, Any]:
        """What the README's `curl` does, as it stands there."""
        (command,) = [c for c in self.commands if c.startswith("curl")]
        _, _, file, address = shlex.split(command)
        assert file == "@spring.csv" and (self.folder / file[1:]).exists()
        target = address.replace(":5000", f":{self.ports['5000']}").replace("spring", name)
        answer = httpx.post(target, content=rows, trust_env=False)
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def watch(self, address: str) -> list[dict[str, Any]]:
        """The events that a page of the shop gets from there, up to the run's end."""
        events: list[dict[str, Any]] = []
        headers = {"Origin": self.url("5000")}
        with httpx.stream("GET", address, headers=headers, trust_env=False, timeout=40) as answer:
            assert answer.headers["access-control-allow-origin"] == self.url("5000")
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    events.append(json.loads(line[6:]))
                    if kind(events[-1]) in TERMINAL:
                        return events
        raise AssertionError(events)


def kind(event: dict[str, Any]) -> str:
    return str(event["type"]).removeprefix("source.ingest.")


@pytest.fixture
def project(tmp_path: Path, redis_url: str) -> Project:
    return Project(tmp_path / "shop", redis_url)


def imported(project: Project) -> None:
    """Uploads price lists as the README says, and looks at what a page is told of them."""
    rows = (project.folder / "spring.csv").read_text()
    answer = project.upload("spring", rows)
    events = project.watch(answer["watch"])
    kinds = [kind(e) for e in events if kind(e) != "progress"]
    assert kinds == ["queued", "started", "completed"]
    payloads = [e["payload"] for e in events]
    assert {p["run_id"] for p in payloads} == {answer["run_id"]}
    assert payloads[0]["name"] == "Price list spring"
    checked = [(p["total"], p["unit"]) for p in payloads if p.get("stage") == "check"]
    assert set(checked) == {(10, "batches")}
    assert payloads[-1]["prices"] == 1000
    assert len(json.loads((project.folder / "prices" / "spring.json").read_text())) == 1000

    broken = project.watch(project.upload("summer", "pencil,0.80\npen\n")["watch"])
    assert broken[-1]["payload"]["error"]["message"].startswith("The price list has a row")
    assert broken[-1]["payload"]["row"] == "pen"


def test_a_teams_own_application_is_watched(project: Project) -> None:
    starts = ("celery -A team worker", "celery -A team beat", "flask", "uvicorn", "eventstream")
    with project.running(*starts):
        imported(project)
        wait_until(lambda: any('"prices":1000' in line for line in project.lines), "the tail")


def test_so_are_its_tasks_in_our_worker(project: Project) -> None:
    with project.running("celery -A worker worker", "celery -A worker beat", "flask", "uvicorn"):
        imported(project)


def test_every_command_of_the_readme_is_run_here(project: Project) -> None:
    known = ("export", "celery -A", "flask", "uvicorn", "eventstream", "curl")
    assert [c for c in project.commands if not any(word in c for word in known)] == []
    assert len(project.commands) == 9


def test_an_import_is_cancelled_and_a_second_one_is_refused(project: Project) -> None:
    with project.running("flask", "uvicorn"):  # no worker: it waits
        first = project.upload("autumn", "pencil,0.80")
        target = f"{project.url('5000')}/price-lists/autumn"
        assert httpx.post(target, content="pen,1", trust_env=False).status_code == 409
        target = f"{project.url('5000')}/imports/{first['run_id']}"
        began = time.monotonic()
        assert httpx.delete(target, trust_env=False).json() == {"cancelled": True}
        assert time.monotonic() - began < 5
        assert [kind(e) for e in project.watch(first["watch"])] == ["queued", "cancelled"]

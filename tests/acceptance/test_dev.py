"""`eventstream dev` and the commands beside it, as a person at a shell uses them."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
import redis

from shared import keys
from tests.commands import Command, alive, eventstream, wait_until
from worker.cli.embedded import free_port


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data folder for this module: each test's stack starts on what the one before left."""
    return tmp_path_factory.mktemp("stack") / "data"


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """One stack for the tests that only look."""
    data = tmp_path_factory.mktemp("standing") / "data"
    with eventstream("dev", "--data", str(data), "--port", str(free_port())) as command:
        command.wait_for("ready http://")
        yield command


@pytest.fixture
def stack(data: Path) -> Iterator[Command]:
    with eventstream("dev", "--data", str(data), "--port", str(free_port())) as command:
        command.wait_for("ready http://")
        yield command


def folder_of(stack: Command) -> Path:
    arguments = psutil.Process(stack.child.pid).cmdline()
    return Path(arguments[arguments.index("--data") + 1])


def run(*arguments: str, **variables: str) -> tuple[int, str]:
    with eventstream(*arguments, cwd=None, **variables) as command:
        return command.wait(), command.output


def test_everything_answers_once_it_says_ready(standing: Command) -> None:
    url = standing.wait_for("ready http://").removeprefix("ready ")
    assert httpx.get(f"{url}/healthz", trust_env=False).json() == {"success": True}
    for name in ("redis", "postgres", "web", "worker", "beat"):
        assert any(line.startswith(f"{name:<8} | ") for line in standing.lines), name
    code, output = run("env", "--data", str(folder_of(standing)))
    addresses = dict(line.split("=", 1) for line in output.splitlines())
    assert code == 0
    with redis.Redis.from_url(addresses["REDIS_URL"]) as client:
        assert client.ping()
    psycopg.connect(addresses["DATABASE_URL"]).close()


def test_secrets_are_their_owners_alone(standing: Command) -> None:
    data = folder_of(standing)
    for name in ("secrets.json", "stack.json", "redis.conf", "procs.json"):
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600, name
    arguments = [" ".join(p.cmdline()) for p in standing.descendants()]
    secrets = json.loads((data / "secrets.json").read_text())
    assert not [a for a in arguments for secret in secrets.values() if secret in a]


def test_without_a_port_any_two_stacks_run_side_by_side(tmp_path: Path) -> None:
    with (
        eventstream("dev", "--data", str(tmp_path / "one")) as one,
        eventstream("dev", "--data", str(tmp_path / "two")) as two,
    ):
        assert one.wait_for("ready http://") != two.wait_for("ready http://")


def test_a_second_one_on_the_folder_is_refused(standing: Command) -> None:
    code, output = run("dev", "--data", str(folder_of(standing)))
    assert code == 1
    assert f"process {standing.child.pid}" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_in_order(
    stack: Command, data: Path, number: signal.Signals
) -> None:
    processes = stack.descendants()
    stack.send(number)
    assert stack.wait() == 0
    assert not alive(processes)
    assert "database system is shut down" in stack.output
    assert "ready to exit, bye bye" in stack.output
    assert run("env", "--data", str(data))[0] == 1


def test_a_second_signal_stops_everything_at_once(stack: Command) -> None:
    processes = stack.descendants()
    worker = next(p for p in processes if "worker" in p.cmdline())
    worker.suspend()  # does not react to being asked
    stack.send(signal.SIGINT)
    stack.wait_for("stopping")
    stack.send(signal.SIGINT)
    assert stack.wait() == 128 + signal.SIGINT
    wait_until(lambda: not alive(processes), "the end of all children")


@pytest.mark.parametrize("name", ["web", "worker", "redis"])
def test_the_end_of_one_process_ends_all_with_the_reason(stack: Command, name: str) -> None:
    processes = stack.descendants()
    recorded = json.loads((folder_of(stack) / "procs.json").read_text())
    pid = next(pid for who, pid, _ in recorded if who == name)
    os.kill(pid, signal.SIGKILL)
    assert stack.wait() == 1
    assert f"Error: {name} was ended by signal 9" in stack.output
    wait_until(lambda: not alive(processes), "the end of all children")


def test_a_process_that_can_not_start_is_said_with_its_last_lines(data: Path) -> None:
    code, output = run("dev", "--data", str(data), WORKER_IMPORTS="no_such_module")
    assert code == 1
    _, _, reason = output.partition("\nError: ")
    assert reason.startswith(("worker ended with exit code 1.", "beat ended with exit code 1."))
    assert "No module named 'no_such_module'" in reason


def test_only_the_named_processes_run(data: Path) -> None:
    with eventstream("dev", "--data", str(data), "--processes", "beat, worker") as command:
        command.wait_for("ready worker,beat")
        assert not any(line.startswith("web ") for line in command.lines)


def test_an_explicit_port_that_is_taken_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, output = run("dev", "--data", str(tmp_path / "data"), "--port", port)
    assert code == 1
    assert output == f"Error: Can't listen on 127.0.0.1 port {port}: Address already in use."
    assert not (tmp_path / "data").exists()


def test_an_address_that_others_reach_needs_a_word(tmp_path: Path) -> None:
    code, output = run("dev", "--data", str(tmp_path / "data"), "--host", "0.0.0.0")
    assert code == 1
    assert "ALLOW_ANONYMOUS=true" in output


def test_a_wrong_setting_is_said(tmp_path: Path) -> None:
    code, output = run("dev", "--data", str(tmp_path / "data"), SSE_KEEPALIVE_SECONDS="0")
    assert code == 1
    assert output.startswith("Error: SSE_KEEPALIVE_SECONDS is wrong")


def test_servers_that_are_named_are_used(redis_url: str, database_url: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with eventstream(
        "dev",
        *("--data", str(data), "--port", str(free_port())),
        REDIS_URL=redis_url,
        DATABASE_URL=database_url,
    ) as command:
        command.wait_for("ready http://")
        names = {who for who, _, _ in json.loads((data / "procs.json").read_text())}
        assert names == {"web", "worker", "beat"}
        _, output = run("env", "--data", str(data))
        assert output == f"REDIS_URL={redis_url}\nDATABASE_URL={database_url}"


def test_a_redis_that_is_named_and_not_there_is_said(tmp_path: Path) -> None:
    url = "redis://:secret@127.0.0.1:1/0"
    code, output = run("dev", "--data", str(tmp_path / "data"), REDIS_URL=url)
    assert code == 1
    assert "REDIS_URL" in output
    assert "secret" not in output


def test_migrate_says_what_it_did(database_url: str) -> None:
    code, output = run("migrate", DATABASE_URL=database_url)
    assert (code, output) == (0, "nothing to do: the schema is up to date")


def test_migrate_says_what_is_missing() -> None:
    code, output = run("migrate")
    assert code == 1
    assert "DATABASE_URL is not set" in output
    code, output = run("migrate", DATABASE_URL="postgresql://a:secret@127.0.0.1:1/none")
    assert code == 1
    assert "can't be reached" in output
    assert "secret" not in output


def test_tail_prints_an_event_a_line_and_ends_quietly(redis_url: str) -> None:
    body = '{"type":"report.ready","payload":{}}'
    with redis.Redis.from_url(redis_url) as client:
        fields: dict[str, str] = {"p": "0-0", "t": "token", "e": body}
        client.xadd(keys.stream("alice"), fields, id="1-0")
    with eventstream("tail", "alice", "--since", "0", REDIS_URL=redis_url) as command:
        line = command.wait_for("report.ready")
        assert line == '{"id":"1-0","type":"report.ready","payload":{}}'
        command.send(signal.SIGINT)
        assert (command.wait(), command.lines) == (0, [line])


def test_tail_follows_a_server(standing: Command) -> None:
    url = standing.wait_for("ready http://").removeprefix("ready ")
    with eventstream("tail", "local", "--since", "0", "--url", url) as command:
        answer = httpx.post(
            f"{url}/api/sources", files={"file": ("a.md", b"# A\n\nText.")}, trust_env=False
        )
        line = command.wait_for("source.ingest.completed")
        assert json.loads(line)["scope"]["id"] == answer.json()["source_id"]


def test_a_wrong_cursor_is_said() -> None:
    code, output = run("tail", "alice", "--since", "yesterday")
    assert code == 2
    assert "1718900000000-0" in output


def test_on_a_terminal_names_have_colours_unless_no_color_says_no(tmp_path: Path) -> None:
    for variables, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "worker.cli", "dev", "--data", str(tmp_path / "data")]
        environment = {"PATH": os.environ["PATH"], "TERM": "xterm", **variables}
        command += ["--processes", "beat"]
        with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as process:
            os.close(theirs)
            output = b""
            while b"ready beat" not in output:
                output += os.read(ours, 4096)
            process.terminate()
            while _read(ours):
                continue
            assert process.wait(30) == 0
        os.close(ours)
        assert (b"\x1b[" in output) is coloured


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux says so when the other side is closed
        return b""

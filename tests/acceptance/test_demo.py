"""`eventstream demo`: real documents through the whole application."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import httpx
import pytest

from tests.commands import alive, eventstream
from worker.cli.embedded import free_port


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "data"


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    folder = tmp_path / "papers"
    folder.mkdir()
    for name in ("one.md", "two.md", "three.txt"):
        (folder / name).write_text(f"# {name}\n\n" + "A sentence about herons. " * 200)
    return folder


def options(data: Path) -> tuple[str, ...]:
    return ("--data", str(data), "--port", str(free_port()))


def types_by_source(lines: list[str]) -> dict[str, list[str]]:
    """The types of each source's events, in order, as the plain form prints them."""
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("{"):
            event = json.loads(line)
            kind = event["type"].removeprefix("source.ingest.")
            found.setdefault(event["payload"]["name"], []).append(kind)
    return found


def test_every_source_goes_from_queued_through_progress_to_completed(
    data: Path, papers: Path
) -> None:
    paths = [str(papers), str(papers / "one.md")]
    with eventstream("demo", *paths, "--exit", *options(data)) as command:
        assert command.wait() == 0, command.output
        told = types_by_source(command.lines)
    assert set(told) == {"papers", "one.md"}
    for kinds in told.values():
        assert kinds[0] == "queued"
        assert kinds.index("queued") < kinds.index("progress") < kinds.index("completed")
        assert kinds[-1] == "completed"
    assert "2 sources: 2 completed, 0 failed" in command.output
    assert "page: http://127.0.0.1:" in command.output


def test_by_default_the_projects_own_documentation_is_ingested(data: Path) -> None:
    with eventstream("demo", "--exit", *options(data)) as command:
        assert command.wait() == 0, command.output
    told = types_by_source(command.lines)
    assert "guide.pdf" in told
    assert {kinds[-1] for kinds in told.values()} == {"completed"}


def test_a_source_that_fails_is_counted_and_said(data: Path, papers: Path) -> None:
    broken = papers / "broken.pdf"
    broken.write_bytes(b"%PDF-1.7 and nothing that follows")
    with eventstream("demo", str(broken), "--exit", *options(data)) as command:
        assert command.wait() == 1, command.output
    assert types_by_source(command.lines)["broken.pdf"][-1] == "failed"
    assert "1 source: 0 completed, 1 failed" in command.output


def test_an_upload_that_is_refused_is_said_in_the_servers_words(data: Path, papers: Path) -> None:
    arguments = ("demo", str(papers), "--exit", *options(data))
    with eventstream(*arguments, UPLOAD_MAX_BYTES="100") as command:
        assert command.wait() == 1, command.output
    assert "papers: An upload may have" in command.output


def test_without_exit_it_serves_until_ctrl_c(data: Path, papers: Path) -> None:
    with eventstream("demo", str(papers / "one.md"), *options(data)) as command:
        command.wait_for("Serving until Ctrl-C")
        url = command.wait_for("page: ").removeprefix("page: ")
        assert httpx.get(url, trust_env=False).status_code == 200
        processes = command.descendants()
        command.send(signal.SIGINT)
        assert command.wait() == 0, command.output
        assert not alive(processes)


def test_an_unknown_path_is_said_before_anything_starts(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with eventstream("demo", str(tmp_path / "none"), *options(data)) as command:
        assert command.wait() == 1
    assert command.output == f"Error: {tmp_path / 'none'} does not exist."
    assert not data.exists()


def test_a_stack_that_can_not_start_shows_its_last_lines(data: Path, papers: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ("demo", str(papers), "--port", port, "--data", str(data))
        with eventstream(*arguments) as command:
            assert command.wait() == 1
    assert f"port {port}: Address already in use" in command.output
    assert "Address already in use" in (data / "dev.log").read_text()

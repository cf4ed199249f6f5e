"""The parts of the development stack that need no process."""

from __future__ import annotations

import io

import click
import pytest

from worker.cli.dev import _names
from worker.cli.logs import MergedLog, wants_colour
from worker.cli.redis_server import configuration
from worker.cli.stack import is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_addresses_are_this_machines_alone(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.evil"])
def test_other_addresses_are_not(host: str) -> None:
    assert not is_loopback(host)


def names(text: str) -> list[str]:
    context = click.Context(click.Command("dev"))
    return _names(context, click.Option(["--processes"]), text)


def test_processes_are_named_in_any_order_and_started_in_one() -> None:
    assert names("beat, web") == ["web", "beat"]
    for wrong in ("", ",", "web,flower"):
        with pytest.raises(click.BadParameter, match="web,worker,beat"):
            names(wrong)


def test_log_lines_carry_their_process() -> None:
    stream = io.StringIO()
    log = MergedLog(stream)
    log("web", "a line")
    log("postgres", "another")
    log.say("ready http://127.0.0.1:8000")
    assert stream.getvalue() == (
        "web      | a line\npostgres | another\nready http://127.0.0.1:8000\n"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_that_may_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wants_colour(Terminal())
    assert not wants_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Terminal())


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_log_that_nobody_reads_stops_nothing() -> None:
    log = MergedLog(Closed())
    log("web", "a line")
    log("web", "another")


def test_a_broker_never_evicts_and_an_embedded_one_listens_on_loopback_alone() -> None:
    lines = configuration("secret", durable=True).splitlines()
    assert "maxmemory-policy noeviction" in lines
    assert "bind 127.0.0.1" in lines
    assert "appendfsync everysec" in lines

"""`eventstream token`, and what `tail` does with one."""

from __future__ import annotations

import time

import pytest
from click.testing import CliRunner, Result

from shared.settings import get_settings
from tests.signing import SECRET
from web.tokens import Tokens
from worker.cli.main import main


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_a_token_is_printed_that_the_web_process_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("JWT_SECRET_KEY", SECRET),
        ("JWT_AUDIENCE", "eventstream"),
        ("JWT_ISSUER", "here"),
    ):
        monkeypatch.setenv(name, value)
    done = run("token", "alice", "--ttl", "90")
    assert done.exit_code == 0, done.output
    identity = Tokens(get_settings()).verify(done.output.strip())
    assert identity.user_id == "alice"
    assert identity.expires_at == pytest.approx(time.time() + 90, abs=3)
    assert not identity.is_operator


def test_a_token_may_be_an_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET_KEY", SECRET)
    for claim in ("operator", "https://acme.test/operator"):
        monkeypatch.setenv("JWT_OPERATOR_CLAIM", claim)
        done = run("token", "olga", "--operator")
        assert Tokens(get_settings()).verify(done.output.strip()).is_operator


@pytest.mark.parametrize(
    ("secret", "arguments", "reason"),
    [
        (None, ("token", "alice"), "JWT_SECRET_KEY is not set"),
        (SECRET, ("token", " "), "needs a user id"),
        (SECRET, ("token", "alice", "--ttl", "0"), "--ttl"),
        ("short", ("token", "alice"), "JWT_SECRET_KEY is wrong"),
        (SECRET, ("tail", "alice", "--url", "http://x", "--token", "a\nb"), "without spaces"),
        (SECRET, ("tail", "alice", "--url", "http://x", "--token", "caf\u00e9"), "without spaces"),
    ],
)
def test_what_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, secret: str | None, arguments: tuple[str, ...], reason: str
) -> None:
    if secret is not None:
        monkeypatch.setenv("JWT_SECRET_KEY", secret)
    done = run(*arguments)
    assert done.exit_code != 0
    assert reason in done.output
    assert "Traceback" not in done.output
    assert "short" not in done.output

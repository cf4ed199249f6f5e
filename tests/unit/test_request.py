"""What a request says: its cookies and its token."""

from __future__ import annotations

import pytest
from flask import Flask

from web.api.user import flask_request
from web.request import Request


def test_an_odd_cookie_spoils_no_other() -> None:
    header = 'prefs={"a": [1]}; x[=1; caf\u00e9=\u00e9; ;; =; a=1; quoted="b c"; a=2'
    cookies = Request({"cookie": header}).cookies
    assert (cookies["a"], cookies["quoted"]) == ("1", "b c")


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Bearer", ""),
        ("Basic abc", None),
        ("abc", None),
        ("", None),
    ],
)
def test_a_token_follows_the_word_bearer(header: str, token: str | None) -> None:
    assert Request({"authorization": header}).bearer_token == token


def test_under_a_prefix_the_path_is_the_applications_own() -> None:
    with Flask("x").test_request_context("/api/events", base_url="http://localhost/live"):
        request = flask_request()
    assert (request.root_path, request.path) == ("/live", "/api/events")

"""What a request says: its cookies and its token."""

from __future__ import annotations

import pytest

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

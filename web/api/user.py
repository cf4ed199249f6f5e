"""The user of the request that Flask is serving."""

from __future__ import annotations

from flask import request

from shared.settings import get_settings
from web.auth import identify


def request_user() -> str:
    """Returns the user's id; raises Refusal (401) for nobody."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return identify(headers, get_settings())

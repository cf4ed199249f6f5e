"""The user of the request that Flask is serving."""

from __future__ import annotations

from flask import request

from shared.settings import get_settings
from web.auth import Identity, authenticator
from web.identity import not_operator
from web.request import Request


def flask_request() -> Request:
    """The request in the form that both faces share."""
    return Request(
        {name.lower(): value for name, value in request.headers.items()},
        request.args.to_dict(),
        request.method,
        request.path,
        request.scheme,
        request.remote_addr or "",
        request.root_path,
    )


def request_identity() -> Identity:
    """Who is asking; raises as `Authenticator.identify` does."""
    return authenticator().identify(flask_request())


def require_operator() -> None:
    """Returns where an operator is asking.

    Raises:
        Refusal: 401 for nobody; 403 `not_operator` for anybody else.
    """
    if request_identity().is_operator is not True:  # a host may return what is no bool
        raise not_operator(get_settings())


def request_user() -> str:
    """Returns the user's id; raises Refusal (401) for nobody."""
    return request_identity().user_id

"""Streams of events under plain WSGI: the same driver, through the portal.

Under ASGI the entrypoint answers these paths before Flask sees them, but for HEAD and OPTIONS.
"""

from __future__ import annotations

import socket
from typing import Any

from flask import Blueprint, Response, request

from web.api.messages import find_message, owner
from web.api.user import flask_request, request_user
from web.portal import answer_stream
from web.stream import HEADERS

blueprint = Blueprint("events", __name__)


@blueprint.get("/api/events")
def user_events() -> Response:
    """Streams the user's events; HEAD opens no stream."""
    if request.method == "HEAD":
        request_user()
        return Response(status=200, headers=HEADERS)
    return _stream()


@blueprint.get("/api/messages/<message_id>/events")
def message_events(message_id: str) -> Response:
    """Streams an answer; HEAD opens no stream."""
    if request.method == "HEAD":
        find_message(owner(), message_id)
        return Response(status=200, headers=HEADERS)
    return _stream()


def _stream() -> Response:
    answer = answer_stream(flask_request(), _connection(request.environ))
    return Response(answer.body, answer.status, answer.headers, direct_passthrough=True)


def _connection(environ: dict[str, Any]) -> socket.socket | None:
    """The client's socket, where the server hands it on: `flask run` and gunicorn do."""
    found = environ.get("werkzeug.socket") or environ.get("gunicorn.socket")
    return found if isinstance(found, socket.socket) else None

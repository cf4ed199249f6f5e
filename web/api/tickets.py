"""`/api/events/ticket`: with which EventSource opens the stream, and the end of its session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint

from shared.settings import get_settings
from web.api.user import flask_request, request_identity
from web.refusal import Refusal
from web.tickets import Tickets

blueprint = Blueprint("tickets", __name__)


@blueprint.post("/api/events/ticket")
def create_ticket() -> tuple[dict[str, Any], dict[str, str]]:
    """A single-use ticket for whoever is asking; 404 where the host application decides alone."""
    identity = request_identity()
    if get_settings().auth_type == "callable":
        message = (
            "There are no tickets with AUTH_TYPE=callable: AUTH_CALLABLE lets in whom it will."
        )
        raise Refusal(404, "not_found", message)
    ticket = Tickets().issue(identity)
    answer = {"success": True, "ticket": ticket.text, "expires_in": ticket.expires_in_seconds}
    return answer, {"Cache-Control": "no-store"}


@blueprint.delete("/api/events/ticket")
def delete_session() -> tuple[dict[str, Any], Mapping[str, str]]:
    """Signs out: ends the session that a ticket's use has opened, where there is one."""
    return {"success": True}, Tickets().close_session(flask_request())

"""`POST /api/events/ticket`: a ticket with which EventSource opens the stream."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from shared.settings import get_settings
from web.api.user import request_identity
from web.refusal import Refusal
from web.tickets import Tickets

blueprint = Blueprint("tickets", __name__)


@blueprint.post("/api/events/ticket")
def create_ticket() -> tuple[dict[str, Any], dict[str, str]]:
    """A single-use ticket for whoever is asking; 404 where the host application decides alone."""
    identity = request_identity()
    settings = get_settings()
    if settings.auth_type == "callable":
        message = (
            "There are no tickets with AUTH_TYPE=callable: AUTH_CALLABLE lets in whom it will."
        )
        raise Refusal(404, "not_found", message)
    ticket = Tickets(settings).issue(identity)
    answer = {"success": True, "ticket": ticket.text, "expires_in": ticket.expires_in_seconds}
    return answer, {"Cache-Control": "no-store"}

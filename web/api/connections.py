"""`/api/connections`: the user's own open streams."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from web.api.user import request_user
from web.connections import end_connection, list_connections, told
from web.refusal import Refusal

blueprint = Blueprint("connections", __name__)


@blueprint.get("/api/connections")
def get_connections() -> dict[str, Any]:
    """Each with when and from where it was opened, and how far it is."""
    found = list_connections(request_user())
    return {"success": True, "connections": [told(connection) for connection in found]}


@blueprint.delete("/api/connections/<connection_id>")
def delete_connection(connection_id: str) -> dict[str, Any]:
    """Ends one; 404 where it is not there or not the user's."""
    if not end_connection(request_user(), connection_id):
        raise Refusal(404, "not_found", "There is no such connection.")
    return {"success": True}

"""`GET /api/search?q=`: the user's own sources, ranked."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, request

from shared.connections import postgres
from shared.search import search
from web.api.user import request_user

blueprint = Blueprint("search", __name__)


@blueprint.get("/api/search")
def search_sources() -> dict[str, Any]:
    """Hits with fragments of text, each marked as a match or not; never HTML."""
    user_id = request_user()
    query = request.args.get("q", "")
    with postgres() as connection:
        hits = search(connection, user_id, query)
    return {"success": True, "query": query, "hits": [asdict(hit) for hit in hits]}

"""`GET /api/messages/<id>/events`."""

from __future__ import annotations

from web.delivery import Delivery
from web.identity import Identity
from web.refusal import Refusal
from web.request import Request
from web.user_channel import UserChannel


async def find(delivery: Delivery, request: Request, identity: Identity) -> UserChannel:
    """Stub."""
    raise Refusal(404, "not_found", "There is no such message.")

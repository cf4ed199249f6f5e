"""`/openapi.json` and `/asyncapi.json`: what this service says of itself, to anyone who asks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from flask import Blueprint, Response

from shared.encoding import to_json
from shared.settings import get_settings
from web.asyncapi import asyncapi
from web.openapi import openapi

blueprint = Blueprint("documents", __name__)


@blueprint.get("/openapi.json")
def openapi_document() -> Response:
    """The HTTP endpoints."""
    return _answer(openapi)


@blueprint.get("/asyncapi.json")
def asyncapi_document() -> Response:
    """The events and their channel."""
    return _answer(asyncapi)


def _answer(document: Callable[[str], dict[str, Any]]) -> Response:
    text = _built(document, get_settings().jwt_cookie_name)
    return Response(text, headers={"Cache-Control": "no-cache"}, content_type="application/json")


@cache
def _built(document: Callable[[str], dict[str, Any]], cookie_name: str) -> str:
    return to_json(document(cookie_name))

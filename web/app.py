"""The Flask application: JSON endpoints, pages, and the WSGI face of the stream. `flask --app web`.

Every error of an `/api` path is JSON: `{"success": false, "message": ..., "error": code}`.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import psycopg
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, InternalServerError, RequestEntityTooLarge

from shared.errors import PostgresUnavailable, RedisUnavailable, SettingsError
from shared.settings import get_settings
from web.api import (
    connections,
    documents,
    events,
    health,
    messages,
    operator,
    search,
    sources,
    tickets,
)
from web.api.user import flask_request
from web.auth import authenticator
from web.cors import check_write, cors_headers, is_preflight
from web.portal import drain
from web.refusal import Refusal, internal_error, unavailable
from web.request_body import most_bytes, over_limit
from web.stopping import before_stop

STATIC = Path(__file__).parent / "static"
MOST_FORM_PARTS = 10_000
BLUEPRINTS = (
    *(events, messages, tickets, connections, sources, search),
    *(operator, health, documents),
)
PAGES = {"/": "index.html", "/operator": "operator.html"}
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def create_app() -> Flask:
    """Builds the application. Ends the process with a sentence where a setting is wrong."""
    try:
        settings = get_settings()
        authenticator()
        settings.require_redis_url()
        settings.require_celery_urls()
        settings.require_database_url()
    except SettingsError as error:
        sys.exit(f"error: {error}")
    app = Flask("web", static_folder=str(STATIC), static_url_path="/static")
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.config["MAX_FORM_PARTS"] = MOST_FORM_PARTS
    for room in BLUEPRINTS:
        app.register_blueprint(room.blueprint)
    for path, name in PAGES.items():
        app.add_url_rule(path, name.removesuffix(".html"), partial(app.send_static_file, name))
    app.before_request(_check)
    app.after_request(_secure)
    app.register_error_handler(Refusal, _refusal)
    app.register_error_handler(RedisUnavailable, lambda _: _refusal(unavailable("Redis")))
    for kind in (PostgresUnavailable, psycopg.OperationalError):
        app.register_error_handler(kind, lambda _: _refusal(unavailable("Postgres")))
    app.register_error_handler(HTTPException, _http_error)
    before_stop(drain)
    return app


def _check() -> Response | None:
    asked = flask_request()
    if request.path.startswith("/api/") and is_preflight(asked):
        return Response(status=204)
    check_write(asked, get_settings())
    request.max_content_length = most_bytes(asked, get_settings())
    if (request.content_length or 0) > request.max_content_length:
        raise RequestEntityTooLarge
    return None


def _secure(response: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if request.path.startswith("/static/") or request.path in PAGES:
        response.headers["Cache-Control"] = "no-cache"  # ask each time: files keep their names
    # What is everybody's is for our own page alone, whatever may read one user's.
    if request.path.startswith("/api/") and not request.path.startswith("/api/operator/"):
        for name, value in cors_headers(flask_request(), get_settings()).items():
            response.headers[name] = value
    return response


def _refusal(refusal: Refusal) -> Response:
    return Response(refusal.body, refusal.status, refusal.headers, content_type="application/json")


def _http_error(error: HTTPException) -> Response | HTTPException:
    if not request.path.startswith("/api/") or error.code is None:
        return error
    if isinstance(error, RequestEntityTooLarge):
        return _refusal(_too_large())
    if isinstance(error, InternalServerError):
        return _refusal(internal_error())
    code = error.name.lower().replace(" ", "_")
    response = _refusal(Refusal(error.code, code, error.description or error.name))
    response.headers.extend(
        {
            n: v
            for n, v in error.get_headers()
            if n.lower() not in ("content-type", "content-length")
        }
    )
    return response


def _too_large() -> Refusal:
    asked, settings = flask_request(), get_settings()
    if (request.content_length or 0) > min(most_bytes(asked, settings), settings.upload_max_bytes):
        return over_limit(asked, settings)
    return Refusal(413, "too_large", "This form has more fields, or longer ones, than are taken.")

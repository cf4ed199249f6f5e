"""`/openapi.json`: the endpoints as OpenAPI 3.1, made from their one description."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from shared.schemas import IN_COMPONENTS, Schema, schemas
from web.answers import Refused
from web.endpoint import Endpoint, Parameter
from web.endpoints import ENDPOINTS

DISTRIBUTION = "celery-eventstream"
WAITS = frozenset({429, 503})  # refusals that say when to come back
REFUSALS = {
    400: "The request can't be understood.",
    401: "Nobody is signed in, or the token has expired.",
    403: "It comes from another site, is for a host name not ours, or is not for this user.",
    404: "It is not there, or not the user's.",
    409: "It is under way already.",
    410: "It was there once.",
    413: "It is too large.",
    429: "There are too many streams open, or there were too many replays.",
    503: "Redis, Postgres or the task queue can't be reached just now.",
}
RETRY_AFTER = {
    "description": "Seconds after which to come back.",
    "required": True,
    "schema": {"type": "integer", "minimum": 0},
}


def openapi(cookie_name: str) -> dict[str, Any]:
    """The document; `cookie_name` is the cookie that may hold the token."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method] = _operation(endpoint)
    models = [each.body for each in ENDPOINTS if not isinstance(each.body, tuple)]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": DISTRIBUTION,
            "version": version(DISTRIBUTION),
            "description": "Uploads in, sources as they stand out, and a user's events live. "
            "With `AUTH_TYPE=none` everyone is one user and no credentials are asked for.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas([*models, Refused], IN_COMPONENTS),
            "securitySchemes": security_schemes(cookie_name),
        },
    }


def security_schemes(cookie_name: str) -> dict[str, Schema]:
    """How a request says who is asking, in OpenAPI's form."""
    return {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "cookie": {"type": "apiKey", "in": "cookie", "name": cookie_name},
        "ticket": {"type": "apiKey", "in": "query", "name": "ticket"},
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "security": [{name: []} for name in endpoint.security],
        "responses": {
            str(endpoint.status): _answer(endpoint),
            **{str(s): _refusal(s, codes) for s, codes in sorted(endpoint.refusals.items())},
        },
    }
    if endpoint.parameters:
        described["parameters"] = [_parameter(each) for each in endpoint.parameters]
    if endpoint.form:
        form = {"type": "object", "properties": endpoint.form, "required": [*endpoint.form][:1]}
        described["requestBody"] = {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}},
        }
    if endpoint.json:
        body = {"type": "object", "properties": endpoint.json, "required": [*endpoint.json]}
        described["requestBody"] = {"required": True, "content": _json(body)}
    return described


def _parameter(parameter: Parameter) -> Schema:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.sentence,
        "required": parameter.place == "path",
        "schema": {"type": "string"},
    }


def _answer(endpoint: Endpoint) -> Schema:
    if isinstance(endpoint.body, tuple):
        media_type, sentence = endpoint.body
        kind = "object" if media_type == "application/json" else "string"
        return {"description": sentence, "content": {media_type: {"schema": {"type": kind}}}}
    sentence = (endpoint.body.__doc__ or "").strip()
    return {"description": sentence, "content": _json(_ref(endpoint.body.__name__))}


def _refusal(status: int, codes: Sequence[str]) -> Schema:
    schema = _ref(Refused.__name__)
    if codes:
        schema = {"allOf": [schema, {"properties": {"error": {"enum": list(codes)}}}]}
    described = {"description": REFUSALS[status], "content": _json(schema)}
    return {**described, "headers": {"Retry-After": RETRY_AFTER}} if status in WAITS else described


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> Schema:
    return {"$ref": IN_COMPONENTS.format(model=name)}

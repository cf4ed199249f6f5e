"""`/asyncapi.json`: the user's stream as AsyncAPI 3.0, a message for each type of the catalogue."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from pydantic import BaseModel

from shared.events import CATALOGUE, Envelope, Notice, Scope
from shared.schemas import IN_COMPONENTS, Schema, application_schema, in_envelope, schemas
from web.endpoints import LAST_EVENT_ID, LAST_EVENT_ID_QUERY, USER_EVENTS
from web.openapi import DISTRIBUTION, security_schemes

CHANNEL = "userEvents"
APPLICATION = "application"


def asyncapi(cookie_name: str) -> dict[str, Any]:
    """The document; `cookie_name` is the cookie that may hold the token."""
    messages, definitions = _messages()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": DISTRIBUTION,
            "version": version(DISTRIBUTION),
            "description": "A user's events over Server-Sent Events, in order, each once.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": {
            CHANNEL: {
                "address": USER_EVENTS.path,
                "title": USER_EVENTS.summary,
                "description": f"Each message is the `data:` of one frame. {_cursor()}",
                "messages": {name: _ref("messages", name) for name in messages},
            }
        },
        "operations": {USER_EVENTS.name: _operation()},
        "components": {
            "messages": messages,
            "schemas": definitions,
            "securitySchemes": {
                name: _scheme(scheme) for name, scheme in security_schemes(cookie_name).items()
            },
        },
    }


def _cursor() -> str:
    return f"Header `{LAST_EVENT_ID.name}`: {LAST_EVENT_ID.sentence}"


def _operation() -> Schema:
    query = {"type": "string", "description": LAST_EVENT_ID_QUERY.sentence}
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{CHANNEL}"},
        "summary": USER_EVENTS.summary,
        "security": [_ref("securitySchemes", name) for name in USER_EVENTS.security],
        "bindings": {
            "http": {
                "method": USER_EVENTS.method.upper(),
                "query": {"type": "object", "properties": {LAST_EVENT_ID_QUERY.name: query}},
                "bindingVersion": "0.3.0",
            }
        },
    }


def _messages() -> tuple[dict[str, Schema], dict[str, Schema]]:
    """The messages by type, and the schemas that they refer to by name."""
    payloads = [event.payload for event in CATALOGUE.values()]
    inlined: list[type[BaseModel]] = [Envelope, Notice, Scope, *payloads]
    found = schemas(inlined, IN_COMPONENTS)
    messages = {
        name: {
            "name": name,
            "summary": event.sentence,
            "payload": in_envelope(event, found),
            "x-terminal": event.terminal,
        }
        for name, event in CATALOGUE.items()
    }
    messages[APPLICATION] = {
        "name": APPLICATION,
        "summary": "An event of an application's own type: any other dotted name.",
        "payload": application_schema(found),
    }
    for model in inlined:
        del found[model.__name__]
    return messages, found


def _scheme(scheme: Schema) -> Schema:
    """A security scheme in AsyncAPI's form, which keeps `apiKey` for user names and passwords."""
    return {**scheme, "type": "httpApiKey"} if scheme["type"] == "apiKey" else scheme


def _ref(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}

"""`/asyncapi.json`: both streams as AsyncAPI 3.0, a message for each type of event."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel

from shared.events import CATALOGUE, Envelope, Notice, Scope
from shared.message_events import MESSAGE_EVENTS, TERMINAL, TruncatedNotice, TruncatedPayload
from shared.schemas import IN_COMPONENTS, Schema, application_schema, in_envelope, schemas
from web.endpoint import Endpoint
from web.endpoints import (
    LAST_EVENT_ID,
    LAST_EVENT_ID_QUERY,
    LAST_SEQUENCE,
    MESSAGE_ID,
    USER_EVENTS,
)
from web.endpoints import MESSAGE_EVENTS as WATCH_ANSWER
from web.openapi import DISTRIBUTION, security_schemes

CHANNEL = "userEvents"
MESSAGE_CHANNEL = "messageEvents"
APPLICATION = "application"


def asyncapi(cookie_name: str) -> dict[str, Any]:
    """The document; `cookie_name` is the cookie that may hold the token."""
    messages, definitions = _messages()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": DISTRIBUTION,
            "version": version(DISTRIBUTION),
            "description": "A user's events, and those of an answer, over Server-Sent Events: "
            "in order, each once.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": {
            CHANNEL: {
                "address": USER_EVENTS.path,
                "title": USER_EVENTS.summary,
                "description": f"Each message is the `data:` of one frame. {_cursor()}",
                "messages": {name: _ref("messages", name) for name in messages},
            },
            MESSAGE_CHANNEL: _message_channel(),
        },
        "operations": {
            USER_EVENTS.name: _operation(USER_EVENTS, CHANNEL),
            WATCH_ANSWER.name: _operation(WATCH_ANSWER, MESSAGE_CHANNEL),
        },
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


def _message_channel() -> Schema:
    """The events of one answer: their schemas stand here, since their types are no dotted names."""
    found = schemas(MESSAGE_EVENTS.values(), IN_COMPONENTS)
    notice = found[TruncatedNotice.__name__]
    notice["properties"]["payload"] = found[TruncatedPayload.__name__]
    return {
        "address": WATCH_ANSWER.path,
        "title": WATCH_ANSWER.summary,
        "description": "Each message is the `data:` of one frame, whose `id:` is its number from 0."
        f" Header `{LAST_SEQUENCE.name}`: {LAST_SEQUENCE.sentence}",
        "parameters": {MESSAGE_ID.name: {"description": MESSAGE_ID.sentence}},
        "messages": {
            name: {
                "name": name,
                "summary": inspect.cleandoc(model.__doc__ or ""),
                "payload": found[model.__name__],
                "x-terminal": name in TERMINAL,
            }
            for name, model in MESSAGE_EVENTS.items()
        },
    }


def _operation(endpoint: Endpoint, channel: str) -> Schema:
    query = {"type": "string", "description": LAST_EVENT_ID_QUERY.sentence}
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": endpoint.summary,
        "security": [_ref("securitySchemes", name) for name in endpoint.security],
        "bindings": {
            "http": {
                "method": endpoint.method.upper(),
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

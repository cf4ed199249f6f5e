"""Compares what was really sent with what the catalogue and the documents say of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from shared.events import CATALOGUE
from shared.message_events import MESSAGE_EVENTS
from shared.schemas import event_schema
from web.asyncapi import asyncapi
from web.openapi import openapi

DOCUMENT = "urn:openapi"
FORMATS = FormatChecker(formats=())


@FORMATS.checks("date-time", raises=ValueError)
def _is_utc_moment(value: object) -> bool:
    return not isinstance(value, str) or (
        value.endswith("Z") and datetime.fromisoformat(value).tzinfo is not None
    )


def check_event(event: Mapping[str, Any]) -> None:
    """Raises ValidationError where a catalogued event is not as its schema has it."""
    _event_validator(event["type"]).validate(event)


def check_message_event(event: Mapping[str, Any]) -> None:
    """Raises ValidationError where an event of an answer is not as `/asyncapi.json` has it."""
    name = event["type"] if event["type"] in MESSAGE_EVENTS else "application"
    _message_validator(name).validate(event)


def check_answer(method: str, path: str, status: int, content_type: str, body: Any) -> None:
    """Raises ValidationError where an answer is not as `/openapi.json` has it."""
    document, registry = _openapi()
    assert content_type in document["paths"][path][method]["responses"][str(status)]["content"]
    steps = ["paths", path, method, "responses", str(status), "content", content_type, "schema"]
    pointer = "/".join(step.replace("~", "~0").replace("/", "~1") for step in steps)
    reference = {"$ref": f"{DOCUMENT}#/{pointer}"}
    Draft202012Validator(reference, registry=registry, format_checker=FORMATS).validate(body)


@cache
def _event_validator(event_type: str) -> Draft202012Validator:
    return Draft202012Validator(event_schema(CATALOGUE[event_type]), format_checker=FORMATS)


@cache
def _message_validator(name: str) -> Draft7Validator:
    document = asyncapi("cookie")
    schema = document["channels"]["messageEvents"]["messages"][name]["payload"]
    return Draft7Validator({**schema, "components": document["components"]})


@cache
def _openapi() -> tuple[dict[str, Any], Registry[Any]]:
    document = openapi("cookie")
    resource = Resource.from_contents(document, default_specification=DRAFT202012)
    return document, Registry().with_resource(DOCUMENT, resource)

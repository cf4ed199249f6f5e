"""JSON Schemas of what this project sends, derived from the classes that describe it.

The dialect is draft 2020-12, with keywords alone that draft 7 has too, but for `$defs`: AsyncAPI's
own schemas are of that draft. What has a fixed set of members admits no others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import (
    GenerateJsonSchema,
    JsonSchemaMode,
    JsonSchemaValue,
    models_json_schema,
)
from pydantic_core import core_schema

from shared.events import CATALOGUE, Envelope, EventType, Scope

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
IN_DEFS = "#/$defs/{model}"
IN_COMPONENTS = "#/components/schemas/{model}"


class _Generator(GenerateJsonSchema):
    """Without a title for each field, which would say its name again; dataclasses closed."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        return {**super().dataclass_schema(schema), "additionalProperties": False}


def schemas(models: Iterable[type[BaseModel]], template: str = IN_DEFS) -> dict[str, Schema]:
    """The schemas of models and of what they refer to, by class name; `template` makes the refs."""
    inputs: list[tuple[type[BaseModel], JsonSchemaMode]] = [(m, "validation") for m in models]
    _, found = models_json_schema(inputs, ref_template=template, schema_generator=_Generator)
    definitions: dict[str, Schema] = found["$defs"]
    return definitions


def event_schema(event: EventType) -> Schema:
    """The schema of a whole event of one type, which needs nothing beside it."""
    definitions = schemas([event.payload, event.envelope, Scope])
    schema = in_envelope(event, definitions)
    for name in (event.payload.__name__, event.envelope.__name__, "Scope"):
        del definitions[name]
    return {"$schema": DIALECT, **schema, **({"$defs": definitions} if definitions else {})}


def in_envelope(event: EventType, definitions: dict[str, Schema]) -> Schema:
    """The schema of an event of one type, from those of its classes; refs stay as they are."""
    envelope = definitions[event.envelope.__name__]
    members = {**envelope["properties"], "payload": definitions[event.payload.__name__]}
    members["type"] = {"type": "string", "const": event.name}
    if event.scope is not None:
        scope = definitions["Scope"]
        kind = {**scope["properties"]["kind"], "const": event.scope}
        members["scope"] = {**scope, "properties": {**scope["properties"], "kind": kind}}
    return {**envelope, "title": event.name, "description": event.sentence, "properties": members}


def application_schema(definitions: dict[str, Schema]) -> Schema:
    """The schema of an event of an application's own type."""
    envelope = definitions[Envelope.__name__]
    kind = {**envelope["properties"]["type"], "not": {"enum": list(CATALOGUE)}}
    return {**envelope, "properties": {**envelope["properties"], "type": kind}}

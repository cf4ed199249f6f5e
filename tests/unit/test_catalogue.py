"""The event catalogue, its schemas, and the two documents against their standards' own schemas."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator, ValidationError
from openapi_spec_validator import OpenAPIV31SpecValidator

from shared import runs, wire
from shared.encoding import encode_body
from shared.events import CATALOGUE, EventType
from shared.schemas import event_schema
from tests.described import check_event, check_message_event
from web import create_app
from web.asyncapi import asyncapi
from web.endpoints import ENDPOINTS
from web.openapi import openapi

ROOT = Path(__file__).parents[2]
INGEST = "source.ingest."
WRITTEN_BY_APPLICATIONS: dict[str, dict[str, Any]] = {
    "mcp.oauth.in_progress": {"server": "files"},
    "mcp.oauth.awaiting_redirect": {"server": "files", "authorization_url": "https://idp/x"},
    "mcp.oauth.completed": {"server": "files", "tools": ["read"]},
    "mcp.oauth.failed": {
        "server": "files",
        "error": {"code": "denied", "message": "No.", "retryable": True},
    },
    "tool.approval.required": {"approval_id": "1", "tool": "rm", "arguments": {"path": "/"}},
    "tool.approval.cleared": {"approval_id": "1", "outcome": "denied"},
    "attachment.queued": {"name": "a.pdf", "percent": 0},
    "attachment.progress": {"name": "a.pdf", "percent": 50, "done": 1, "total": 2},
    "attachment.completed": {"name": "a.pdf", "percent": 100, "pages": 2},
    "attachment.failed": {
        "name": "a.pdf",
        "percent": 50,
        "error": {"code": "unreadable", "message": "No.", "retryable": False},
    },
}


def frame_event(frame: bytes) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(frame.decode().partition("data: ")[2])
    return data


def example(event: EventType) -> dict[str, Any]:
    payload = WRITTEN_BY_APPLICATIONS[event.name]
    scope = {"kind": event.scope, "id": "7"}
    body = encode_body("alice", event.name, payload, scope=scope, max_bytes=16_384)
    return frame_event(wire.event_frame(b"1-0", body.encode()))


def test_the_lifecycle_emits_the_types_of_the_catalogue_and_no_others() -> None:
    lua = "".join(path.read_text() for path in (ROOT / "shared" / "lua").glob("run_*.lua"))
    emitted = set(re.findall(r"\b(?:emit|close)\('(\w+)'", lua))
    assert {INGEST + kind for kind in emitted} == {n for n in CATALOGUE if n.startswith(INGEST)}


def test_the_ends_of_a_run_are_the_terminal_types() -> None:
    ends = {e.name for e in CATALOGUE.values() if e.terminal and e.name.startswith(INGEST)}
    assert ends == {INGEST + status for status in runs.TERMINAL}


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_type_has_a_schema_of_the_2020_draft_with_a_sentence_for_each_member(
    name: str,
) -> None:
    schema = event_schema(CATALOGUE[name])
    Draft202012Validator.check_schema(schema)
    Draft7Validator.check_schema(schema)
    assert schema["description"] and schema["properties"]["type"]["const"] == name
    for member, described in schema["properties"]["payload"]["properties"].items():
        told = [described, *described.get("anyOf", ())]
        assert "$ref" in described or any(each.get("description") for each in told), member


@pytest.mark.parametrize("name", WRITTEN_BY_APPLICATIONS)
def test_what_applications_publish_fits_its_schema_and_may_say_more(name: str) -> None:
    event = example(CATALOGUE[name])
    check_event(event)
    event["payload"]["conversation_id"] = "7"
    check_event(event)
    del event["payload"][next(iter(event["payload"]))]
    with pytest.raises(ValidationError):
        check_event(event)


def test_every_type_that_applications_publish_has_an_example() -> None:
    own = {e.name for e in CATALOGUE.values() if e.scope and not e.name.startswith(INGEST)}
    assert own == set(WRITTEN_BY_APPLICATIONS)


@pytest.mark.parametrize(
    ("reason", "oldest"), [("trimmed", "5-0"), ("journal_reset", None), ("malformed_cursor", None)]
)
def test_a_truncation_fits_its_schema(reason: str, oldest: str | None) -> None:
    check_event(frame_event(wire.truncated_frame(reason, oldest, "9-0")))


def test_the_openapi_document_is_valid_to_the_standard() -> None:
    OpenAPIV31SpecValidator(openapi("token")).validate()


def test_the_asyncapi_document_is_valid_to_the_standard() -> None:
    standard = json.loads((ROOT / "tests" / "schemas" / "asyncapi-3.0.0.json").read_text())
    Draft7Validator(standard).validate(asyncapi("token"))


def test_every_reference_in_the_documents_leads_somewhere() -> None:
    for document in (openapi("token"), asyncapi("token")):
        for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)):
            place: Any = document
            for step in reference.split("/"):
                place = place[step]


def test_the_channel_has_a_message_for_every_type_and_one_for_all_others() -> None:
    document = asyncapi("token")
    assert set(document["channels"]["userEvents"]["messages"]) == {*CATALOGUE, "application"}
    for name, event in CATALOGUE.items():
        message = document["components"]["messages"][name]
        assert message["payload"]["properties"]["type"]["const"] == name
        assert message["x-terminal"] is event.terminal


@pytest.mark.parametrize(
    "event",
    [
        {"type": "answer", "answer": 7},
        {"type": "answer"},
        {"type": "end", "stopped": "yes"},
        {"type": "error", "code": "x"},
        {"type": "a type"},
        {"type": "backlog.truncated", "payload": {"reason": "trimmed"}},
    ],
)
def test_what_is_no_event_of_an_answer_fits_no_schema(event: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        check_message_event(event)


def test_an_event_fits_the_message_of_its_type_and_no_other() -> None:
    document = asyncapi("token")
    references = {"components": document["components"]}
    messages = document["components"]["messages"].items()
    fits = {name: Draft7Validator({**each["payload"], **references}) for name, each in messages}
    events = [example(CATALOGUE[name]) for name in WRITTEN_BY_APPLICATIONS]
    own = {**events[0], "type": "report.ready", "scope": {}, "payload": {"any": 1}}
    for event in [*events, own]:
        name = event["type"] if event is not own else "application"
        assert [each for each, validator in fits.items() if validator.is_valid(event)] == [name]


def test_every_route_is_described_and_every_described_endpoint_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("ALLOW_ANONYMOUS", "true")
    served = {
        (method.lower(), re.sub("<[^>]+>", "{}", rule.rule))
        for rule in create_app().url_map.iter_rules()
        if rule.endpoint not in ("static", "index", "operator")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    described = {(each.method, re.sub("{[^}]+}", "{}", each.path)) for each in ENDPOINTS}
    assert served == described


def test_the_reference_page_names_every_type() -> None:
    page = (ROOT / "docs" / "reference" / "events.md").read_text()
    missing = [name for name in CATALOGUE if f"`{name}`" not in page]
    assert missing == []

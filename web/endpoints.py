"""Every HTTP endpoint, described once."""

from __future__ import annotations

from shared.questions import LONGEST_QUESTION
from web import answers
from web.endpoint import NO_AUTH, OUR_WRITES, OURS, SIGNED_IN, Endpoint, Parameter
from web.operator_endpoints import OPERATOR_ENDPOINTS

LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    "header",
    "The cursor: what came after it is sent first. Empty counts as absent, and `0` is before all.",
)
LAST_EVENT_ID_QUERY = Parameter(
    "last_event_id", "query", "The cursor, for clients that can send no header; the header wins."
)
USER_EVENTS = Endpoint(
    method="get",
    path="/api/events",
    name="watchEvents",
    summary="The user's events, replayed from a cursor and then live",
    body=("text/event-stream", "Server-Sent Events; `/asyncapi.json` describes each."),
    security=(*SIGNED_IN, "ticket"),
    parameters=(LAST_EVENT_ID, LAST_EVENT_ID_QUERY),
    refusals={**OURS, 429: ("too_many_connections", "too_many_replays")},
)
MESSAGE_ID = Parameter("message_id", "path", "The answer's id, a UUID.")
LAST_SEQUENCE = Parameter(
    "Last-Event-ID",
    "header",
    "The number of the last event that was seen: what came after it is sent. Empty counts as "
    "absent: everything is sent.",
)
MESSAGE_EVENTS = Endpoint(
    method="get",
    path="/api/messages/{message_id}/events",
    name="watchAnswer",
    summary="An answer's events from a cursor, then live until it ends",
    body=("text/event-stream", "Server-Sent Events; `/asyncapi.json` describes each."),
    security=(*SIGNED_IN, "ticket"),
    parameters=(MESSAGE_ID, LAST_SEQUENCE, LAST_EVENT_ID_QUERY),
    refusals={
        **OURS,
        400: ("bad_message_id",),
        404: ("not_found",),
        429: ("too_many_connections",),
    },
)
SOURCE_ID = Parameter("source_id", "path", "The source.")
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "header",
    "The same key again gets the first answer, starts nothing, and has the run's state said once "
    "more on the stream. At most 255 characters.",
)
ENDPOINTS = (
    Endpoint(
        method="post",
        path="/api/sources",
        name="createSource",
        summary="Take one upload as one source, and start its run",
        body=answers.SourceAccepted,
        status=202,
        parameters=(IDEMPOTENCY_KEY,),
        form={
            "file": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "string", "contentMediaType": "application/octet-stream"},
                "description": "One file or many. Archives are unpacked.",
            },
            "name": {"type": "string", "description": "What to call it; else the first file's."},
        },
        refusals={
            **OUR_WRITES,
            400: ("no_file", "bad_key"),
            409: ("already_running",),
            413: ("too_large",),
        },
    ),
    Endpoint(
        method="get",
        path="/api/sources",
        name="listSources",
        summary="The user's sources as they stand, and the cursor from which to watch them",
        body=answers.Sources,
        refusals=OURS,
    ),
    Endpoint(
        method="get",
        path="/api/sources/{source_id}",
        name="getSource",
        summary="One source as it stands",
        body=answers.Source,
        parameters=(SOURCE_ID,),
        refusals={**OURS, 404: ("not_found",)},
    ),
    Endpoint(
        method="delete",
        path="/api/sources/{source_id}",
        name="cancelSource",
        summary="Cancel the source's open run, if one is open; what searches find of it stays",
        body=answers.Source,
        parameters=(SOURCE_ID,),
        refusals={**OUR_WRITES, 404: ("not_found",)},
    ),
    Endpoint(
        method="post",
        path="/api/sources/{source_id}/reingest",
        name="reingestSource",
        summary="Start another run of a source that was uploaded, of the same files",
        body=answers.SourceAccepted,
        status=202,
        parameters=(SOURCE_ID, IDEMPOTENCY_KEY),
        refusals={
            **OUR_WRITES,
            400: ("bad_key",),
            404: ("not_found",),
            409: ("already_running",),
            410: ("upload_gone",),
        },
    ),
    Endpoint(
        method="get",
        path="/api/search",
        name="searchSources",
        summary="Search in the user's own sources",
        body=answers.SearchResults,
        parameters=(Parameter("q", "query", 'Words, `"phrases"`, `or` and `-not`.'),),
        refusals=OURS,
    ),
    Endpoint(
        method="post",
        path="/api/messages",
        name="ask",
        summary="Have a question answered from the user's own sources",
        body=answers.QuestionAccepted,
        status=202,
        json={"question": {"type": "string", "minLength": 1, "maxLength": LONGEST_QUESTION}},
        refusals={
            **OUR_WRITES,
            400: ("no_question", "bad_question"),
            404: ("not_found",),
            413: ("too_large",),
        },
    ),
    Endpoint(
        method="get",
        path="/api/messages/{message_id}",
        name="getAnswer",
        summary="An answer as it stands, with its text so far",
        body=answers.MessageText,
        parameters=(MESSAGE_ID,),
        refusals={**OURS, 400: ("bad_message_id",), 404: ("not_found",)},
    ),
    Endpoint(
        method="delete",
        path="/api/messages/{message_id}",
        name="stopAnswer",
        summary="Have an answer stopped; one that is over stays as it is",
        body=answers.Message,
        parameters=(MESSAGE_ID,),
        refusals={**OUR_WRITES, 400: ("bad_message_id",), 404: ("not_found",)},
    ),
    MESSAGE_EVENTS,
    USER_EVENTS,
    Endpoint(
        method="post",
        path="/api/events/ticket",
        name="createTicket",
        summary="A ticket with which to open the stream where no header can be sent",
        body=answers.Ticket,
        refusals=OUR_WRITES,
    ),
    Endpoint(
        method="delete",
        path="/api/events/ticket",
        name="endSession",
        summary="Sign out: end the session that a ticket's use has opened, where there is one",
        body=answers.Success,
        security=NO_AUTH,
        refusals={403: ("cross_origin",), 503: ("unavailable",)},
    ),
    Endpoint(
        method="get",
        path="/api/connections",
        name="listConnections",
        summary="The user's open streams",
        body=answers.Connections,
        refusals=OURS,
    ),
    Endpoint(
        method="delete",
        path="/api/connections/{connection_id}",
        name="closeConnection",
        summary="Close one of the user's open streams",
        body=answers.Success,
        parameters=(Parameter("connection_id", "path", "The connection."),),
        refusals={**OUR_WRITES, 404: ("not_found",)},
    ),
    *OPERATOR_ENDPOINTS,
    Endpoint(
        method="get",
        path="/healthz",
        name="checkHealth",
        summary="Whether this process can serve: Redis and Postgres answer",
        body=answers.Success,
        security=NO_AUTH,
        refusals={503: ("unavailable",)},
    ),
    Endpoint(
        method="get",
        path="/asyncapi.json",
        name="getAsyncApi",
        summary="The events and their channel, as AsyncAPI 3.0",
        body=("application/json", "An AsyncAPI document."),
        security=NO_AUTH,
    ),
    Endpoint(
        method="get",
        path="/openapi.json",
        name="getOpenApi",
        summary="This document",
        body=("application/json", "An OpenAPI document."),
        security=NO_AUTH,
    ),
)

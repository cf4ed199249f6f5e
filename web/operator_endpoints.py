"""The operator's HTTP endpoints, described once; see `web/endpoints.py`."""

from __future__ import annotations

from web import answers
from web import operator_answers as told
from web.endpoint import OUR_WRITES, OURS, Endpoint, Parameter

FOR_OPERATORS = {**OURS, 403: ("unknown_host", "not_operator")}
OPERATORS_WRITES = {**OUR_WRITES, 403: ("unknown_host", "cross_origin", "not_operator")}
USER = Parameter("user", "query", "This user alone.")
OPERATOR_ENDPOINTS = (
    Endpoint(
        method="get",
        path="/api/operator/streams",
        name="listAllStreams",
        summary="Users with open streams in all processes, and how far these have got",
        body=told.OpenStreams,
        parameters=(USER,),
        refusals=FOR_OPERATORS,
    ),
    Endpoint(
        method="delete",
        path="/api/operator/streams/{connection_id}",
        name="endAnyStream",
        summary="Close one of a user's open streams",
        body=answers.Success,
        parameters=(
            Parameter("connection_id", "path", "The connection."),
            Parameter("user", "query", "Whose it is."),
        ),
        refusals={**OPERATORS_WRITES, 404: ("not_found",)},
    ),
    Endpoint(
        method="get",
        path="/api/operator/runs",
        name="listOpenRuns",
        summary="The open runs of all users, and how many are in which state",
        body=told.OpenRunsPage,
        parameters=(
            Parameter("state", "query", "`queued`, `running`, `retrying` or `stalled`; else all."),
            Parameter("order", "query", "`newest`; else those first of which least is heard."),
            Parameter("offset", "query", "How many to pass over; 0 unless it is given."),
            Parameter("limit", "query", "How many to tell: 50 unless it is given, at most 200."),
        ),
        refusals={**FOR_OPERATORS, 400: ("bad_number",)},
    ),
    Endpoint(
        method="delete",
        path="/api/operator/runs/{run_id}",
        name="cancelAnyRun",
        summary="Cancel a run, whoever's it is; one that is over stays as it is",
        body=told.RunCancelled,
        parameters=(Parameter("run_id", "path", "The run."),),
        refusals={**OPERATORS_WRITES, 404: ("not_found",)},
    ),
    Endpoint(
        method="get",
        path="/api/operator/events",
        name="countEvents",
        summary="Events a second by type, over the last minute",
        body=told.EventRates,
        refusals=FOR_OPERATORS,
    ),
    Endpoint(
        method="get",
        path="/api/operator/journal",
        name="getJournal",
        summary="How large the journal of answers is, and what was last removed",
        body=told.JournalAnswer,
        refusals=FOR_OPERATORS,
    ),
)

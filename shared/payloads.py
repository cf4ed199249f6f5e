"""What events say: the payload of every catalogued type, a class each, its docstring the sentence.

A closed payload (`extra="forbid"`) has no other members; an open one may. The lifecycle's steps
write theirs in Lua, the other families are written by applications: nothing is checked when an
event is published, and tests hold the lifecycle to these classes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, with_config
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypedDict  # pydantic takes typing's own from Python 3.12 on

LONGEST_TEXT = 300  # of a name, a stage, a unit or a sentence in an event

Moment = Annotated[
    str, Field(description="A time in UTC, ISO 8601.", json_schema_extra={"format": "date-time"})
]
Cursor = Annotated[
    str, Field(pattern="^[0-9]+-[0-9]+$", description="A position in a user's stream.")
]
Attempt = Annotated[
    int,
    Field(
        ge=0, description="0 before the first execution; one more for every retry and redelivery."
    ),
]
Percent = Annotated[
    int, Field(ge=0, le=100, description="How far it is; never falls within an attempt.")
]
Seconds = Annotated[
    float, Field(ge=0, description="How long it took, from the start of its first attempt.")
]
Stage = Annotated[
    str, Field(max_length=LONGEST_TEXT, description="The part of the work that is under way.")
]
Done = Annotated[float, Field(ge=0, description="How much of the stage is done, in its unit.")]
Total = Annotated[float, Field(description="How much the stage has; null where that is unknown.")]
Unit = Annotated[
    str, Field(max_length=LONGEST_TEXT, description="What is counted, such as `pages`.")
]
Note = Annotated[
    str, Field(max_length=LONGEST_TEXT, description="A sentence beside the bar, of this stage.")
]
Name = Annotated[str, Field(max_length=LONGEST_TEXT, description="What people call it.")]
Eta = Annotated[Moment, Field(description="When the retry is due; null where that is not known.")]

Attempts = Annotated[
    int, Field(ge=1, description="How many attempts there may be; null for any number.")
]

Reason = Annotated[str, Field(description="Why it is stalled or cancelled.")]
Result = Annotated[
    dict[str, Any],
    Field(description="What the final task returned, or the details of its error."),
]


@with_config(ConfigDict(extra="forbid"))
class Error(TypedDict):
    """What went wrong, as its user sees it."""

    code: Annotated[str, Field(description="What it is, for programs.")]
    message: Annotated[str, Field(description="A sentence for the user.")]
    retryable: Annotated[bool, Field(description="Whether trying again may help.")]


class Payload(BaseModel):
    """The members of an event that are its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OpenPayload(Payload):
    """A payload that may have more members than these."""

    model_config = ConfigDict(extra="allow")


def _only_where_true(schema: dict[str, Any]) -> None:
    del schema["default"]


class _Ingest(Payload):
    run_id: str = Field(description="This ingestion of the source; another one is another run.")
    name: Name
    attempt: Attempt
    percent: Percent
    repeated: Literal[True] | SkipJsonSchema[None] = Field(
        None,
        description="True where a request was repeated: this is the run's state, said once more. "
        "Nothing happened, and what ended did not end again. Else it is not there.",
        json_schema_extra=_only_where_true,
    )


class IngestQueued(_Ingest):
    """A source was accepted, and waits for a worker."""


class IngestStarted(_Ingest):
    """An attempt begins: the first, a retry, or one that comes again after its worker was lost."""


class IngestProgress(_Ingest):
    """The bar moved. Sent at most four times a second for a run."""

    stage: Stage | None
    done: Done | None
    total: Total | None
    unit: Unit | None
    note: Note | None


class IngestRetrying(_Ingest):
    """An attempt failed, and its retry is on the way."""

    attempts: Attempts | None
    eta: Eta | None
    error: Error


class IngestStalled(_Ingest):
    """The worker is gone, and the task may come again."""

    reason: Literal["worker_lost", "interrupted"] = Field(
        description="Nothing is heard of the worker, or it said that it was interrupted."
    )


class IngestCompleted(_Ingest):
    """The whole of a source was ingested. What the final task returned stands beside these."""

    model_config = ConfigDict(extra="allow")
    percent: Literal[100] = Field(description="100.")
    seconds: Seconds


class IngestFailed(_Ingest):
    """A run is over and did not succeed. The error's details stand beside these."""

    model_config = ConfigDict(extra="allow")
    seconds: Seconds
    error: Error


class IngestCancelled(_Ingest):
    """A run was ended before it was done."""

    seconds: Seconds
    reason: Literal["superseded", "revoked", "cancelled"] = Field(
        description="Another run of the same source began, a task was revoked, or somebody asked "
        "for the end."
    )


class _Mcp(OpenPayload):
    server: str = Field(description="The MCP server, as its user knows it.")


class McpOauthInProgress(_Mcp):
    """A sign-in to an MCP server began."""


class McpOauthAwaitingRedirect(_Mcp):
    """The user has to sign in with the MCP server's provider."""

    authorization_url: str = Field(description="The page to open.")
    state: str | None = Field(None, description="OAuth's `state`, by which the answer is known.")


class McpOauthCompleted(_Mcp):
    """The sign-in succeeded."""

    tools: list[str] | None = Field(None, description="The tools that the server offers, by name.")


class McpOauthFailed(_Mcp):
    """The sign-in did not succeed."""

    error: Error


class _Approval(OpenPayload):
    approval_id: str = Field(description="Which question this is.")


class ToolApprovalRequired(_Approval):
    """An agent asks whether it may run a tool."""

    tool: str = Field(description="The tool's name.")
    arguments: dict[str, Any] = Field(description="What the tool would be called with.")
    message: str | None = Field(None, description="Why, in the agent's words.")
    expires_at: Moment | None = Field(None, description="When the question lapses, in UTC.")


class ToolApprovalCleared(_Approval):
    """The question is settled: clients take it away."""

    outcome: Literal["approved", "denied", "expired", "withdrawn"] | None = Field(
        None, description="How it was settled."
    )


class _Attachment(OpenPayload):
    name: Name
    percent: Percent


class AttachmentQueued(_Attachment):
    """An attachment was accepted, and waits for a worker."""


class AttachmentProgress(_Attachment):
    """An attachment is being processed."""

    stage: Stage | None = None
    done: Done | None = None
    total: Total | None = None
    unit: Unit | None = None


class AttachmentCompleted(_Attachment):
    """An attachment can be used."""


class AttachmentFailed(_Attachment):
    """An attachment can't be used."""

    error: Error


class BacklogTruncated(Payload):
    """Entries after the client's cursor are gone, or can't be proven present."""

    reason: Literal["trimmed", "journal_reset", "malformed_cursor"] = Field(
        description="The cursor is older than what is retained, the stream expired or was lost "
        "since, or the cursor is no stream id."
    )
    oldest_retained_id: Cursor | None = Field(description="What is retained starts here.")
    cursor: Cursor = Field(description="Where the stream goes on.")

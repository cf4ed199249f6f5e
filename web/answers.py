"""What the endpoints answer with, a class for each JSON body. `/openapi.json` is made from them.

The views build theirs as plain dicts; tests hold them to these classes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.payloads import Cursor, Moment
from shared.run_states import RunState
from shared.search import Hit

MessageId = Annotated[str, Field(description="The answer's id, a UUID.")]
MessageCursor = Annotated[
    str,
    Field(
        pattern="^[0-9]*$",
        description="A position in the answer's events: the last one's number, empty before all.",
    ),
]


class Success(BaseModel):
    """It was done."""

    model_config = ConfigDict(extra="forbid")
    success: Literal[True]


class Refused(BaseModel):
    """It was not done."""

    model_config = ConfigDict(extra="forbid")
    success: Literal[False]
    message: str = Field(description="A sentence for people.")
    error: str = Field(description="A code for programs.")


class SourceAccepted(Success):
    """A run of the source has begun; or this is the one that the Idempotency-Key named before."""

    source_id: str = Field(description="The source.")
    run_id: str = Field(description="This ingestion of it.")
    task_id: str = Field(description="The Celery task that ends the run.")
    cursor: Cursor = Field(description="From before the run: whoever watches from it sees all.")


class Sources(Success):
    """The user's sources as they stand, newest first."""

    user_id: str = Field(description="Who the user is; the browser's tabs share a stream by it.")
    cursor: Cursor = Field(description="The position that belongs to these states.")
    sources: list[RunState] = Field(description="Each source's latest run, at most 200.")


class Source(Success):
    """One source as it stands."""

    cursor: Cursor = Field(description="The position that belongs to this state.")
    source: RunState


class SearchResults(Success):
    """What was found, best first."""

    query: str = Field(description="As it was asked.")
    hits: list[Hit] = Field(description="Chunks of the user's own sources.")


class QuestionAccepted(Success):
    """A worker will answer the question."""

    message_id: MessageId
    cursor: MessageCursor


class Message(Success):
    """An answer as it stands."""

    message_id: MessageId
    status: Literal["waiting", "writing", "finished", "stopped", "failed"] = Field(
        description="`waiting` for a writer, or how it ended."
    )
    cursor: MessageCursor
    created_at: Moment = Field(description="When it was asked for, in UTC.")
    finished_at: Moment | None = Field(description="When it ended, in UTC.")
    error: str | None = Field(description="Why it failed, a code for programs.")


class MessageText(Message):
    """An answer as it stands, with its text."""

    text: str = Field(description="Its text so far, up to the cursor.")


class Ticket(Success):
    """A key to one stream, for clients that can send no header."""

    ticket: str = Field(description="Goes into the query parameter `ticket`.")
    expires_in: int = Field(gt=0, description="Seconds for which it can be used.")


class Connection(BaseModel):
    """One open stream."""

    model_config = ConfigDict(extra="forbid")
    id: str = Field(description="Names the connection.")
    since: Moment = Field(description="When it was opened, in UTC.")
    address: str = Field(description="The client's, as far as the server knows it.")
    user_agent: str = Field(description="What the client says that it is.")
    cursor: str = Field(
        pattern="^([0-9]+-[0-9]+|-1|[0-9]+)$",
        description="How far it has got; of a message, a sequence number, -1 for none.",
    )
    lagging: bool = Field(description="Whether it is behind the stream's end.")
    message_id: str = Field(default="", description="The message that it is of, where it is.")


class Connections(Success):
    """The user's open streams."""

    connections: list[Connection]

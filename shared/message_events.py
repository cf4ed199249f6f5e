"""What a message's journal holds: the types of the built-in producer, and those of every writer.

An event is its payload with `type` in it. Any other type is an application's own.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class MessageEvent(BaseModel):
    """An event of an answer, of a type of the application's own."""

    model_config = ConfigDict(extra="allow")
    type: str = Field(
        pattern=r"^[A-Za-z0-9_.-]{1,100}$",
        description="What it is.",
        json_schema_extra={
            "not": {"enum": ["answer", "source", "restart", "end", "error", "backlog.truncated"]}
        },
    )


class AnswerEvent(BaseModel):
    """A piece of the answer's text, which goes on where the one before ended."""

    model_config = ConfigDict(extra="allow")
    type: Literal["answer"] = Field(description="What it is.")
    answer: str = Field(description="The text.")


class SourceEvent(BaseModel):
    """A document that the answer cites, as the built-in producer tells of it."""

    model_config = ConfigDict(extra="allow")
    type: Literal["source"] = Field(description="What it is.")
    number: int = Field(ge=1, description="As which the text cites it: `[1]`.")
    source_id: str = Field(description="The source.")
    source_name: str = Field(description="Its name.")
    document_name: str = Field(description="The document within the source.")
    excerpt: str = Field(description="The beginning of the passage.")


class RestartEvent(BaseModel):
    """The answer begins anew: what came before is to be cleared."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["restart"] = Field(description="What it is.")


class EndEvent(BaseModel):
    """The answer is complete, or was stopped. Nothing follows, unless it is restarted."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["end"] = Field(description="What it is.")
    stopped: Literal[True] | None = Field(default=None, description="Somebody asked it to stop.")


class ErrorEvent(BaseModel):
    """The answer failed. Nothing follows, unless it is restarted."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["error"] = Field(description="What it is.")
    code: str = Field(description="Why, for programs: `producer_lost`, `never_started`, ...")
    error: str = Field(description="A sentence for the user.")


class TruncatedPayload(BaseModel):
    """Why, and from where it goes on."""

    model_config = ConfigDict(extra="forbid")
    reason: Literal["journal_reset", "malformed_cursor"] = Field(
        description="The cursor lies past the last event, or is none."
    )
    oldest_retained_id: str | None = Field(description="The first event's number, if any.")
    cursor: None = Field(description="Before all: everything follows.")


class TruncatedNotice(BaseModel):
    """The cursor is no position in this answer. It has no `id:`; then everything is sent."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["backlog.truncated"] = Field(description="What it is.")
    payload: TruncatedPayload


MESSAGE_EVENTS: dict[str, type[BaseModel]] = {
    "answer": AnswerEvent,
    "source": SourceEvent,
    "restart": RestartEvent,
    "end": EndEvent,
    "error": ErrorEvent,
    "backlog.truncated": TruncatedNotice,
    "application": MessageEvent,
}
TERMINAL = ("end", "error")

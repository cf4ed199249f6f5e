"""The event catalogue: every type by name, with its payload, its scope, and whether it is an end.

A type that is not named here is an application's own, and passes if it is a dotted name.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from shared import payloads as p

BACKLOG_TRUNCATED = "backlog.truncated"
DOTTED_NAME = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+$"


class Scope(BaseModel):
    """What an event is about."""

    model_config = ConfigDict(extra="forbid")
    kind: str = Field(description="What kind of thing.")
    id: str = Field(description="Which of them.")


class Envelope(BaseModel):
    """An event as it is journaled and sent. Of one of your own, scope and payload are free."""

    model_config = ConfigDict(extra="forbid")
    id: p.Cursor = Field(description="The event's position in its user's stream.")
    type: str = Field(pattern=DOTTED_NAME, description="What happened.")
    ts: p.Moment = Field(description="When, in UTC with milliseconds.")
    user_id: str = Field(min_length=1, description="Whose event it is.")
    topic: str = Field(pattern="^user:", description="`user:` and the user's id.")
    scope: dict[str, Any] = Field(description="What it is about; empty for nothing in particular.")
    payload: dict[str, Any] = Field(description="What there is to say.")


class Notice(BaseModel):
    """What a stream says of itself: without an id, and not in the journal."""

    model_config = ConfigDict(extra="forbid")
    type: str = Field(description="What happened.")
    payload: dict[str, Any] = Field(description="What there is to say.")


@dataclass(frozen=True, slots=True)
class EventType:
    """One type of event. Without a scope it is a notice: no id, not in the journal."""

    name: str
    payload: type[p.Payload]
    scope: str | None
    terminal: bool = False

    @property
    def sentence(self) -> str:
        """What it means."""
        return inspect.cleandoc(self.payload.__doc__ or "")

    @property
    def envelope(self) -> type[Envelope | Notice]:
        """The form that holds its payload."""
        return Notice if self.scope is None else Envelope


_ENTRIES = (
    EventType("source.ingest.queued", p.IngestQueued, "source"),
    EventType("source.ingest.started", p.IngestStarted, "source"),
    EventType("source.ingest.progress", p.IngestProgress, "source"),
    EventType("source.ingest.retrying", p.IngestRetrying, "source"),
    EventType("source.ingest.stalled", p.IngestStalled, "source"),
    EventType("source.ingest.completed", p.IngestCompleted, "source", terminal=True),
    EventType("source.ingest.failed", p.IngestFailed, "source", terminal=True),
    EventType("source.ingest.cancelled", p.IngestCancelled, "source", terminal=True),
    EventType("mcp.oauth.in_progress", p.McpOauthInProgress, "mcp_server"),
    EventType("mcp.oauth.awaiting_redirect", p.McpOauthAwaitingRedirect, "mcp_server"),
    EventType("mcp.oauth.completed", p.McpOauthCompleted, "mcp_server", terminal=True),
    EventType("mcp.oauth.failed", p.McpOauthFailed, "mcp_server", terminal=True),
    EventType("tool.approval.required", p.ToolApprovalRequired, "approval"),
    EventType("tool.approval.cleared", p.ToolApprovalCleared, "approval", terminal=True),
    EventType("attachment.queued", p.AttachmentQueued, "attachment"),
    EventType("attachment.progress", p.AttachmentProgress, "attachment"),
    EventType("attachment.completed", p.AttachmentCompleted, "attachment", terminal=True),
    EventType("attachment.failed", p.AttachmentFailed, "attachment", terminal=True),
    EventType(BACKLOG_TRUNCATED, p.BacklogTruncated, None),
)
CATALOGUE = {event.name: event for event in _ENTRIES}


def is_dotted_name(text: str) -> bool:
    """Whether it can name a type: letters, digits, `_` and `-` between dots, at least one dot."""
    return re.fullmatch(DOTTED_NAME, text) is not None

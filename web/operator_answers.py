"""What the operator's endpoints answer with, a class for each JSON body; see `web/answers.py`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.open_runs import OpenRun
from shared.payloads import Moment
from web.answers import Connection, Success


class Reading(Success):
    """Something as it stood a moment ago."""

    as_of: Moment = Field(description="When it was read, in UTC: at most a second ago.")


class WatchedConnection(Connection):
    """One open stream, and how far it is behind."""

    behind_ms: int = Field(
        ge=0,
        description="Milliseconds from its cursor to the stream's last entry; of an answer's, 0.",
    )


class WatchingUser(BaseModel):
    """A user with open streams."""

    model_config = ConfigDict(extra="forbid")
    user_id: str = Field(description="The user.")
    streams: int = Field(gt=0, description="How many are open, in all processes.")
    lagging: int = Field(ge=0, description="How many do not keep up, or still replay.")
    since: Moment = Field(description="When the oldest was opened, in UTC.")
    behind_ms: int = Field(ge=0, description="Of the one that is furthest behind.")
    connections: list[WatchedConnection] = Field(
        description="Those streams, the furthest behind first; at most fifty."
    )


class OpenStreams(Reading):
    """Users with open streams, those that lag most first; with `user`, all is of that one."""

    users: int = Field(description="How many have open streams; an estimate where there are more.")
    streams: int = Field(description="How many of those users who were looked at have open.")
    lagging: int = Field(description="How many of these do not keep up, or still replay.")
    more: bool = Field(description="Whether there are users who were not looked at.")
    renewed_seconds: float = Field(
        description="How often a stream says where it stands: cursors and lags may be so old."
    )
    watching: list[WatchingUser] = Field(
        description="Those who were looked at: at most two hundred, or the one asked for."
    )


class RunCounts(BaseModel):
    """How many of the open runs are in which state."""

    model_config = ConfigDict(extra="forbid")
    queued: int
    running: int
    retrying: int
    stalled: int


class OpenRunsPage(Reading):
    """Open runs of all users."""

    counts: RunCounts = Field(description="Of those that were looked at: about a thousand.")
    more: bool = Field(description="Whether there may be runs that were not looked at.")
    matching: int = Field(description="How many there are to page through.")
    offset: int = Field(description="The place of the first one here.")
    runs: list[OpenRun]


class RunCancelled(Success):
    """The run is over."""

    status: Literal["queued", "running", "retrying", "stalled", "completed", "failed", "cancelled"]


class EventRate(BaseModel):
    """How many events of one type were appended."""

    model_config = ConfigDict(extra="forbid")
    type: str = Field(description="Of an answer's event, `message.` and its type.")
    per_second: float = Field(description="In the last minute.")
    last_minute: int = Field(description="How many they were.")
    counts: list[int] = Field(description="For each ten seconds, the latest last; it is not over.")


class EventRates(Reading):
    """The events of all users in the last minute, the most frequent first."""

    per_second: float = Field(description="Of all types.")
    bucket_seconds: int = Field(description="How long each stretch is.")
    types: list[EventRate]


class JournalStanding(BaseModel):
    """The journal of answers as it stands; `events` and `messages` are estimates."""

    model_config = ConfigDict(extra="forbid")
    days: int = Field(description="How many days have a place in it, those to come included.")
    oldest_day: str | None = Field(description="The first of them (UTC).")
    newest_day: str | None = Field(description="The last of them (UTC).")
    events: int
    messages: int
    bytes: int = Field(description="On disk, with indexes.")


class LastPruning(BaseModel):
    """What was last removed."""

    model_config = ConfigDict(extra="forbid")
    at: Moment
    before: str = Field(description="Days before this one were to go.")
    removed: int = Field(description="How many days went.")
    kept: int = Field(description="How many have to wait: they hold an answer that is not over.")
    messages: int
    events: int
    bytes: int
    seconds: float


class JournalAnswer(Reading):
    """The journal of answers, and its retention."""

    days_kept: int = Field(description="`MESSAGE_EVENTS_RETENTION_DAYS`.")
    pruned_every_seconds: int = Field(description="`MESSAGE_PRUNE_EVERY_SECONDS`.")
    journal: JournalStanding
    last_pruning: LastPruning | None

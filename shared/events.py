"""The event catalogue."""

BACKLOG_TRUNCATED = "backlog.truncated"

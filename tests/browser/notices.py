"""What `<event-toasts>` shows besides runs, and a page of another application that has it."""

from __future__ import annotations

from typing import Any

from tests.browser.scripted_server import Json, other_event

HOST_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Host</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'self';
  style-src 'self'; connect-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'">
<script type="module" src="/assets/event-toasts.js"></script></head>
<body><main><h1>A page of another application</h1></main>
<event-toasts src="/api/events" user="alice">
  <template type="report.ready"><p>Report <b data-field="payload.title"></b>,
    <i data-field="payload.pages"></i> pages<u data-field="payload.constructor"></u></p></template>
  <template type="report.failed"><p>No report: <b data-field="payload.reason"></b></p></template>
</event-toasts></body></html>"""


def approval(cursor: str, approval_id: str = "a1", **payload: Any) -> Json:
    given = {"tool": "send_email", "arguments": {"to": "bob"}, "message": "May I write?", **payload}
    scope = {"kind": "approval", "id": approval_id}
    return other_event(cursor, "tool.approval.required", scope, approval_id=approval_id, **given)


def cleared(cursor: str, outcome: str) -> Json:
    scope = {"kind": "approval", "id": "a1"}
    kind = "tool.approval.cleared"
    return other_event(cursor, kind, scope, approval_id="a1", outcome=outcome)


def sign_in(cursor: str, kind: str, **payload: Any) -> Json:
    scope = {"kind": "mcp_server", "id": "gh"}
    return other_event(cursor, f"mcp.oauth.{kind}", scope, server="GitHub", **payload)

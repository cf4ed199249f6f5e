"""The page's own files with scripted answers behind them, for turns that no real run takes on cue.

Serves by intercepting the browser's requests; nothing listens on a port.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page, Route

STATIC = Path(__file__).parents[2] / "web" / "static"
ORIGIN = "https://page.test"  # a secure context: its tabs share a connection
COPIED = "/assets/"  # where a host application has its copy of the files
SOURCE = "7d0f6f9e-0000-4000-8000-000000000001"
RUN = "7d0f6f9e-0000-4000-8000-000000000002"
MOMENT = "2026-01-01T00:00:00.000Z"

Json = dict[str, Any]


def event(cursor: str, kind: str, attempt: int = 1, **payload: Any) -> Json:
    """An envelope of the one scripted run."""
    return {
        "id": cursor,
        "type": f"source.ingest.{kind}",
        "ts": MOMENT,
        "scope": {"kind": "source", "id": SOURCE},
        "payload": {"run_id": RUN, "name": "report.md", "attempt": attempt, **payload},
    }


def other_event(cursor: str, kind: str, scope: Json | None = None, **payload: Any) -> Json:
    """An envelope of anything but a run."""
    return {"id": cursor, "type": kind, "ts": MOMENT, "scope": scope or {}, "payload": payload}


def state(**fields: Any) -> Json:
    """The one scripted run as `GET /api/sources` shows it."""
    shown = dict.fromkeys(("stage", "done", "total", "unit", "attempts", "error", "result"))
    identity = {"source_id": SOURCE, "run_id": RUN, "name": "report.md"}
    moments = {"accepted_at": MOMENT, "updated_at": MOMENT}
    return {**shown, **identity, **moments, "attempt": 1, "percent": 0, **fields}


def frames(*events: Json) -> str:
    """Events as a stream's text, ids where they have one; the reader comes back at once."""
    records = [
        (f"id: {each['id']}\n" if "id" in each else "") + f"data: {json.dumps(each)}\n\n"
        for each in events
    ]
    return "retry: 50\n\n" + "".join(records)


@dataclass
class ScriptedServer:
    """Answers a page. Streams are given one at a time; a request without one waits for it.

    `stream_cursors` are those of the requests for the stream, "" where there is none.
    """

    page: Page
    user_id: str = "alice"
    cursor: str = "1-0"
    sources: Sequence[Json] = ()
    pages: dict[str, str] = field(default_factory=dict)  # of a host application, by path
    tokens: list[str] = field(default_factory=list)  # of the requests for the stream
    stream_cursors: list[str] = field(default_factory=list)
    upload_keys: list[str] = field(default_factory=list)
    upload_answers: list[tuple[int, Json] | None] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)  # method and path, about a source
    refusals: list[tuple[int, str]] = field(default_factory=list)  # of such: status and sentence
    _waiting: list[Route] = field(default_factory=list)
    _streams: list[tuple[int, str, dict[str, str]]] = field(default_factory=list)

    def open(self, path: str = "/") -> None:
        """Opens the page, or one of the host application's."""
        self.page.route(f"{ORIGIN}/**", self._answer)
        self.page.goto(f"{ORIGIN}{path}")

    def reload(self) -> None:
        """Loads the page again; its open requests are void."""
        url = self.page.url
        self.page.goto("about:blank")  # until then it may ask
        self._waiting.clear()
        self.page.goto(url)

    def send(self, *events: Json) -> None:
        """Answers the next request for the stream with these events, and ends the response."""
        self._give(200, frames(*events))

    def refuse(self, status: int, message: str = "", retry_after: int | None = None) -> None:
        """Answers the next request for the stream with a status."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._give(status, json.dumps({"success": False, "message": message}), headers)

    def _give(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        self._streams.append((status, body, headers or {}))
        self._match()

    def _match(self) -> None:
        while self._waiting and self._streams:
            status, body, headers = self._streams.pop(0)
            kind = "text/event-stream" if status == 200 else "application/json"
            headers = {**headers, "Content-Type": kind}
            self._waiting.pop(0).fulfill(status=status, body=body, headers=headers)

    def _answer(self, route: Route) -> None:
        parts = urlsplit(route.request.url)
        if parts.path == "/api/events":
            self.stream_cursors.append(route.request.headers.get("last-event-id", ""))
            self.tokens.append(route.request.headers.get("authorization", ""))
            self._waiting.append(route)
            self._match()
        elif parts.path in self.pages:
            route.fulfill(body=self.pages[parts.path], content_type="text/html")
        elif parts.path == "/api/sources" and route.request.method == "POST":
            self._answer_upload(route)
        elif parts.path.startswith("/api/sources/"):
            self.asked.append((route.request.method, parts.path))
            status, message = self.refusals.pop(0) if self.refusals else (200, "")
            route.fulfill(status=status, json={"success": status < 400, "message": message})
        elif parts.path == "/api/sources":
            body = {"success": True, "user_id": self.user_id, "cursor": self.cursor}
            route.fulfill(json={**body, "sources": list(self.sources)})
        else:
            path = parts.path.removeprefix("/static/").removeprefix(COPIED)
            name = path.strip("/") or "index.html"
            kind = mimetypes.guess_type(name)[0]
            route.fulfill(body=(STATIC / name).read_bytes(), content_type=kind)

    def _answer_upload(self, route: Route) -> None:
        self.upload_keys.append(route.request.headers["idempotency-key"])
        answer = self.upload_answers.pop(0)
        if answer is None:
            route.abort("connectionreset")
        else:
            route.fulfill(status=answer[0], json=answer[1])

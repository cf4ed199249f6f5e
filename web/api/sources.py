"""`/api/sources`: uploads in, runs as they stand out; their end before time, and another one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from uuid import uuid4

import psycopg
from flask import Blueprint, request
from werkzeug.datastructures import FileStorage

from shared import reingestion, uploads
from shared.connections import postgres
from shared.errors import RedisUnavailable
from shared.run_states import RunState, list_runs
from shared.runs import MANY, TERMINAL, Outcome, RunRef, end
from shared.settings import get_settings
from shared.uploads import Stored
from web.api.user import request_user
from web.dispatch import accept_run, not_sent, revoke, send_run, start_run
from web.refusal import Refusal, too_large, unavailable

blueprint = Blueprint("sources", __name__)

TASK = "worker.documents.ingest_source"
LONGEST_KEY = 255
TRIES = 3  # to cancel: another run of the source may begin meanwhile


@blueprint.post("/api/sources")
def create_source() -> tuple[dict[str, Any], int]:
    """Takes one upload (multipart `file`, one or many) as one source and starts its run."""
    user_id = request_user()
    files = [file for file in request.files.getlist("file") if file.filename]
    if not files:
        raise Refusal(400, "no_file", "Send at least one file, in the form field 'file'.")
    stored = _store(user_id, files)
    ref, arguments = _run(user_id, stored)
    try:
        cursor = start_run(ref, TASK, arguments, is_new=stored.created)
    except (Refusal, RedisUnavailable):
        _discard(stored)  # the same Idempotency-Key may try again
        raise
    return _accepted(stored, cursor)


@blueprint.get("/api/sources")
def get_sources() -> dict[str, Any]:
    """The user's newest sources, and the cursor from which to watch them."""
    user_id = request_user()
    cursor, runs = list_runs(user_id)
    states = [asdict(run) for run in runs]
    return {"success": True, "user_id": user_id, "cursor": cursor, "sources": states}


@blueprint.get("/api/sources/<source_id>")
def get_source(source_id: str) -> dict[str, Any]:
    """One source of the user's; 404 where it is not there or not theirs."""
    return _source(*_find(request_user(), source_id))


@blueprint.delete("/api/sources/<source_id>")
def cancel_source(source_id: str) -> dict[str, Any]:
    """Cancels the source's open run, where one is open, and says how the source stands then.

    What searches find of it stays, and so do its uploaded files.
    """
    user_id = request_user()
    cursor, run = _find(user_id, source_id)
    for _ in range(TRIES):
        if run.status in TERMINAL:
            break
        revoke(end(RunRef(user_id, source_id, run.run_id, MANY, run.name)).tasks)
        cursor, run = _find(user_id, source_id)
    return _source(cursor, run)


@blueprint.post("/api/sources/<source_id>/reingest")
def reingest_source(source_id: str) -> tuple[dict[str, Any], int]:
    """Starts another run of a source that was uploaded, of the same files."""
    user_id = request_user()
    stored, outcome = _accept_another(user_id, source_id)
    ref, arguments = _run(user_id, stored)
    try:
        send_run(ref, TASK, arguments, outcome)
    except Exception:
        with postgres() as connection:
            reingestion.forget(connection, stored)  # the same Idempotency-Key may try again
        raise
    return _accepted(stored, outcome.cursor)


def _find(user_id: str, source_id: str) -> tuple[str, RunState]:
    cursor, runs = list_runs(user_id, source_id)
    if not runs:
        raise Refusal(404, "not_found", "There is no such source.")
    return cursor, runs[0]


def _source(cursor: str, run: RunState) -> dict[str, Any]:
    return {"success": True, "cursor": cursor, "source": asdict(run)}


def _run(user_id: str, stored: Stored) -> tuple[RunRef, dict[str, Any]]:
    """The run of a source, and what its task is told."""
    ref = RunRef(user_id, stored.source_id, stored.run_id, stored.task_id, stored.name)
    return ref, {"user_id": user_id, "source_id": stored.source_id, "run_id": stored.run_id}


def _accepted(stored: Stored, cursor: str) -> tuple[dict[str, Any], int]:
    return {
        "success": True,
        "source_id": stored.source_id,
        "run_id": stored.run_id,
        "task_id": stored.task_id,
        "cursor": cursor,
    }, 202


def _accept_another(user_id: str, source_id: str) -> tuple[Stored, Outcome]:
    """Another run of a source: its files are handed over if, and only if, it is accepted."""
    key = _idempotency_key()
    accepted: RunRef | None = None
    try:
        with postgres() as connection, connection.transaction():
            stored = reingestion.renew(
                connection,
                user_id=user_id,
                source_id=source_id,
                run_id=str(uuid4()),
                task_id=str(uuid4()),
                idempotency_key=key,
            )
            ref, _ = _run(user_id, stored)
            outcome = accept_run(ref, is_new=stored.created)
            accepted = ref if outcome.verdict == "ok" else None
    except reingestion.NoSuchSource as error:
        _find(user_id, source_id)  # one that a team's own tasks ingest has a state and no files
        raise _upload_gone() from error
    except uploads.UploadGone as error:
        raise _upload_gone() from error
    except psycopg.Error:
        if accepted is not None:
            not_sent(accepted)
        raise
    return stored, outcome


def _upload_gone() -> Refusal:
    message = "The files of this source are not kept here, or no longer. Please upload them again."
    return Refusal(410, "upload_gone", message)


def _idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key") or None
    if key is not None and len(key) > LONGEST_KEY:
        raise Refusal(400, "bad_key", f"An Idempotency-Key has at most {LONGEST_KEY} characters.")
    return key


def _store(user_id: str, files: list[FileStorage]) -> Stored:
    key = _idempotency_key()
    limit = get_settings().upload_max_bytes
    try:
        with postgres() as connection:
            return uploads.store(
                connection,
                user_id=user_id,
                name=_name(files),
                files=[_upload(file) for file in files],
                source_id=str(uuid4()),
                run_id=str(uuid4()),
                task_id=str(uuid4()),
                idempotency_key=key,
                max_bytes=limit,
            )
    except uploads.UploadTooLarge as error:
        raise too_large(limit) from error
    except uploads.UploadGone as error:  # the one with the same key was discarded in this moment
        raise unavailable("What this Idempotency-Key names") from error


def _discard(stored: Stored) -> None:
    if stored.created:
        with postgres() as connection:
            uploads.discard(connection, stored.source_id)


def _name(files: list[FileStorage]) -> str:
    given = (request.form.get("name") or "").strip()
    if given or len(files) == 1:
        return given or str(files[0].filename)
    return f"{files[0].filename} and {len(files) - 1} more"


def _upload(file: FileStorage) -> uploads.Upload:
    media_type = file.mimetype or "application/octet-stream"
    return uploads.Upload(str(file.filename), media_type, file.stream)

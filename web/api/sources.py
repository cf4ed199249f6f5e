"""`/api/sources`: uploads in, runs as they stand out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from uuid import uuid4

from flask import Blueprint, request
from werkzeug.datastructures import FileStorage

from shared import uploads
from shared.connections import postgres
from shared.errors import RedisUnavailable
from shared.run_states import list_runs
from shared.runs import RunRef
from shared.settings import get_settings
from web.api.user import request_user
from web.dispatch import start_run
from web.refusal import Refusal, too_large

blueprint = Blueprint("sources", __name__)

TASK = "worker.documents.ingest_source"
LONGEST_KEY = 255


@blueprint.post("/api/sources")
def create_source() -> tuple[dict[str, Any], int]:
    """Takes one upload (multipart `file`, one or many) as one source and starts its run."""
    user_id = request_user()
    files = [file for file in request.files.getlist("file") if file.filename]
    if not files:
        raise Refusal(400, "no_file", "Send at least one file, in the form field 'file'.")
    stored = _store(user_id, files)
    ref = RunRef(user_id, stored.source_id, stored.run_id, stored.task_id, stored.name)
    arguments = {"user_id": user_id, "source_id": stored.source_id, "run_id": stored.run_id}
    try:
        cursor = start_run(ref, TASK, arguments)
    except (Refusal, RedisUnavailable):
        _discard(stored)  # the same Idempotency-Key may try again
        raise
    return {
        "success": True,
        "source_id": stored.source_id,
        "run_id": stored.run_id,
        "task_id": stored.task_id,
        "cursor": cursor,
    }, 202


@blueprint.get("/api/sources")
def get_sources() -> dict[str, Any]:
    """The user's newest sources, and the cursor from which to watch them."""
    cursor, runs = list_runs(request_user())
    return {"success": True, "cursor": cursor, "sources": [asdict(run) for run in runs]}


@blueprint.get("/api/sources/<source_id>")
def get_source(source_id: str) -> dict[str, Any]:
    """One source of the user's; 404 where it is not there or not theirs."""
    cursor, runs = list_runs(request_user(), source_id)
    if not runs:
        raise Refusal(404, "not_found", "There is no such source.")
    return {"success": True, "cursor": cursor, "source": asdict(runs[0])}


def _store(user_id: str, files: list[FileStorage]) -> uploads.Stored:
    key = request.headers.get("Idempotency-Key") or None
    if key is not None and len(key) > LONGEST_KEY:
        raise Refusal(400, "bad_key", f"An Idempotency-Key has at most {LONGEST_KEY} characters.")
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


def _discard(stored: uploads.Stored) -> None:
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

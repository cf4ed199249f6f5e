"""`/api/sources`: uploads in, runs as they stand out."""

from __future__ import annotations

import mimetypes
from dataclasses import asdict
from typing import Any
from uuid import uuid4

from flask import Blueprint, request
from werkzeug.datastructures import FileStorage

from shared import uploads
from shared.connections import postgres
from shared.run_states import list_runs
from shared.runs import RunRef
from shared.settings import get_settings
from web.api.user import request_user
from web.dispatch import start_run
from web.refusal import Refusal

blueprint = Blueprint("sources", __name__)

TASK = "worker.documents.ingest_source"
LONGEST_NAME = 300
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
    cursor = start_run(ref, TASK, arguments)
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
                files=[uploads.Upload(_label(f), _media_type(f), f.stream) for f in files],
                source_id=str(uuid4()),
                run_id=str(uuid4()),
                task_id=str(uuid4()),
                idempotency_key=key,
                max_bytes=limit,
            )
    except uploads.UploadTooLarge as error:
        message = f"An upload may have {limit / 1024 / 1024:g} MiB; this one has more."
        raise Refusal(413, "too_large", message) from error


def _name(files: list[FileStorage]) -> str:
    given = (request.form.get("name") or "").strip()
    if not given:
        given = _label(files[0])
        if len(files) > 1:
            given = f"{given} and {len(files) - 1} more"
    return given.replace("\x00", "")[:LONGEST_NAME] or "unnamed"


def _label(file: FileStorage) -> str:
    return (file.filename or "").replace("\x00", "")[:LONGEST_NAME]


def _media_type(file: FileStorage) -> str:
    return file.mimetype or mimetypes.guess_type(_label(file))[0] or "application/octet-stream"

"""One file of a run becomes a document: its text, or the reason why there is none."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import IO

from celery.exceptions import Ignore, SoftTimeLimitExceeded

from shared import upload_files
from shared.connections import postgres
from shared.upload_files import UploadGone
from worker.documents import store
from worker.documents.errors import FileGone, TookTooLong, UnreadableFile
from worker.documents.formats import extract, join
from worker.documents.store import Document
from worker.ingest import IngestError, stage, track

log = logging.getLogger(__name__)


def parse(file_id: str) -> Document:
    """Reads one file and stores what became of it; a second call returns the same.

    A bad file is an answer and no exception: it must not take the others of its source along.

    Raises:
        FileGone: the file was deleted, since its run has ended or has waited for days.
    """
    with stage("parse"), ExitStack() as held:
        with postgres() as connection:
            known = store.find(connection, file_id)
            if known:
                return known
            try:
                file = upload_files.find(connection, file_id)
                copy = held.enter_context(upload_files.open_file(connection, file))
            except UploadGone as error:
                raise FileGone from error
        outcome = _read(copy, file.name)
        with postgres() as connection:
            if isinstance(outcome, str):
                store.keep_text(connection, file_id, outcome)
            else:
                store.keep_error(connection, file_id, outcome)
        return _kept(file_id)


def _read(file: IO[bytes], name: str) -> str | IngestError:
    """Returns the text, or why there is none."""
    try:
        with extract(file, name) as extraction:
            sections = track(extraction.sections, total=extraction.total, unit=extraction.unit)
            return join(sections, extraction.kind)
    except IngestError as error:
        log.info("a file can't be read: %s", error, exc_info=error.__cause__)
        return error
    except SoftTimeLimitExceeded:
        return TookTooLong()
    except Ignore:  # the run was cancelled: that is no fault of the file
        raise
    except Exception:  # the edge to strangers' bytes: whatever a parser trips over is this file's
        log.exception("a file can't be read")
        return UnreadableFile()


def _kept(file_id: str) -> Document:
    """Reads back what is stored, which is what the first of two calls at once put there."""
    with postgres() as connection:
        document = store.find(connection, file_id)
    if document is None:
        raise FileGone
    return document

"""The documents of a run become what a search finds, all at once.

Chunks are written in small transactions, and counted when they are committed; no search finds them
before the last one has shown them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from shared.connections import postgres
from shared.encoding import to_json
from shared.upload_files import Connection
from worker.documents import store
from worker.documents.chunks import spans
from worker.documents.errors import FileGone, NoFileSurvived
from worker.documents.store import Document
from worker.ingest import Cancelled, IngestError, cancelled, progress, stage, track

BATCH_CHUNKS = 200
# The list travels in one event, and that has a limit (EVENT_MAX_BYTES).
FAILED_FILES_BYTES = 8192

Spans = list[tuple[int, int]]


def index(user_id: str, source_id: str, run_id: str) -> dict[str, Any]:
    """Cuts a run's documents into chunks and shows these in place of the source's earlier ones.

    A search sees the source as it was or as it is. A second call goes on where the first one was
    stopped, and ends in the same state.

    Returns:
        How many `files`, `chunks` and `characters` there are, and `failed_files`: each with
        name, code and message.

    Raises:
        NoFileSurvived: no file has text; a lone file's own error instead. What searches found
            before, they still find.
        FileGone: the run has ended, or the source has a newer one.
    """
    with postgres() as connection:
        documents = store.of_run(connection, run_id)
    good = [document for document in documents if document.error_code is None]
    failed = [_failure(document) for document in documents if document.error_code is not None]
    if not good:
        raise _nothing_left(failed)
    with stage("chunk"):
        cut = list(_cut(good))
    with stage("index"):
        chunks = _store(user_id, source_id, run_id, cut)
        _show(user_id, source_id, run_id)
    characters = sum(document.characters for document in good)
    return {
        "files": len(good),
        "chunks": chunks,
        "characters": characters,
        **failures(failed),
    }


def _cut(documents: list[Document]) -> Iterator[tuple[Document, Spans]]:
    total, before = sum(document.characters for document in documents), 0
    for document in documents:
        with postgres() as connection:
            text = _text(connection, document)
        found: Spans = []
        for start, end in spans(text):
            found.append((start, end))
            progress(before + end, total, unit="characters")
            if cancelled():
                raise Cancelled
        before += document.characters
        yield document, found


def _text(connection: Connection, document: Document) -> str:
    text = store.text_of(connection, document.id)
    if text is None:
        raise FileGone
    return text


def _store(user_id: str, source_id: str, run_id: str, cut: list[tuple[Document, Spans]]) -> int:
    total = sum(len(found) for _, found in cut)
    with postgres() as connection:
        if not store.begin_chunks(connection, user_id, source_id, run_id):
            raise FileGone
    for _ in track(_stored(user_id, source_id, cut), total=total, unit="chunks"):
        pass  # each is committed by now, and here a cancelled run ends
    return total


def _stored(user_id: str, source_id: str, cut: list[tuple[Document, Spans]]) -> Iterator[int]:
    """Stores the chunks of documents, and yields the number of each when it is committed."""
    for document, found in cut:
        with postgres() as connection:
            text = _text(connection, document)
        for batch in _batches(text, found):
            with postgres() as connection:
                store.add_chunks(connection, user_id, source_id, document.id, batch)
            yield from (number for number, _ in batch)


def _show(user_id: str, source_id: str, run_id: str) -> None:
    with postgres() as connection:
        if not store.show_run(connection, user_id, source_id, run_id):
            raise FileGone
    with postgres() as connection:  # what it took the place of, and nobody finds any more
        store.forget_leftovers(connection, source_id, run_id)


def _batches(text: str, found: Spans) -> Iterator[list[tuple[int, str]]]:
    chunks = ((number, text[start:end]) for number, (start, end) in enumerate(found))
    while batch := list(islice(chunks, BATCH_CHUNKS)):
        yield batch


def _failure(document: Document) -> dict[str, str]:
    return {
        "name": document.name,
        "code": document.error_code or "",
        "message": document.error_message or "",
    }


def _nothing_left(failed: list[dict[str, str]]) -> IngestError:
    if not failed:
        return FileGone()
    details = failures(failed)
    if len(failed) > 1:
        return NoFileSurvived(details=details)
    return _own_error(failed[0], details)


def _own_error(failure: dict[str, str], details: dict[str, Any]) -> IngestError:
    """A lone file's error, as it was when the file was read."""
    error = IngestError(failure["message"], details=details)
    error.code = failure["code"]  # type: ignore[misc]  # a class's, but for this one
    return error


def failures(failed: list[dict[str, str]]) -> dict[str, Any]:
    """The failed files as they go into an event: as many as fit, and how many more there are."""
    shown: list[dict[str, str]] = []
    size = 0
    for failure in failed:
        size += len(to_json(failure))
        if size > FAILED_FILES_BYTES:
            return {"failed_files": shown, "more_failed_files": len(failed) - len(shown)}
        shown.append(failure)
    return {"failed_files": shown}

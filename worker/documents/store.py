"""Documents and their chunks in Postgres: every statement the pipeline has about them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from psycopg.errors import ForeignKeyViolation

from shared.upload_files import Connection
from worker.documents.errors import FileGone
from worker.ingest import IngestError


@dataclass(frozen=True, slots=True)
class Document:
    """What became of a file: `characters` of text, or a code and a sentence that says why not."""

    id: str
    name: str
    characters: int
    error_code: str | None
    error_message: str | None


_COLUMNS = "id::text, name, characters, error_code, error_message"


def find(connection: Connection, file_id: str) -> Document | None:
    """Returns what became of a file; None where that is not known yet."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM documents WHERE id = %s", (file_id,)
    ).fetchone()
    return Document(*row) if row else None


def of_run(connection: Connection, run_id: str) -> list[Document]:
    """Returns a run's documents in the order of their files."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM documents WHERE run_id = %s ORDER BY position, member", (run_id,)
    )
    return [Document(*row) for row in rows]


def keep_text(connection: Connection, file_id: str, text: str) -> None:
    """Stores what was read of a file. What is known already stays."""
    _keep(connection, file_id, len(text), text, None, None)


def keep_error(connection: Connection, file_id: str, error: IngestError) -> None:
    """Stores why a file could not be read. What is known already stays."""
    _keep(connection, file_id, 0, None, error.code, str(error))


def _keep(
    connection: Connection,
    file_id: str,
    characters: int,
    text: str | None,
    code: str | None,
    message: str | None,
) -> None:
    connection.execute(
        "INSERT INTO documents (id, source_id, run_id, position, member, name,"
        " characters, text, error_code, error_message)"
        " SELECT id, source_id, run_id, position, member, name, %s, %s, %s, %s"
        " FROM upload_files WHERE id = %s ON CONFLICT (id) DO NOTHING",
        (characters, text, code, message, file_id),
    )


def text_of(connection: Connection, document_id: str) -> str | None:
    """Returns a document's text; None when its run has ended."""
    row = connection.execute("SELECT text FROM documents WHERE id = %s", (document_id,)).fetchone()
    return row[0] if row else None


def begin_chunks(connection: Connection, user_id: str, source_id: str, run_id: str) -> bool:
    """Hides the documents of a run that have no chunks yet; chunks may be added to them now.

    False where the source is not the user's, is gone, or has a newer run; nothing is done then.
    """
    if not _is_latest(connection, user_id, source_id, run_id):
        return False
    connection.execute(
        "UPDATE documents SET staged = true WHERE run_id = %s AND text IS NOT NULL"
        " AND NOT EXISTS (SELECT FROM chunks WHERE document_id = documents.id)",
        (run_id,),
    )
    return True


def show_run(connection: Connection, user_id: str, source_id: str, run_id: str) -> bool:
    """Has searches find a run's documents in place of those of the source's earlier run.

    False as with `begin_chunks`.
    """
    if not _is_latest(connection, user_id, source_id, run_id):
        return False
    connection.execute(
        "UPDATE documents SET staged = NOT staged"
        " WHERE source_id = %s AND staged <> (run_id <> %s)",
        (source_id, run_id),
    )
    return True


def _is_latest(connection: Connection, user_id: str, source_id: str, run_id: str) -> bool:
    """Also holds the source for the rest of the transaction, so that of two at once one waits."""
    row = connection.execute(
        "SELECT FROM sources WHERE id = %s AND user_id = %s AND run_id = %s FOR UPDATE",
        (source_id, user_id, run_id),
    ).fetchone()
    return row is not None


def add_chunks(
    connection: Connection,
    user_id: str,
    source_id: str,
    document_id: str,
    chunks: Iterable[tuple[int, str]],
) -> None:
    """Stores chunks, each a number and a text. What is there already stays.

    Raises:
        FileGone: the document was deleted, since its run has ended.
    """
    rows = [(document_id, number, source_id, user_id, text) for number, text in chunks]
    try:
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO chunks (document_id, number, source_id, user_id, text)"
                " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                rows,
            )
    except ForeignKeyViolation as error:
        raise FileGone from error


def forget_texts(connection: Connection, run_id: str) -> None:
    """Deletes the whole texts of a run's documents; their chunks stay."""
    connection.execute(
        "UPDATE documents SET text = NULL WHERE run_id = %s AND text IS NOT NULL", (run_id,)
    )


def forget_staged(connection: Connection, run_id: str) -> None:
    """Deletes the documents of a run that no search finds, with their chunks."""
    connection.execute("DELETE FROM documents WHERE run_id = %s AND staged", (run_id,))


def forget_leftovers(connection: Connection, source_id: str, run_id: str) -> None:
    """Deletes a source's documents that no search finds, of all runs but one."""
    connection.execute(
        "DELETE FROM documents WHERE source_id = %s AND run_id <> %s AND (staged"
        " OR NOT EXISTS (SELECT FROM chunks WHERE document_id = documents.id))",
        (source_id, run_id),
    )


def left_over(
    connection: Connection, older_than: timedelta, keep_uploads: timedelta
) -> list[tuple[str, str, bool]]:
    """Returns the runs that something is kept for which they need only while they are open.

    Args:
        connection: reads only.
        older_than: what makes a run old.
        keep_uploads: for how long uploaded files are kept in any case.

    Returns:
        Each run with its user, and whether all that is kept for it is old.
    """
    return connection.execute(
        "SELECT kept.run_id, user_id, max(kept.created_at) < now() - %s::interval FROM ("
        " SELECT run_id, source_id, created_at FROM upload_files WHERE member > 0 UNION ALL"
        " SELECT run_id, source_id, created_at FROM upload_files WHERE member = 0"
        " AND created_at < now() - %s::interval UNION ALL"
        " SELECT run_id, source_id, created_at FROM documents WHERE text IS NOT NULL UNION ALL"
        " SELECT run_id, source_id, created_at FROM documents WHERE staged"
        ") AS kept JOIN sources ON sources.id = kept.source_id GROUP BY kept.run_id, user_id",
        (older_than, keep_uploads),
    ).fetchall()

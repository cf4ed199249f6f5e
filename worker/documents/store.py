"""Documents and their chunks in Postgres: every statement the pipeline has about them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from shared.upload_files import Connection
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


def replace_chunks(connection: Connection, user_id: str, source_id: str, run_id: str) -> bool:
    """Makes room for a run's chunks: removes those that the source has, and its older documents.

    Holds the source for the rest of the transaction, so that of two at once one waits. False
    where the source is not the user's, is gone, or has a newer run; nothing is removed then.
    """
    row = connection.execute(
        "SELECT 1 FROM sources WHERE id = %s AND user_id = %s AND run_id = %s FOR UPDATE",
        (source_id, user_id, run_id),
    ).fetchone()
    if row is None:
        return False
    connection.execute("DELETE FROM chunks WHERE source_id = %s", (source_id,))
    connection.execute(
        "DELETE FROM documents WHERE source_id = %s AND run_id <> %s", (source_id, run_id)
    )
    return True


def add_chunks(
    connection: Connection,
    user_id: str,
    source_id: str,
    document_id: str,
    chunks: Iterable[tuple[int, str]],
) -> None:
    """Stores chunks, each a number and a text."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO chunks (document_id, number, source_id, user_id, text)"
            " VALUES (%s, %s, %s, %s, %s)",
            [(document_id, number, source_id, user_id, text) for number, text in chunks],
        )


def forget_texts(connection: Connection, run_id: str) -> None:
    """Deletes the whole texts of a run's documents; their chunks stay."""
    connection.execute(
        "UPDATE documents SET text = NULL WHERE run_id = %s AND text IS NOT NULL", (run_id,)
    )


def left_over(connection: Connection, older_than: timedelta) -> list[tuple[str, str, bool]]:
    """Returns the runs that bytes or whole texts are kept for: run, user, whether all are older."""
    return connection.execute(
        "SELECT kept.run_id, user_id, max(kept.created_at) < now() - %s FROM ("
        " SELECT run_id, source_id, created_at FROM upload_files UNION ALL"
        " SELECT run_id, source_id, created_at FROM documents WHERE text IS NOT NULL"
        ") AS kept JOIN sources ON sources.id = kept.source_id GROUP BY kept.run_id, user_id",
        (older_than,),
    ).fetchall()

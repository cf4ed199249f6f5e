"""Sources that went through the pipeline's functions, without Celery, for tests of what follows."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from shared import reingestion, uploads
from shared.connections import postgres
from shared.uploads import Stored, Upload
from worker.documents.indexing import index
from worker.documents.members import Limits
from worker.documents.parsing import parse
from worker.documents.unpacking import unpack


def upload(
    files: Mapping[str, bytes], user: str = "alice", name: str = "Birds", key: str | None = None
) -> Stored:
    """Stores an upload."""
    with postgres() as connection:
        return uploads.store(
            connection,
            user_id=user,
            name=name,
            files=[Upload(label, "", io.BytesIO(data)) for label, data in files.items()],
            source_id=str(uuid4()),
            run_id=str(uuid4()),
            task_id=str(uuid4()),
            idempotency_key=key,
            max_bytes=100_000_000,
        )


def renew(stored: Stored, user: str = "alice", key: str | None = None) -> Stored:
    """Gives an uploaded source another run."""
    with postgres() as connection:
        return reingestion.renew(
            connection,
            user_id=user,
            source_id=stored.source_id,
            run_id=str(uuid4()),
            task_id=str(uuid4()),
            idempotency_key=key,
        )


def ingest(
    files: Mapping[str, bytes],
    user: str = "alice",
    name: str = "Birds",
    limits: Limits | None = None,
) -> dict[str, Any]:
    """Stores an upload and does what its tasks would; returns the run's result."""
    stored = upload(files, user, name)
    for file in unpack(stored.run_id, limits):
        parse(file.id)
    return index(user, stored.source_id, stored.run_id)

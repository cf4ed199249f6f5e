"""What the demo uploads: each path that is named, a file or a folder, is one source."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx

import worker
from shared.errors import EventStreamError
from worker.cli.following import StreamRefused, refusal_message

PROJECT = Path(worker.__file__).parents[1]
_SECONDS = 120  # a large upload on a slow disk


class NothingToUpload(EventStreamError):
    """There is nothing to upload."""


class UploadRefused(EventStreamError):
    """The server did not take an upload."""


@dataclass(frozen=True, slots=True)
class Upload:
    """The files of one source, below `root`."""

    name: str
    root: Path
    files: Sequence[Path]


def default_uploads() -> list[Upload]:
    """This project's own documentation, as far as it is there, and its sample PDF."""
    candidates = (PROJECT / "README.md", PROJECT / "docs", PROJECT / "examples" / "guide.pdf")
    found = [upload_of(path) for path in candidates if path.exists() and _files(path)]
    if not found:
        raise NothingToUpload(f"{PROJECT} holds no documentation. Name a file or a folder.")
    return found


def upload_of(path: Path) -> Upload:
    """Makes one source of a file, or of all files in a folder.

    Raises:
        NothingToUpload: there is nothing at the path, or no file in the folder.
    """
    if not path.exists():
        raise NothingToUpload(f"{path} does not exist.")
    files = _files(path)
    if not files:
        raise NothingToUpload(f"{path} holds no file with anything in it.")
    real = path.resolve()
    return Upload(real.name or str(real), real.parent if path.is_file() else real, files)


def _files(path: Path) -> list[Path]:
    """The files below a path that are not empty, hidden ones left out."""
    real = path.resolve()
    found = [real] if real.is_file() else sorted(p for p in real.rglob("*") if p.is_file())
    hidden = {p for p in found if any(part.startswith(".") for part in p.relative_to(real).parts)}
    return [p for p in found if p not in hidden and p.stat().st_size]


def current_cursor(client: httpx.Client) -> str:
    """The position that an upload's events come after.

    Raises:
        StreamRefused: the server does not say.
    """
    try:
        response = client.get("/api/sources")
    except httpx.TransportError as error:
        raise StreamRefused(f"{client.base_url} can't be reached: {error}") from error
    if response.status_code != httpx.codes.OK:
        raise StreamRefused(refusal_message(response))
    return str(response.json()["cursor"])


def send(client: httpx.Client, upload: Upload) -> str:
    """Uploads one source; returns the id of the run that ingests it.

    Raises:
        UploadRefused: the server did not take it, for the reason it gave.
    """
    with ExitStack() as opened:
        parts = [
            (
                "file",
                (file.relative_to(upload.root).as_posix(), opened.enter_context(file.open("rb"))),
            )
            for file in upload.files
        ]
        try:
            response = client.post(
                "/api/sources", data={"name": upload.name}, files=parts, timeout=_SECONDS
            )
        except httpx.TransportError as error:
            raise UploadRefused(f"{upload.name}: the upload broke off: {error}") from error
    if response.status_code != httpx.codes.ACCEPTED:
        raise UploadRefused(f"{upload.name}: {refusal_message(response)}")
    return str(response.json()["run_id"])

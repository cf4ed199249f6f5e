"""Files of every kind the pipeline meets, good and bad, made as they are needed."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping

from fpdf import FPDF
from fpdf.enums import AccessPermission

GUIDE_WORDS = "ospreys fish at daybreak"

MARKDOWN = b"# Herons\n\nA heron stands still.\n\n## Food\n\n- frogs\n- small fish\n"

HTML = b"""<!doctype html>
<html><head><title>Marsh birds</title><style>p { color: red }</style></head>
<body><script>alert('never')</script><h1>Bitterns</h1>
<p>They <b>boom</b> in <a href="https://example.org/reeds">reeds</a>.</p>
<table><tr><th>bird</th><th>call</th></tr><tr><td>snipe</td><td>drum</td></tr></table>
</body></html>"""

BROKEN_PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\nthis is where the pages would be\n%%EOF\n"


def pdf(*pages: str, password: str | None = None) -> bytes:
    """A PDF with these pages; an empty one is a page without text, like a scan's."""
    document = FPDF()
    document.set_font("Helvetica", size=12)
    for text in pages:
        document.add_page()
        if text:
            document.multi_cell(0, 8, text)
    if password:
        document.set_encryption(
            owner_password=f"{password}-owner",
            user_password=password,
            permissions=AccessPermission.none(),
        )
    return bytes(document.output())


def zip_of(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive that holds these files by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A tar archive that holds these files by name, and a folder and a link besides."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def tar_gz_of(files: Mapping[str, bytes]) -> bytes:
    """The same, gzipped."""
    return gzip.compress(tar_of(files), mtime=0)


def encrypted_zip(name: str, data: bytes) -> bytes:
    """A zip archive whose one member says that it takes a password."""
    return _with_flags(zip_of({name: data}), 0x1)


def unflagged_zip(name: str, data: bytes) -> bytes:
    """A zip archive whose one member's name is UTF-8, and does not say so."""
    return _with_flags(zip_of({name: data}), 0)


def _with_flags(archive: bytes, flags: int) -> bytes:
    """Sets the general purpose flags of an archive's first member (APPNOTE.TXT 4.4.4)."""
    changed = bytearray(archive)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = archive.index(signature) + offset
        changed[at : at + 2] = flags.to_bytes(2, "little")
    return bytes(changed)

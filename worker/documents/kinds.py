"""What kind of file this is: by its first bytes where they tell, else by its name."""

from __future__ import annotations

import codecs
import re
from enum import Enum
from typing import IO

HEAD_BYTES = 8192


class Kind(Enum):
    """How a file is read."""

    TEXT = "text"
    HTML = "html"
    PDF = "pdf"
    ZIP = "zip"
    TAR = "tar"
    EMPTY = "empty"
    UNKNOWN = "unknown"


ARCHIVES = frozenset({Kind.ZIP, Kind.TAR})

_CONTROLS = bytes(range(1, 9)) + bytes(range(14, 27)) + bytes(range(28, 32))
_GZIP = b"\x1f\x8b"
_UTF_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
_NO_TEXT = (b"{\\rtf", b"%!PS", b"BZh", b"\xfd7zXZ")  # text only to a computer
_HTML = re.compile(
    rb"\s*(<\?xml[^>]*>\s*)?(<!--((?!-->).)*-->\s*)*<(!doctype\s+html|html)\b", re.I | re.S
)
_NAMES = {
    Kind.PDF: (".pdf",),
    Kind.HTML: (".html", ".htm", ".xhtml"),
    Kind.ZIP: (".zip",),
    Kind.TAR: (".tar", ".tgz", ".gz"),
}
# Zip files that their users don't know as such.
_PACKAGES = (
    *(".docx", ".docm", ".xlsx", ".xlsm", ".pptx", ".odt", ".ods", ".odp"),
    *(".epub", ".jar", ".apk", ".whl", ".pages", ".numbers", ".key"),
)


def kind_of(file: IO[bytes], name: str) -> Kind:
    """Says what kind a file is; leaves it at its start."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if not head.strip():
        return Kind.EMPTY
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Kind.UNKNOWN if name.lower().endswith(_PACKAGES) else Kind.ZIP
    return _by_signature(head) or _by_name(name) or _text_or_unknown(head)


def _by_signature(head: bytes) -> Kind | None:
    if head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"%PDF-"):
        return Kind.PDF
    if head.startswith(_GZIP) or head[257:262] == b"ustar":
        return Kind.TAR
    if _HTML.match(head.removeprefix(codecs.BOM_UTF8)):
        return Kind.HTML
    return Kind.UNKNOWN if head.startswith(_NO_TEXT) else None


def _by_name(name: str) -> Kind | None:
    for kind, endings in _NAMES.items():
        if name.lower().endswith(endings):
            return kind
    return None


def _text_or_unknown(head: bytes) -> Kind:
    """No text has NUL bytes, but for UTF-16 and UTF-32, which say so at their start."""
    if head.startswith(_UTF_MARKS):
        return Kind.TEXT
    controls = len(head) - len(head.translate(None, _CONTROLS))
    return Kind.UNKNOWN if b"\x00" in head or controls > len(head) / 100 else Kind.TEXT

"""From bytes to text, in whatever encoding it was written."""

from __future__ import annotations

import codecs

import charset_normalizer

from worker.documents.errors import UnreadableText

_SAMPLE_BYTES = 65_536
# UTF-32 before UTF-16: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_VALID_PER_DAMAGED = 10


def decode(data: bytes) -> str:
    """Returns the text: by its byte order mark, as UTF-8, else by what its bytes look like.

    Raises:
        UnreadableText: they look like nothing known.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _mostly_utf8(data) or _guessed(data)


def _mostly_utf8(data: bytes) -> str | None:
    """One stray byte must not turn a whole UTF-8 text into another encoding's gibberish."""
    text = data.decode("utf-8", errors="replace")
    damaged = text.count("\ufffd")
    valid = sum(not character.isascii() for character in text) - damaged
    return text if valid >= _VALID_PER_DAMAGED * damaged else None


def _guessed(data: bytes) -> str:
    best = charset_normalizer.from_bytes(data[:_SAMPLE_BYTES]).best()
    if best is None:
        raise UnreadableText
    return data.decode(best.encoding, errors="replace")

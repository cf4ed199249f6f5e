"""Text as Postgres can keep it: valid UTF-8 without control characters.

Postgres refuses NUL and lone surrogates. The other control characters mean nothing in a document
and are left to search, which marks hits with them.
"""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def storable(text: str) -> str:
    """Returns the text without what can't be kept; ends of lines become newlines."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0c", "\n")
    return _SURROGATE.sub("\ufffd", _CONTROL.sub("", text))


def is_storable(text: str) -> bool:
    """Whether Postgres can keep the text exactly as it is."""
    return "\x00" not in text and not _SURROGATE.search(text)


def label(text: str, longest: int = 300) -> str:
    """Returns a name on one line, of at most `longest` characters; `unnamed` for an empty one."""
    return " ".join(storable(text).split())[:longest].strip() or "unnamed"

"""Events as JSON: what a user stream holds.

An event is immutable: type, ts, scope, payload, id. Its body is encoded once, where it is made,
as strict ASCII JSON without the id; the Lua step that appends it splices the id in.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from typing import Any
from uuid import UUID

from shared.errors import EventRefused
from shared.events import BACKLOG_TRUNCATED, is_dotted_name


def now_iso() -> str:
    """The time in UTC as ISO 8601 with milliseconds: `2026-01-01T00:00:00.000Z`."""
    return to_iso(datetime.now(UTC))


def to_iso(moment: datetime) -> str:
    """An aware datetime in UTC as ISO 8601 with milliseconds."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


def to_json(value: Any) -> str:
    """Encodes strict ASCII JSON without spaces.

    Datetimes, dates and times become ISO 8601, UUIDs, Decimals and paths strings, enums their
    value, dataclasses and mappings objects, sets lists. Keys of objects become text likewise.

    Raises:
        EventRefused: the value holds NaN, an infinity, itself, two keys of one text, or something
            that JSON has no form for.
    """
    try:
        return _encode(value)
    except RecursionError as error:
        raise EventRefused("The payload is not JSON: it holds itself, or is too deep.") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise EventRefused(f"The payload is not JSON: {error}.") from error


def _encode(value: Any) -> str:
    try:
        text = _ENCODER.encode(value)
    except TypeError:  # also raised for a key that is no text, which `default` is never asked
        text = _ENCODER.encode(_with_text_keys(value))
    if _PERHAPS_NO_TEXT.search(text):
        json.loads(text, object_pairs_hook=_check_distinct)
    return text


def _check_distinct(members: list[tuple[str, Any]]) -> None:
    if len(dict(members)) < len(members):
        raise TypeError(_SAME_KEYS)


def _with_text_keys(value: Any) -> Any:
    """The same value, with keys that are UUIDs, enums, dates and the like as text."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_with_text_keys(item) for item in value]
    if not isinstance(value, Mapping):
        return _with_text_keys(_plain(value))
    texts = {_key(key): _with_text_keys(item) for key, item in value.items()}
    if len(texts) < len(value):
        raise TypeError(_SAME_KEYS)
    return texts


def _key(key: Any) -> str:
    plain = key if isinstance(key, str) else json.loads(_ENCODER.encode({"": key}))[""]
    if isinstance(plain, (dict, list)):
        raise TypeError(f"{type(key).__name__} can't be a key")
    return plain if isinstance(plain, str) else json.dumps(plain)


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return to_iso(value) if value.tzinfo else value.isoformat()
        case date() | time():
            return value.isoformat()
        case Decimal() if not value.is_finite():
            raise ValueError(f"{value} has no JSON form")
        case UUID() | Decimal() | PurePath():
            return str(value)
        case Enum():
            return value.value
        case set() | frozenset():
            return sorted(value, key=str)
        case Mapping():
            return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")


_ENCODER = json.JSONEncoder(
    ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=_plain
)
# A key that the encoder may have made from a number, a bool or None, beside the same as text.
_PERHAPS_NO_TEXT = re.compile(r'"(?:[-0-9][^"]*|true|false|null)":')
_SAME_KEYS = "two keys of an object are the same as text"
_NO_TYPE = (
    "An event's type is a dotted name such as 'report.ready': letters, digits, '_' and '-' "
    "between dots, not {!r}."
)


def _is_text(text: str) -> bool:
    """Whether it can be sent: half a surrogate pair can't."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def envelope_head(user_id: str, scope: Mapping[str, Any] | None) -> str:
    """The members of an event from `user_id` to `scope`, as JSON text without braces."""
    return f'{_user_members(user_id)},"scope":{to_json(dict(scope)) if scope else "{}"}'


@lru_cache(maxsize=1024)
def _user_members(user_id: str) -> str:
    return f'"user_id":{to_json(user_id)},"topic":{to_json("user:" + user_id)}'


def encode_body(
    user_id: str,
    event_type: str,
    payload: Mapping[str, Any],
    *,
    scope: Mapping[str, Any] | None,
    max_bytes: int,
) -> str:
    """Encodes an event without its id, as the append step takes it.

    The members of a payload are not compared with the catalogue.

    Raises:
        EventRefused: the user is empty, the type no dotted name or the stream's own, the payload
            no JSON object, or the body larger than `max_bytes`.
    """
    if not (isinstance(user_id, str) and user_id and _is_text(user_id)):
        raise EventRefused("An event needs a user id: text that is not empty.")
    type_member = _type_member(event_type)
    if not isinstance(payload, Mapping):
        raise EventRefused(f"A payload is a mapping, not {type(payload).__name__}.")
    if scope is not None and not isinstance(scope, Mapping):
        raise EventRefused(f"A scope is a mapping or None, not {type(scope).__name__}.")
    body = (
        f'{{{type_member},"ts":"{now_iso()}",'
        f'{envelope_head(user_id, scope)},"payload":{to_json(payload)}}}'
    )
    if len(body) > max_bytes:
        raise EventRefused(
            f"The event {event_type} has {len(body)} bytes; EVENT_MAX_BYTES allows {max_bytes}."
        )
    return body


def type_of(body: str) -> str:
    """The type of an event that `encode_body` has made."""
    start = len('{"type":"')
    return body[start : body.find('"', start)]


def _type_member(event_type: object) -> str:
    if not isinstance(event_type, str):
        raise EventRefused(_NO_TYPE.format(event_type))
    return _type_member_of(event_type)


@lru_cache(maxsize=1024)
def _type_member_of(event_type: str) -> str:
    if not is_dotted_name(event_type):
        raise EventRefused(_NO_TYPE.format(event_type))
    if event_type == BACKLOG_TRUNCATED:
        raise EventRefused(
            f"{BACKLOG_TRUNCATED} is what a stream says of itself; take another type."
        )
    return f'"type":{to_json(event_type)}'

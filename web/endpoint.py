"""How an HTTP endpoint is described: what it takes, what it answers, and when it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

NO_AUTH: tuple[str, ...] = ()
SIGNED_IN = ("bearer", "cookie")

# Of whoever is signed in, and of what asks a server. A 401's code says what is wrong with a token.
OURS: Mapping[int, tuple[str, ...]] = {401: (), 403: ("unknown_host",), 503: ("unavailable",)}
OUR_WRITES = {**OURS, 403: ("unknown_host", "cross_origin")}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value that a request may carry outside its body; one in the path it must."""

    name: str
    place: Literal["path", "query", "header"]
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method of one path.

    `form` has the JSON Schema of each field of a multipart body, `json` of each member of one.
    `body` is the class of the JSON answer, or the media type and a sentence of another one.
    `refusals` has the codes of each status; none where they are not fixed.
    """

    method: Literal["get", "post", "delete"]
    path: str
    summary: str
    name: str
    body: type[BaseModel] | tuple[str, str]
    status: int = 200
    security: tuple[str, ...] = SIGNED_IN
    parameters: tuple[Parameter, ...] = ()
    form: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    json: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    refusals: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

"""Who somebody is, and the two ways of not knowing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeGuard

from shared.settings import Settings
from shared.text import is_storable
from web.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Identity:
    """A user, for as long as what proved it is good.

    `expires_at` is in Unix seconds, None for no end. `headers` go out with the answer. Who
    `is_operator` may look after everybody's streams and runs.
    """

    user_id: str
    expires_at: float | None = None
    is_operator: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


def is_user_id(value: object) -> TypeGuard[str]:
    """Whether this can name a user: text that is not blank, and that Postgres can keep."""
    return isinstance(value, str) and bool(value.strip()) and is_storable(value)


def not_authenticated(message: str, code: str = "not_authenticated") -> Refusal:
    """401: nobody is known by what this request carries."""
    return Refusal(401, code, message, headers={"WWW-Authenticate": "Bearer"})


def not_operator(settings: Settings) -> Refusal:
    """403: it is known who asks, and this is not theirs to see."""
    who = {
        "none": "with OPERATOR_ON_LOOPBACK=true whoever asks from this machine, and by no proxy",
        "jwt": f"those whose token says '{settings.jwt_operator_claim}': true",
        "callable": "those of whom AUTH_CALLABLE says that they are operators",
    }
    return Refusal(403, "not_operator", f"This is for operators: {who[settings.auth_type]}.")


def expired() -> Refusal:
    """401: what it carries was good once."""
    return not_authenticated("This token has expired. Please sign in again.", "token_expired")

"""JSON Web Tokens (RFC 7519): whose a token is, and until when.

How a signature is verified follows from the key, never from the token (RFC 8725, section 3.1). A
token stays out of every log and message; that it was verified is remembered by its SHA-256.
"""

from __future__ import annotations

import hashlib
import time
from functools import lru_cache, partial
from typing import NamedTuple

import jwt
from jwt import PyJWK
from jwt.algorithms import HMACAlgorithm

from shared.errors import SettingsError
from shared.settings import Settings
from web.identity import Identity, expired, is_user_id, not_authenticated
from web.jwks import KeySet, fetch_jwks
from web.refusal import Refusal

LEEWAY_SECONDS = 5
LONGEST_TOKEN = 16 * 1024
LONGEST_HEADER = 4 * 1024
REMEMBERED = 2048  # tokens that were verified: a client sends its own again and again
NO_TOKEN = "This is no token (JWT)."


class _Verified(NamedTuple):
    """What a good token says, and the key that vouches for it."""

    key: PyJWK
    user_id: str
    exp: int | None
    is_operator: bool


class Tokens:
    """Verifies tokens as the settings say.

    Raises:
        SettingsError: not exactly one of secret and JWKS is set, or the secret is none.
    """

    def __init__(self, settings: Settings) -> None:
        self._secret, self._keys = _keys(settings)
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer
        self._operator_claim = settings.jwt_operator_claim
        self._verified: dict[bytes, _Verified] = {}

    def blocks(self, token: str) -> bool:
        """Whether `verify` would wait for a server of keys."""
        if self._keys is None:
            return False
        try:
            return self._keys.blocks(*_header_of(token))
        except Refusal:
            return False

    def verify(self, token: str) -> Identity:
        """Whose token this is.

        Raises:
            Refusal: 401, it is not good; 503, its key can't be had just now.
        """
        if len(token) > LONGEST_TOKEN:
            raise not_authenticated(NO_TOKEN)
        key = self._secret if self._keys is None else self._keys.find(*_header_of(token))
        if key is None:
            raise not_authenticated("This token is signed with a key that is not known here.")
        digest = hashlib.sha256(token.encode()).digest()
        found = self._verified.get(digest)
        if found is None or found.key is not key:  # a key that was fetched again vouches anew
            found = self._decode(token, key)
            if len(self._verified) >= REMEMBERED:
                self._verified.clear()
            self._verified[digest] = found
        if found.exp is not None and found.exp + LEEWAY_SECONDS <= time.time():
            raise expired()
        return Identity(found.user_id, _end(found.exp), found.is_operator)

    def _decode(self, token: str, key: PyJWK) -> _Verified:
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"verify_aud": self._audience is not None, "verify_iat": False},
            )
        except jwt.ExpiredSignatureError as error:
            raise expired() from error
        except jwt.InvalidTokenError as error:
            raise not_authenticated(_sentence(error)) from error
        user_id, exp = claims.get("sub"), claims.get("exp")
        if not is_user_id(user_id):
            raise not_authenticated("This token names nobody: its 'sub' takes a user's id.")
        is_operator = claims.get(self._operator_claim) is True  # not a text that says so, nor 1
        return _Verified(key, user_id, None if exp is None else int(exp), is_operator)


def _keys(settings: Settings) -> tuple[PyJWK | None, KeySet | None]:
    """The one key for HS256, or the set of keys for the others."""
    secret, url = settings.jwt_secret_key, settings.jwt_jwks_url
    if secret is not None and url is None:
        return _secret_key(secret), None
    if url is not None and secret is None:
        return None, KeySet(partial(fetch_jwks, url))
    got = "neither" if url is None else "both"
    raise SettingsError(
        f"AUTH_TYPE=jwt takes exactly one of JWT_SECRET_KEY and JWT_JWKS_URL, and {got} is set."
    )


def _secret_key(secret: str) -> PyJWK:
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except jwt.InvalidKeyError as error:
        raise SettingsError(
            "JWT_SECRET_KEY is wrong: got a public key or a certificate, takes a shared "
            "secret. Public keys come from JWT_JWKS_URL."
        ) from error
    return PyJWK(HMACAlgorithm.to_jwk(secret, as_dict=True), "HS256")


def _header_of(token: str) -> tuple[str, str | None]:
    """The algorithm and the key id that a token claims."""
    header, _, _ = token.partition(".")
    if len(header) > LONGEST_HEADER:
        raise not_authenticated(NO_TOKEN)
    return _parsed(header)


@lru_cache(maxsize=64)  # by the header alone: there are few of them, and none is a secret
def _parsed(encoded: str) -> tuple[str, str | None]:
    try:
        header = jwt.get_unverified_header(f"{encoded}..")
    except jwt.InvalidTokenError as error:
        raise not_authenticated(NO_TOKEN) from error
    return str(header.get("alg")), header.get("kid")


def _end(exp: int | None) -> float | None:
    """When a verified token ends; one that lives on the leeway alone, at the leeway's end."""
    if exp is None:
        return None
    end = float(exp)
    return end if end > time.time() else end + LEEWAY_SECONDS


def _sentence(error: jwt.InvalidTokenError) -> str:
    match error:
        case jwt.ImmatureSignatureError():
            return "This token is not valid yet (nbf)."
        case jwt.InvalidAudienceError():
            return "This token is for another audience (aud)."
        case jwt.InvalidIssuerError():
            return "This token is from another issuer (iss)."
        case jwt.MissingRequiredClaimError(claim=claim):
            return f"This token lacks '{claim}'."
        case jwt.InvalidSignatureError():
            return "This token is not valid."
        case jwt.DecodeError():
            return NO_TOKEN
        case _:
            return "This token is not valid."

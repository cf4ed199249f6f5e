"""The public keys at `JWT_JWKS_URL` (RFC 7517): fetched when one is needed, and kept.

They are fetched again when they are five minutes old and for a key that is not known, yet never
within ten seconds of the last try. Where that fails, the keys at hand stay good. A key's own type
says how it verifies; a token has no say in it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

import httpx
from jwt import PyJWK, PyJWTError

from web.refusal import unavailable

log = logging.getLogger(__name__)

FRESH_SECONDS = 300.0
PAUSE_SECONDS = 10.0
TIMEOUT = httpx.Timeout(3.0, connect=2.0)
ALGORITHMS = {"RSA": "RS256", "EC": "ES256"}


class KeySet:
    """The keys of one address, for all threads of a process.

    Args:
        fetch: gives the JWKS as parsed JSON; raises httpx.HTTPError or ValueError.
        clock: monotonic seconds.
    """

    def __init__(
        self, fetch: Callable[[], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: tuple[PyJWK, ...] = ()
        self._fetched_at = -math.inf
        self._tried_at = -math.inf

    def blocks(self, algorithm: str, kid: str | None) -> bool:
        """Whether `find` would wait for the server."""
        return self._is_due(algorithm, self._match(algorithm, kid))

    def find(self, algorithm: str, kid: str | None) -> PyJWK | None:
        """The one key that fits a token's header; None where none does, or several do.

        Raises:
            Refusal: 503, it is not among the keys at hand, and the server gave no others.
        """
        key = self._match(algorithm, kid)
        if self._is_due(algorithm, key):
            self._refresh(wait=key is None)
        key = self._match(algorithm, kid)  # again in any case: another thread may have fetched
        if key is None and self._tried_at > self._fetched_at:
            raise unavailable("The server of the keys that tokens are signed with")
        return key

    def _match(self, algorithm: str, kid: str | None) -> PyJWK | None:
        fitting = [
            key
            for key in self._keys
            if key.algorithm_name == algorithm and kid in (None, key.key_id)
        ]
        return fitting[0] if len(fitting) == 1 else None

    def _is_due(self, algorithm: str, key: PyJWK | None) -> bool:
        if algorithm not in ALGORITHMS.values():
            return False  # no key will ever fit
        now = self._clock()
        is_wanted = key is None or now - self._fetched_at >= FRESH_SECONDS
        return is_wanted and now - self._tried_at >= PAUSE_SECONDS

    def _refresh(self, *, wait: bool) -> None:
        if not self._lock.acquire(blocking=wait):
            return  # another thread fetches, and the key at hand will do
        try:
            if self._clock() - self._tried_at >= PAUSE_SECONDS:
                self._try_to_fetch()
        finally:
            self._lock.release()

    def _try_to_fetch(self) -> None:
        try:
            self._keys = _verifying_keys(self._fetch())
            self._fetched_at = self._tried_at = self._clock()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            self._tried_at = self._clock()
            # Only the kind of it: the message may quote an address that holds a password.
            log.warning("the keys at JWT_JWKS_URL can't be fetched (%s)", type(error).__name__)


def fetch_jwks(url: str) -> object:
    """The JSON at an address; raises httpx.HTTPError, httpx.InvalidURL or ValueError."""
    response = httpx.get(url, timeout=TIMEOUT)
    response.raise_for_status()
    return response.json()


def _verifying_keys(jwks: object) -> tuple[PyJWK, ...]:
    members = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(members, list):
        raise ValueError("not a JWKS")
    keys = [_verifying_key(member) for member in members if isinstance(member, dict)]
    return tuple(key for key in keys if key is not None)


def _verifying_key(member: dict[str, object]) -> PyJWK | None:
    """The key, where it is one for signatures of a kind that is taken here."""
    algorithm = ALGORITHMS.get(str(member.get("kty")))
    says_otherwise = member.get("alg", algorithm) != algorithm or member.get("use", "sig") != "sig"
    other_curve = algorithm == "ES256" and member.get("crv") != "P-256"
    if algorithm is None or says_otherwise or other_curve:
        return None
    try:
        return PyJWK(member, algorithm)
    except PyJWTError:
        return None

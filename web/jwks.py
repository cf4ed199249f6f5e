"""The public keys at `JWT_JWKS_URL` (RFC 7517): fetched when one is needed, and kept.

They are fetched again when they are five minutes old and for a key that is not known, yet never
within ten seconds of the last try. Where that fails, the keys at hand stay good. A thread fetches;
only a request whose key is not at hand waits for it, and never long. A key's own type says how it
verifies; a token has no say in it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from jwt import PyJWK, PyJWTError

from web.refusal import unavailable

log = logging.getLogger(__name__)

FRESH_SECONDS = 300.0
PAUSE_SECONDS = 10.0
FETCH_SECONDS = 5.0
WAIT_SECONDS = 1.0  # since the fetch began, for whose key is not at hand
MOST_WAITING = 4  # threads, where others have keys: a flood of made-up tokens takes no more
ALGORITHMS = {"RSA": "RS256", "EC": "ES256"}


@dataclass(frozen=True, slots=True)
class _Fetch:
    """One fetch of the keys."""

    began_at: float
    done: threading.Event = field(default_factory=threading.Event)


class KeySet:
    """The keys of one address, for all threads of a process.

    Args:
        fetch: gives the JWKS as parsed JSON, within some seconds; raises httpx.HTTPError,
            httpx.InvalidURL, TimeoutError or ValueError.
        clock: monotonic seconds.
    """

    def __init__(
        self, fetch: Callable[[], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way: _Fetch | None = None
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)
        self._keys: tuple[PyJWK, ...] = ()
        self._fetched_at = -math.inf
        self._tried_at = -math.inf
        self._has_failed = False

    def blocks(self, algorithm: str, kid: str | None) -> bool:
        """Whether `find` would wait for the server."""
        if self._match(algorithm, kid) is not None or not _is_taken(algorithm):
            return False
        return self._under_way is not None or self._may_try()

    def find(self, algorithm: str, kid: str | None) -> PyJWK | None:
        """The one key that fits a token's header; None where none does, or several do.

        Raises:
            Refusal: 503, it is not among the keys at hand, and the server gave no others.
        """
        key = self._match(algorithm, kid)
        if not _is_taken(algorithm) or (key is not None and self._is_fresh()):
            return key
        fetch = self._begin()
        if key is None and fetch is not None:
            self._wait(fetch)
        may_be_missing = self._under_way is not None or self._has_failed
        key = self._match(algorithm, kid)  # again in any case: the thread may have fetched
        if key is None and may_be_missing:
            raise unavailable("The server of the keys that tokens are signed with")
        return key

    def _match(self, algorithm: str, kid: str | None) -> PyJWK | None:
        fitting = [
            key
            for key in self._keys
            if key.algorithm_name == algorithm and kid in (None, key.key_id)
        ]
        return fitting[0] if len(fitting) == 1 else None

    def _is_fresh(self) -> bool:
        return self._clock() - self._fetched_at < FRESH_SECONDS

    def _may_try(self) -> bool:
        return self._clock() - self._tried_at >= PAUSE_SECONDS

    def _begin(self) -> _Fetch | None:
        """The fetch that is under way, begun if it is time; None where it is not."""
        with self._lock:
            if self._under_way is None and self._may_try():
                self._under_way = fetch = _Fetch(self._clock())
                name = "eventstream-jwks"
                threading.Thread(target=self._run, args=(fetch,), name=name, daemon=True).start()
            return self._under_way

    def _wait(self, fetch: _Fetch) -> None:
        left = max(0.0, fetch.began_at + WAIT_SECONDS - self._clock())
        if not self._keys:  # at the start everybody needs them
            fetch.done.wait(left)
        elif self._waiting.acquire(blocking=False):
            try:
                fetch.done.wait(left)
            finally:
                self._waiting.release()

    def _run(self, fetch: _Fetch) -> None:
        try:
            self._keys = _verifying_keys(self._fetch())
            self._fetched_at = self._clock()
            self._has_failed = False
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
            self._has_failed = True
            # Only the kind of it: the message may quote an address that holds a password.
            log.warning("the keys at JWT_JWKS_URL can't be fetched (%s)", type(error).__name__)
        finally:
            self._tried_at = self._clock()
            self._under_way = None
            fetch.done.set()


def fetch_jwks(url: str) -> object:
    """The JSON at an address, within five seconds however slowly it comes.

    Raises:
        httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError: it can't be had.
    """
    return asyncio.run(_fetch_jwks(url))


async def _fetch_jwks(url: str) -> object:
    async with asyncio.timeout(FETCH_SECONDS), httpx.AsyncClient(timeout=None) as client:
        response = await client.get(url)
    response.raise_for_status()
    return response.json()


def _is_taken(algorithm: str) -> bool:
    return algorithm in ALGORITHMS.values()  # else no key will ever fit


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

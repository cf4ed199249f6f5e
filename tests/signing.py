"""Keys and tokens for tests, and a server that publishes keys."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

DEADLINE_SECONDS = 10.0
SECRET = "a secret of the tests, and of nothing else"


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """A key pair of RSA, the same for the same name."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def ec_key(name: str) -> ec.EllipticCurvePrivateKey:
    """A key pair on P-256, the same for the same name."""
    return ec.generate_private_key(ec.SECP256R1())


def rsa_jwk(name: str, **more: str) -> dict[str, Any]:
    """The public key as a JWK, called by its name."""
    return {**RSAAlgorithm.to_jwk(rsa_key(name).public_key(), as_dict=True), "kid": name, **more}


def ec_jwk(name: str, **more: str) -> dict[str, Any]:
    """The public key as a JWK, called by its name."""
    return {**ECAlgorithm.to_jwk(ec_key(name).public_key(), as_dict=True), "kid": name, **more}


def hs256(user: object = "alice", *, ends_in: float | None = 600, **claims: Any) -> str:
    """A token signed with the tests' secret; a claim of None is left out."""
    return jwt.encode(_claims(user, ends_in, claims), SECRET, "HS256")


def bearer(user: object = "alice", *, ends_in: float | None = 600, **claims: Any) -> dict[str, str]:
    """The header of a request that brings such a token."""
    return {"Authorization": f"Bearer {hs256(user, ends_in=ends_in, **claims)}"}


def rs256(name: str, user: object = "alice", *, kid: str | None = "") -> str:
    """A token signed with an RSA key; `kid` is the key's name unless it is given."""
    return jwt.encode(_claims(user, 600, {}), rsa_key(name), "RS256", _headers(name, kid))


def es256(name: str, user: object = "alice", *, kid: str | None = "") -> str:
    """The same with a key on P-256."""
    return jwt.encode(_claims(user, 600, {}), ec_key(name), "ES256", _headers(name, kid))


def _claims(user: object, ends_in: float | None, more: dict[str, Any]) -> dict[str, Any]:
    exp = None if ends_in is None else time.time() + ends_in
    claims = {"sub": user, "exp": exp, **more}
    return {name: value for name, value in claims.items() if value is not None}


def _headers(name: str, kid: str | None) -> dict[str, Any]:
    return {} if kid is None else {"kid": kid or name}


class KeyServer(ThreadingHTTPServer):
    """Answers every GET with its `keys`, while its `gate` is open; `status` 500 is a failure.

    `pause_seconds` is the time between two bytes of its answer.
    """

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.status = 200
        self.asked = 0
        self.gate = threading.Event()
        self.gate.set()
        self.pause_seconds = 0.0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:
                self.asked += 1
                self.gate.wait(DEADLINE_SECONDS)
                handler.send_response(self.status)
                handler.end_headers()
                answer = json.dumps({"keys": self.keys}).encode()
                if not self.pause_seconds:
                    handler.wfile.write(answer)
                    return
                with suppress(ConnectionError):
                    for byte in answer:
                        handler.wfile.write(bytes([byte]))
                        time.sleep(self.pause_seconds)

            def log_message(handler, *arguments: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/jwks.json"


@contextmanager
def key_server(*keys: dict[str, Any]) -> Iterator[KeyServer]:
    """Publishes keys for the block."""
    with KeyServer() as server:
        server.keys = list(keys)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

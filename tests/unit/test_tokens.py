"""Which tokens are good, whose they are, and until when."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.errors import SettingsError
from shared.settings import Settings
from tests.signing import SECRET, ec_jwk, es256, hs256, rs256, rsa_jwk, rsa_key
from web.refusal import Refusal
from web.tokens import LEEWAY_SECONDS, LONGEST_HEADER, LONGEST_TOKEN, REMEMBERED, Tokens, _parsed

URL = "https://keys.test/jwks"


def tokens(**settings: Any) -> Tokens:
    return Tokens(Settings(auth_type="jwt", jwt_secret_key=SECRET, **settings))


def public(monkeypatch: pytest.MonkeyPatch, *keys: dict[str, Any]) -> Tokens:
    """Verifies with the keys of a JWKS."""
    monkeypatch.setattr("web.tokens.fetch_jwks", lambda url: {"keys": list(keys)})
    return Tokens(Settings(auth_type="jwt", jwt_jwks_url=URL))


def refusal(of: Tokens, token: str) -> Refusal:
    with pytest.raises(Refusal) as raised:
        of.verify(token)
    assert raised.value.status == 401
    assert raised.value.headers == {"WWW-Authenticate": "Bearer"}
    return raised.value


def forged(header: dict[str, Any], key: bytes | None) -> str:
    """A token as an attacker writes it, by hand."""
    parts = (header, {"sub": "mallory"})
    signed = b".".join(_segment(json.dumps(part).encode()) for part in parts)
    signature = b"" if key is None else hmac.digest(key, signed, hashlib.sha256)
    return (signed + b"." + _segment(signature)).decode()


def _segment(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def test_a_token_says_whose_it_is_and_until_when() -> None:
    identity = tokens().verify(hs256("alice", ends_in=600))
    assert identity.user_id == "alice"
    assert identity.expires_at == pytest.approx(time.time() + 600, abs=2)
    assert identity.headers == {}


def test_only_true_makes_an_operator_and_that_is_remembered_of_each_token() -> None:
    of = tokens()
    for _ in range(2):
        assert of.verify(hs256("olga", operator=True)).is_operator
        for claim in (False, "true", 1, [True], {"a": True}, None):
            assert not of.verify(hs256("olga", operator=claim)).is_operator
    assert not tokens(jwt_operator_claim="admin").verify(hs256("olga", operator=True)).is_operator


def test_a_token_may_have_no_end() -> None:
    assert tokens().verify(hs256(ends_in=None)).expires_at is None


def test_a_token_lives_a_little_longer_for_clocks_that_differ() -> None:
    exp = int(time.time()) - 2
    identity = tokens().verify(hs256(ends_in=None, exp=exp))
    assert identity.expires_at == exp + LEEWAY_SECONDS
    assert refusal(tokens(), hs256(ends_in=-LEEWAY_SECONDS - 1)).code == "token_expired"


def test_a_token_is_not_good_before_its_time() -> None:
    now = time.time()
    assert tokens().verify(hs256(nbf=now + LEEWAY_SECONDS - 2)).user_id == "alice"
    assert "not valid yet" in str(refusal(tokens(), hs256(nbf=now + LEEWAY_SECONDS + 2)))


@pytest.mark.parametrize("user", [None, "", "  ", 7, ["alice"], "\ud800", "a\x00b"])
def test_a_token_without_a_user_is_refused(user: object) -> None:
    assert refusal(tokens(), hs256(user)).code == "not_authenticated"


@pytest.mark.parametrize(("setting", "claim"), [("jwt_audience", "aud"), ("jwt_issuer", "iss")])
def test_audience_and_issuer_count_where_they_are_set(setting: str, claim: str) -> None:
    strict = tokens(**{setting: "ours"})
    ours: dict[str, Any] = {claim: "ours"}
    theirs: dict[str, Any] = {claim: "theirs"}
    assert strict.verify(hs256(**ours)).user_id == "alice"
    refusal(strict, hs256(**theirs))
    refusal(strict, hs256())
    assert tokens().verify(hs256(**theirs)).user_id == "alice"


def test_one_of_several_audiences_is_enough() -> None:
    assert tokens(jwt_audience="ours").verify(hs256(aud=["theirs", "ours"])).user_id == "alice"


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256"])
@pytest.mark.parametrize("key", [None, b"", b"another secret, as long as the right one is"])
def test_a_forged_token_is_refused(algorithm: str, key: bytes | None) -> None:
    refusal(tokens(), forged({"alg": algorithm}, key))


def test_another_algorithm_of_the_same_secret_is_refused() -> None:
    refusal(tokens(), jwt.encode({"sub": "alice"}, SECRET * 2, "HS512"))


@pytest.mark.parametrize("form", [PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1])
@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("header", [{"alg": "HS256", "kid": "one"}, {"alg": "HS256"}])
def test_a_public_key_is_no_secret(
    monkeypatch: pytest.MonkeyPatch, form: PublicFormat, encoding: Encoding, header: dict[str, Any]
) -> None:
    known_to_all = rsa_key("one").public_key().public_bytes(encoding, form)
    refusal(public(monkeypatch, rsa_jwk("one")), forged(header, known_to_all))


@pytest.mark.parametrize("algorithm", ["none", "RS256", "ES256"])
def test_an_unsigned_token_is_refused_whatever_it_claims(
    monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    for kid in ("one", "two"):
        with_both = public(monkeypatch, rsa_jwk("one"), ec_jwk("two"))
        refusal(with_both, forged({"alg": algorithm, "kid": kid}, None))


@pytest.mark.parametrize(
    "token",
    ["", "x", "a.b", "a.b.c", "a.b.c.d", "....", "é.é.é", "\x00", "e30.e30.", "bnVsbA.e30.AA"],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    assert refusal(tokens(), token).code == "not_authenticated"


@pytest.mark.parametrize(
    "header",
    [{"alg": "HS256", "kid": 7}, {"alg": ["HS256"]}, {"alg": "HS256", "crit": ["new"]}, {}],
)
def test_an_odd_header_is_refused(header: dict[str, Any]) -> None:
    refusal(tokens(), forged(header, SECRET.encode()))


def test_a_header_that_is_nested_without_end_is_refused() -> None:
    deep = _segment(b"[" * 40_000).decode()
    refusal(tokens(), f"{deep}.e30.AA")


@pytest.mark.parametrize("claim", [{"exp": "soon"}, {"exp": []}, {"nbf": "later"}])
def test_odd_times_are_refused(claim: dict[str, Any]) -> None:
    odd = jwt.encode({"sub": "alice"}, SECRET, "HS256").split(".")
    payload = _segment(json.dumps({"sub": "alice", **claim}).encode()).decode()
    signed = f"{odd[0]}.{payload}"
    signature = hmac.digest(SECRET.encode(), signed.encode(), hashlib.sha256)
    refusal(tokens(), f"{signed}.{_segment(signature).decode()}")


def test_a_refusal_does_not_repeat_the_token() -> None:
    token = hs256(ends_in=-60)
    assert token not in refusal(tokens(), token).body


def test_public_keys_verify_by_their_own_type(monkeypatch: pytest.MonkeyPatch) -> None:
    both = public(monkeypatch, rsa_jwk("one"), ec_jwk("two"))
    assert both.verify(rs256("one", "alice")).user_id == "alice"
    assert both.verify(es256("two", "bob")).user_id == "bob"
    refusal(both, rs256("three", kid="one"))
    refusal(both, es256("two", kid="one"))


def test_a_token_without_a_key_id_is_good_where_one_key_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert public(monkeypatch, rsa_jwk("one"), ec_jwk("two")).verify(rs256("one", kid=None))
    refusal(public(monkeypatch, rsa_jwk("one"), rsa_jwk("two")), rs256("one", kid=None))


@pytest.mark.parametrize("other", [{"use": "enc"}, {"alg": "RS512"}, {"alg": "RSA-OAEP"}])
def test_a_key_for_something_else_verifies_nothing(
    monkeypatch: pytest.MonkeyPatch, other: dict[str, str]
) -> None:
    refusal(public(monkeypatch, rsa_jwk("one", **other)), rs256("one"))


def test_a_published_secret_verifies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = _segment(SECRET.encode()).decode()
    published = public(monkeypatch, {"kty": "oct", "k": encoded, "kid": "one"})
    refusal(published, jwt.encode({"sub": "alice"}, SECRET, "HS256", {"kid": "one"}))


@pytest.mark.parametrize(
    ("settings", "got"),
    [({}, "neither"), ({"jwt_secret_key": SECRET, "jwt_jwks_url": URL}, "both")],
)
def test_exactly_one_source_of_keys_is_taken(settings: dict[str, Any], got: str) -> None:
    with pytest.raises(SettingsError, match=f"JWT_SECRET_KEY and JWT_JWKS_URL, and {got} is set"):
        Tokens(Settings(auth_type="jwt", **settings))


def test_a_public_key_is_not_taken_for_the_secret() -> None:
    pem = rsa_key("one").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(SettingsError, match=r"JWT_SECRET_KEY.*takes a shared secret") as raised:
        Tokens(Settings(auth_type="jwt", jwt_secret_key=pem.decode()))
    assert "BEGIN" not in str(raised.value)


def test_only_keys_that_must_be_fetched_make_it_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not tokens().blocks(hs256())
    fetching = public(monkeypatch, rsa_jwk("one"))
    assert fetching.blocks(rs256("one"))
    assert not fetching.blocks("no token")
    assert not fetching.blocks(hs256())
    fetching.verify(rs256("one"))
    assert not fetching.blocks(rs256("one"))


def test_what_is_too_long_for_a_token_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    by_keys = public(monkeypatch, rsa_jwk("one"))
    _parsed.cache_clear()
    long_header = forged({"alg": "RS256", "kid": "x" * LONGEST_HEADER}, None)
    assert refusal(by_keys, long_header).code == "not_authenticated"
    assert not by_keys.blocks(long_header)
    assert _parsed.cache_info().currsize == 0
    long_token = hs256("alice", name="x" * LONGEST_TOKEN)
    assert refusal(tokens(), long_token).code == "not_authenticated"
    assert tokens().verify(hs256("alice", name="x" * 4096)).user_id == "alice"


def test_a_token_is_verified_once_and_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, token = tokens(), hs256("alice", ends_in=60)
    end = ours.verify(token).expires_at
    assert end is not None
    monkeypatch.setattr("web.tokens.jwt.decode", None)
    assert ours.verify(token).expires_at == end
    monkeypatch.setattr("time.time", lambda: end + LEEWAY_SECONDS - 1)
    assert ours.verify(token).expires_at == end + LEEWAY_SECONDS
    monkeypatch.setattr("time.time", lambda: end + LEEWAY_SECONDS)
    assert refusal(ours, token).code == "token_expired"


def test_a_verified_token_is_good_no_longer_than_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    by_keys, token = public(monkeypatch, rsa_jwk("one")), rs256("one", "alice")
    assert by_keys.verify(token).user_id == "alice"
    other = public(monkeypatch, rsa_jwk("two", kid="one"))
    monkeypatch.setattr(by_keys, "_keys", other._keys)
    refusal(by_keys, token)


def test_verified_tokens_are_remembered_within_bounds() -> None:
    ours = tokens()
    for number in range(REMEMBERED + 3):
        ours.verify(hs256(f"user-{number}"))
    assert len(ours._verified) == 3


def test_no_token_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    by_keys = public(monkeypatch, rsa_jwk("one"))
    _parsed.cache_clear()
    for user in ("alice", "bob", "carol"):
        assert by_keys.verify(rs256("one", user)).user_id == user
    assert _parsed.cache_info().currsize == 1, "of their one header"

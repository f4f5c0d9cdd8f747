"""Tokens: taken apart strictly, judged by a key that decides the algorithm; JWT-SVIDs and the keys in a bundle."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from certs.bundle import BundleSet, JwtKey, TrustBundle
from certs.errors import InvalidBundle
from certs.jwk import encode_base64url, parse_public_jwk, public_jwk
from certs.jwt import InvalidJwt, Jwt, sign_jwt
from certs.jwt_svid import check_audience, make_jwt_svid, read_jwt_svid, validate_jwt_svid
from certs.keys import PublicKey, public_bytes
from certs.spiffe import SpiffeId, TrustDomain
from tests.kit.identities import a_bundle, a_root

NOW = 1_800_000_000.0
DEMO, OTHER = TrustDomain.parse("demo.mesh"), TrustDomain.parse("other.mesh")
WEB = SpiffeId.parse("spiffe://demo.mesh/ns/default/sa/web")
KEY = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
RSA = rsa.generate_private_key(65537, 2048)
ROOT = a_root()
TOKEN = make_jwt_svid(WEB, ["reports"], "k1", KEY, NOW, 300)


def bundle_of(*keys: tuple[str, PublicKey], domain: TrustDomain = DEMO) -> TrustBundle:
    jwt_keys = tuple(JwtKey(kid, public_bytes(key)) for kid, key in keys)
    return TrustBundle(domain, a_bundle(ROOT).roots, 1, None, jwt_keys)


BUNDLES = BundleSet((
    bundle_of(("k1", KEY.public_key()), ("k2", P384.public_key()), ("k3", RSA.public_key())),
    bundle_of(("o1", KEY.public_key()), domain=OTHER),
))  # fmt: skip


def judge(token: str, audience: str = "reports", now: float = NOW) -> str:
    """The reason of the refusal; empty where the token holds."""
    try:
        validate_jwt_svid(token, audience, BUNDLES, now)
    except InvalidJwt as error:
        return error.reason if len(token) < 50 or token not in str(error) else "tells the token"
    return ""


def a_token(
    claims: dict[str, Any] | None = None, header: dict[str, Any] | None = None, key: Any = KEY, without: str = ""
) -> str:
    said = {"sub": WEB.text, "aud": ["reports"], "iat": int(NOW), "exp": int(NOW) + 300, **(claims or {})}
    said.pop(without, None)
    return sign_jwt({"kid": "k1", "typ": "JWT", **(header or {})}, said, key)


def test_a_token_says_who_and_for_whom_and_until_when() -> None:
    svid = validate_jwt_svid(TOKEN, "reports", BUNDLES, NOW)
    assert (svid.spiffe_id, svid.audience, svid.issued_at, svid.expires_at) == (WEB, ("reports",), NOW, NOW + 300)
    assert svid.renew_at == NOW + 150
    assert svid == read_jwt_svid(TOKEN)
    assert TOKEN not in repr(svid)
    header = pyjwt.get_unverified_header(TOKEN)
    assert header == {"alg": "ES256", "kid": "k1", "typ": "JWT"}


def test_another_library_reads_our_tokens_and_we_read_its() -> None:
    keys = pyjwt.PyJWKSet.from_json(BUNDLES.bundles[0].to_jwt_jwks().decode())
    timeless: Any = {"verify_exp": False, "verify_iat": False}
    claims = pyjwt.decode(TOKEN, keys["k1"], ["ES256"], audience="reports", options=timeless)
    assert claims["sub"] == WEB.text
    for kid, key, algorithms in (("k2", P384, ["ES384"]), ("k3", RSA, ["RS256", "RS384", "RS512", "PS256", "PS512"])):
        for algorithm in algorithms:
            theirs = pyjwt.encode({**claims, "exp": int(NOW) + 9}, key, algorithm, headers={"kid": kid})
            assert judge(theirs) == "", algorithm


def changed(part: int, change: Callable[[dict[str, Any]], object]) -> str:
    """A token in which one part says something else, with the signature that it had."""
    parts = TOKEN.split(".")
    document = json.loads(base64.urlsafe_b64decode(parts[part] + "=="))
    change(document)
    parts[part] = encode_base64url(json.dumps(document).encode())
    return ".".join(parts)


def hmac_by_public_key() -> str:
    """The classic: HS256, with the public key as the secret that everybody knows."""
    parts = changed(0, lambda header: header.update(alg="HS256")).rpartition(".")[0]
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return f"{parts}.{encode_base64url(hmac.digest(pem, parts.encode(), hashlib.sha256))}"


def raw(header: bytes, claims: bytes) -> str:
    return f"{encode_base64url(header)}.{encode_base64url(claims)}.{encode_base64url(b'x' * 64)}"


def raw_parts(parts: list[bytes]) -> str:
    return ".".join(map(encode_base64url, parts))


HEADER = b'{"alg":"ES256","kid":"k1"}'
BAD: list[tuple[str, str, str]] = [
    ("empty", "", "malformed"),
    ("two parts", TOKEN.rpartition(".")[0], "malformed"),
    ("four parts", TOKEN + ".x", "malformed"),
    ("padding", TOKEN.replace(".", "=.", 1), "malformed"),
    ("standard base64", TOKEN[:-1] + "+", "malformed"),
    ("line break", TOKEN + "\n", "malformed"),
    ("not ASCII", "é" + TOKEN, "malformed"),
    ("too long", "a" * 20_000, "malformed"),
    ("a member twice", raw(b'{"alg":"ES256","alg":"ES256"}', b"{}"), "malformed"),
    ("a list", raw(b"[]", b"{}"), "malformed"),
    ("NaN", raw(HEADER, b'{"exp":NaN}'), "malformed"),
    ("nested", raw(HEADER, b"[" * 5000), "malformed"),
    ("no alg", raw(b'{"kid":"k1"}', b"{}"), "header"),
    ("crit", a_token(header={"crit": ["exp"]}), "header"),
    ("jwk", a_token(header={"jwk": public_jwk(KEY.public_key())}), "header"),
    ("jku", a_token(header={"jku": "https://evil.example/keys"}), "header"),
    ("x5c", a_token(header={"x5c": []}), "header"),
    ("typ", a_token(header={"typ": "at+jwt"}), "header"),
    ("kid no text", a_token(header={"kid": 1}), "header"),
    ("none", changed(0, lambda header: header.update(alg="none")), "algorithm"),
    ("HS256", hmac_by_public_key(), "algorithm"),
    ("of another key", changed(0, lambda header: header.update(alg="RS256")), "algorithm"),
    ("ES384 by P-256", changed(0, lambda header: header.update(alg="ES384")), "algorithm"),
    ("claims changed", changed(1, lambda claims: claims.update(exp=int(NOW) + 999)), "signature"),
    ("another key", a_token(key=ec.generate_private_key(ec.SECP256R1())), "signature"),
    ("DER signature", TOKEN.rpartition(".")[0] + "." + encode_base64url(b"0" * 70), "signature"),
    ("zeros", TOKEN.rpartition(".")[0] + "." + encode_base64url(bytes(64)), "signature"),
    ("no kid", sign_jwt({}, {"sub": WEB.text, "aud": "reports", "exp": int(NOW) + 9}, KEY), "unknown_key"),
    ("unknown kid", a_token(header={"kid": "k9"}), "unknown_key"),
    ("kid of another domain", a_token(header={"kid": "o1"}), "unknown_key"),
    ("no sub", a_token(without="sub"), "malformed"),
    ("sub no SPIFFE ID", a_token({"sub": "web"}), "subject"),
    ("sub no workload", a_token({"sub": "spiffe://demo.mesh"}), "subject"),
    ("a stranger's domain", a_token({"sub": "spiffe://evil.mesh/web"}), "no_bundle"),
    ("no exp", a_token(without="exp"), "expiry"),
    ("exp is text", a_token({"exp": "tomorrow"}), "malformed"),
    ("exp is true", a_token({"exp": True}), "malformed"),
    ("expired", a_token({"exp": int(NOW)}), "expired"),
    ("nbf ahead", a_token({"nbf": int(NOW) + 90}), "not_yet_valid"),
    ("iat ahead", a_token({"iat": int(NOW) + 90}), "not_yet_valid"),
    ("no aud", a_token(without="aud"), "audience"),
    ("empty aud", a_token({"aud": []}), "audience"),
    ("aud of a number", a_token({"aud": ["reports", 1]}), "audience"),
    ("for another", a_token({"aud": ["reports2", "Reports", "report"]}), "audience"),
]  # fmt: skip


@pytest.mark.parametrize(("token", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_token_that_is_not_good_is_refused_by_that_name(token: str, reason: str) -> None:
    assert judge(token) == reason


@given(st.text(max_size=80) | st.lists(st.binary(max_size=40), min_size=3, max_size=3).map(raw_parts))
def test_any_text_is_refused(text: str) -> None:
    """No text that nobody signed is a token."""
    assert judge(text)


def test_a_clock_that_is_a_little_slow_is_excused_and_an_end_is_an_end() -> None:
    assert judge(TOKEN, now=NOW - 60) == ""
    assert judge(TOKEN, now=NOW - 61) == "not_yet_valid"
    assert judge(TOKEN, now=NOW + 299.9) == ""
    assert judge(TOKEN, now=NOW + 300) == "expired"


def test_a_key_of_one_domain_vouches_for_nobody_of_the_other() -> None:
    theirs = a_token({"sub": "spiffe://other.mesh/web"}, {"kid": "o1"})
    assert judge(theirs) == ""
    assert judge(a_token({"sub": "spiffe://other.mesh/web"}, {"kid": "k1"})) == "unknown_key"


@pytest.mark.parametrize(
    "audience", [(), [], None, "reports", ["a", ""], [1], ["a\n"], ["x" * 513], list("abcdefghijklmnopq")]
)
def test_an_audience_must_be_said(audience: object) -> None:
    with pytest.raises(InvalidJwt, match="audience"):
        check_audience(audience)


def test_an_audience_is_a_set() -> None:
    assert check_audience(["b", "a", "b"]) == ("a", "b")


def test_a_token_that_is_only_read_still_has_to_end() -> None:
    with pytest.raises(InvalidJwt, match="exp"):
        read_jwt_svid(a_token(without="exp"))
    assert Jwt.parse(TOKEN).kid == "k1"


# ---- keys in a bundle ------------------------------------------------------------------------------------------------

BUNDLE = BUNDLES.bundles[0]
ENTRY: dict[str, Any] = json.loads(BUNDLE.to_jwt_jwks())["keys"][0]


def read(*entries: dict[str, Any]) -> TrustBundle:
    return TrustBundle.parse_jwks(DEMO, json.dumps({"keys": list(entries)}).encode())


def test_a_bundle_carries_both_kinds_of_keys_there_and_back() -> None:
    again = TrustBundle.parse_jwks(DEMO, BUNDLE.to_jwks())
    assert again == dataclasses.replace(BUNDLE)
    assert [key.kid for key in again.jwt_keys] == ["k1", "k2", "k3"]
    uses = [entry["use"] for entry in json.loads(BUNDLE.to_jwks())["keys"]]
    assert uses == ["x509-svid", "jwt-svid", "jwt-svid", "jwt-svid"]
    assert {entry["use"] for entry in json.loads(BUNDLE.to_jwt_jwks())["keys"]} == {"jwt-svid"}


BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("no `kid`", {"kid": None}),
    ("no `kid`", {"kid": ""}),
    ("no `kid`", {"kid": 7}),
    ("no `kid`", {"kid": "k" * 257}),
    ("private key", {"d": "AAAA"}),
    ("curve", {"crv": "P-521"}),
    ("bytes", {"x": encode_base64url(b"x" * 31)}),
    ("base64url", {"x": ENTRY["x"] + "="}),
    ("missing", {"y": None}),
    ("cannot be read", {"y": ENTRY["x"]}),
    ("number", {"kty": "RSA", "n": "AAAB", "e": "AQAB"}),
    ("signs no tokens", {"kty": "OKP", "crv": "Ed25519", "x": encode_base64url(
        ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))}),
    ("kind", {"kty": "OKP", "crv": "X25519", "x": encode_base64url(bytes(32))}),
    ("512 bits", public_jwk(rsa.RSAPublicNumbers(65537, (1 << 511) + 1).public_key())),
]  # fmt: skip


@pytest.mark.parametrize(("words", "broken"), BROKEN)
def test_a_key_of_tokens_that_is_not_clearly_one_spoils_the_bundle(words: str, broken: dict[str, Any]) -> None:
    with pytest.raises(InvalidBundle, match=words):
        read({**ENTRY, **broken})


def test_two_keys_by_one_name_spoil_the_bundle() -> None:
    with pytest.raises(InvalidBundle, match="same `kid`"):
        read(ENTRY, ENTRY)


@pytest.mark.parametrize("key", [KEY, P384, RSA])
def test_a_public_key_goes_there_and_back(key: Any) -> None:
    assert public_bytes(parse_public_jwk(public_jwk(key.public_key()))) == public_bytes(key.public_key())

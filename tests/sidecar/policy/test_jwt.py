"""A token is read one way or not at all, and RFC 8725 holds rule by rule. Each row says why it is refused."""

from __future__ import annotations

import hmac
import json
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from certs.jwk import encode_base64url
from sidecar.config.schema_tokens import ALL, Tokens
from sidecar.policy.jwk import ALGORITHMS
from sidecar.policy.jwt import MAX_LEEWAY, MAX_TOKEN_BYTES, BadToken, check_bound, parse, scopes_of, token_id
from sidecar.policy.tokens import KeysWanted
from tests.kit.tokens import (
    AUDIENCE,
    ISSUER,
    NOW,
    Shelf,
    Signer,
    fingerprint_claim,
    key_set,
    listener,
    raw_token,
    rsa_key,
)

SIGNER = Signer()
OTHER = Signer(kid="b")
SHELF = Shelf(login=key_set(SIGNER, OTHER))
HEAD, CLAIMS = b'{"alg":"ES256","kid":"a"}', b'{"iss":"%s","aud":"%s","exp":1800000300}'
GOOD = CLAIMS % (ISSUER.encode(), AUDIENCE.encode())


def judged(token: bytes, shelf: Shelf = SHELF, spec: Tokens | None = None, now: float = NOW, **issuer: Any) -> str:
    """`ok`, or why not."""
    try:
        listener(shelf, spec, **issuer).judge([(b"authorization", b"Bearer " + token)], "", now)
    except BadToken as bad:
        why, reason = str(bad), bad.reason
    except KeysWanted:
        return "keys wanted"
    else:
        return "ok"
    assert not token or token.decode("latin-1") not in why
    assert "user-1" not in why
    return reason


def said(*, head: bytes = HEAD, claims: bytes = GOOD) -> str:
    """What is said of these bytes, signed rightly."""
    return judged(raw_token(head, claims, SIGNER.sign))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_that_is_accepted_verifies(algorithm: str) -> None:
    signer = Signer(algorithm)
    assert judged(signer.token(), Shelf(login=key_set(signer))) == "ok"
    changed = signer.token()[:-8] + b"AAAAAAAA"
    assert judged(changed, Shelf(login=key_set(signer))) in ("signature", "malformed")


def test_the_schema_and_the_verifier_know_the_same_algorithms_and_none_is_symmetric() -> None:
    assert set(ALL) == set(ALGORITHMS)
    assert not [each for each in ALGORITHMS if each.startswith("HS") or each.lower() == "none"]
    assert MAX_LEEWAY == 300.0


# ---- RFC 8725 --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "nOnE", "HS256", "HS384", "HS512", "es256", "RSA1_5", ""]
)
def test_3_1_and_3_2_algorithms_that_do_not_exist_here(algorithm: str) -> None:
    head = json.dumps({"alg": algorithm, "kid": "a"}).encode()
    for signature in (b"x" * 32, SIGNER.sign, b"x"):
        assert judged(raw_token(head, GOOD, signature)) == "algorithm"


def test_3_1_a_public_key_is_no_secret() -> None:
    """The classic confusion: HMAC, with what everybody may read as the key."""
    public = json.dumps(SIGNER.jwk()).encode()
    for secret in (public, key_set(SIGNER)):
        token = raw_token(b'{"alg":"HS256","kid":"a"}', GOOD, partial(hmac.digest, secret, digest="sha256"))
        assert judged(token) == "algorithm"
    octets = {"kty": "oct", "kid": "a", "k": encode_base64url(public), "alg": "HS256"}
    token = raw_token(b'{"alg":"HS256","kid":"a"}', GOOD, partial(hmac.digest, public, digest="sha256"))
    assert judged(token, Shelf(login=key_set(octets, OTHER))) == "algorithm"


def test_3_1_an_unsigned_token_is_no_token() -> None:
    head = encode_base64url(b'{"alg":"none"}')
    assert judged(f"{head}.{encode_base64url(GOOD)}.".encode()) in ("algorithm", "malformed")


@pytest.mark.parametrize(
    ("kind", "asked"),
    [("ES256", "RS256"), ("ES256", "ES384"), ("RS256", "ES256"), ("ES256", "EdDSA"), ("EdDSA", "ES256")],
)
def test_3_1_the_key_decides_the_algorithm(kind: str, asked: str) -> None:
    signer = Signer(kind)
    token = signer.over({"alg": asked, "kid": "a"}, GOOD)
    assert judged(token, Shelf(login=key_set(signer.jwk()))) == "algorithm"


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ({"alg": "ES384"}, "algorithm"),
        ({"alg": "PS256"}, "algorithm"),
        ({"use": "enc"}, "set"),
        ({"use": "sign"}, "set"),
        ({"key_ops": ["sign"]}, "set"),
        ({"key_ops": []}, "set"),
        ({"key_ops": "verify"}, "set"),
        ({"key_ops": ["verify"]}, "ok"),
        ({"alg": "ES256"}, "ok"),
        ({"use": None}, "ok"),
    ],
)
def test_3_1_what_the_key_says_of_itself_is_kept_to(member: dict[str, Any], reason: str) -> None:
    found = judged(SIGNER.token(), Shelf(login=key_set(SIGNER.jwk(**member), OTHER)))
    assert found == {"set": "keys wanted", "algorithm": "keys wanted"}.get(reason, reason)


def test_3_2_an_issuer_may_be_kept_to_few_algorithms() -> None:
    assert judged(SIGNER.token(), algorithms=("RS256",)) == "algorithm"
    assert judged(SIGNER.token(), algorithms=("ES256",)) == "ok"


def test_3_3_everything_is_judged_after_the_signature_has_held() -> None:
    forged = Signer(kid="a")  # another key by the same name
    for claims in ({"exp": 1.0}, {"aud": "x"}, {"exp": None}, {}):
        assert judged(forged.token(**claims)) == "signature"


def test_3_5_a_weak_key_verifies_nothing() -> None:
    weak = Signer("RS256", key=rsa_key(1024))
    assert judged(weak.token(), Shelf(login=key_set(weak, OTHER))) == "keys wanted"


@pytest.mark.parametrize(
    "signature", [bytes(64), bytes(63), bytes(65), b"\x30\x06\x02\x01\x01\x02\x01\x01", b"\xff" * 64]
)
def test_3_5_signatures_that_are_no_numbers_of_the_curve(signature: bytes) -> None:
    """Zeros verified anything once (CVE-2022-21449); DER is not the form of tokens."""
    assert judged(raw_token(HEAD, GOOD, signature)) == "signature"


@pytest.mark.parametrize("head", ["jku", "x5u", "jwk", "x5c", "crit", "b64", "cty", "zip", "enc", "epk"])
def test_3_6_and_3_10_nothing_in_the_head_leads_to_a_key_or_asks_for_more(head: str) -> None:
    for value in ("https://evil.example/keys", [], {}, None, False, "JWT"):
        token = SIGNER.over(json.dumps({"alg": "ES256", "kid": "a", head: value}).encode(), GOOD)
        assert judged(token) == "header"


def test_3_7_only_utf_8() -> None:
    for claims in (GOOD.decode().encode("utf-16"), GOOD[:-1] + b',"x":"\xff"}', b"\xef\xbb\xbf" + GOOD):
        assert said(claims=claims) == "malformed"


def test_3_8_the_issuer_and_its_keys_belong_together() -> None:
    assert judged(SIGNER.token(iss="https://other.example.org")) == "issuer"
    assert judged(SIGNER.token(iss=ISSUER + "/")) == "issuer"
    assert judged(SIGNER.token(iss=None)) == "issuer"
    assert judged(SIGNER.token(iss=[ISSUER])) == "issuer"
    assert judged(SIGNER.token(sub=7)) == "subject"
    assert judged(SIGNER.token(sub=None)) == "ok"


@pytest.mark.parametrize(
    ("audience", "reason"),
    [
        (AUDIENCE, "ok"), ([AUDIENCE], "ok"), (["x", AUDIENCE], "ok"), ("x", "audience"), ([], "audience"),
        (None, "audience"), ("", "audience"), (["x"], "audience"), ([AUDIENCE, 1], "audience"),
        ({AUDIENCE: 1}, "audience"), (AUDIENCE + "/", "audience"), (AUDIENCE.upper(), "audience"), (True, "audience"),
        ([[AUDIENCE]], "audience"),
    ],
)  # fmt: skip
def test_3_9_a_token_says_that_it_is_for_us(audience: Any, reason: str) -> None:
    assert judged(SIGNER.token(aud=audience)) == reason


def test_3_9_without_an_audience_in_the_config_it_is_our_spiffe_id() -> None:
    ours = "spiffe://demo.mesh/ns/default/sa/orders"
    assert judged(SIGNER.token(), audience=()) == "audience"
    assert judged(SIGNER.token(aud=ours), audience=()) == "ok"
    assert judged(SIGNER.token(aud="b"), spec=Tokens(("login",), audience=("a", "b"))) == "ok"


@pytest.mark.parametrize("kid", ["../../etc/passwd", "' OR 1=1 --", "a\x00", "a ", "A", "", "k" * 256, "\u2028"])
def test_3_10_a_kid_is_a_name_in_a_dictionary_and_no_more(kid: str) -> None:
    assert judged(Signer(kid=kid).token()) == "keys wanted"


def test_3_10_a_kid_that_is_no_short_text_is_refused() -> None:
    for kid in (1, None, ["a"], {"a": 1}, "k" * 257):
        assert judged(SIGNER.over(json.dumps({"alg": "ES256", "kid": kid}).encode(), GOOD)) == "header"


def test_without_a_kid_there_must_be_one_key_that_fits() -> None:
    nameless = SIGNER.over({"alg": "ES256"}, GOOD)
    assert judged(nameless, Shelf(login=key_set(SIGNER, Signer("RS256", kid="b")))) == "ok"
    assert judged(nameless) == "ambiguous_key"
    assert judged(SIGNER.token(), Shelf(login=key_set(SIGNER, Signer(kid="a")))) == "ambiguous_key"


@pytest.mark.parametrize(
    ("said_type", "any_type", "only_at"),
    [
        (None, "ok", "type"), ("JWT", "ok", "type"), ("jwt", "ok", "type"), ("at+jwt", "ok", "ok"),
        ("application/at+jwt", "ok", "ok"), ("AT+JWT", "ok", "ok"), ("logout+jwt", "type", "type"),
        ("secevent+jwt", "type", "type"), ("dpop+jwt", "type", "type"), ("JOSE", "type", "type"), ("", "type", "type"),
    ],
)  # fmt: skip
def test_3_11_and_3_12_kinds_of_tokens_are_kept_apart(said_type: str | None, any_type: str, only_at: str) -> None:
    token = SIGNER.token(head={"typ": said_type})
    assert (judged(token), judged(token, type="at+jwt")) == (any_type, only_at)


def test_3_11_a_type_that_is_no_text() -> None:
    assert judged(SIGNER.token(head={"typ": 7})) == "header"


# ---- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": None}, "expiry"),
        ({"exp": NOW - 59}, "ok"), ({"exp": NOW - 60}, "expired"), ({"exp": NOW - 61.5}, "expired"),
        ({"exp": 0}, "expired"), ({"exp": -1}, "malformed"), ({"exp": "1800000300"}, "malformed"),
        ({"exp": True}, "malformed"), ({"exp": [NOW]}, "malformed"),
        ({"nbf": NOW + 60}, "ok"), ({"nbf": NOW + 61}, "not_yet_valid"), ({"nbf": "x"}, "malformed"),
        ({"iat": NOW + 60}, "ok"), ({"iat": NOW + 61}, "not_yet_valid"), ({"iat": False}, "malformed"),
        ({"nbf": NOW + 50, "exp": NOW + 40}, "malformed"),
    ],
)  # fmt: skip
def test_times_with_the_leeway_of_a_minute(claims: dict[str, Any], reason: str) -> None:
    claims = {"iat": NOW - 1000, **claims} if claims.get("exp") else claims
    assert judged(SIGNER.token(**({"iat": 0.0} if claims.get("exp") == 0 else {}), **claims)) == reason


def test_the_leeway_is_the_issuers() -> None:
    assert judged(SIGNER.token(exp=NOW - 1), leeway=0.0) == "expired"
    assert judged(SIGNER.token(exp=NOW - 200), leeway=300.0) == "malformed"  # iat behind exp
    assert judged(SIGNER.token(iat=NOW - 500, exp=NOW - 200), leeway=300.0) == "ok"


# ---- the form --------------------------------------------------------------------------------------------------------


def test_a_long_token_is_not_even_split() -> None:
    assert judged(b"a" * (MAX_TOKEN_BYTES + 1)) == "size"
    assert judged(SIGNER.token(padding="x" * 5000)) == "ok"
    assert judged(SIGNER.token(padding="x" * 6200)) == "size"


@pytest.mark.parametrize(
    "token", [b"", b".", b"..", b"a.b.c", b"a.b.c.d.e", b"...", b"e30.e30.e30", b"W10.W10.AA", b"{}"]
)
def test_what_is_no_token(token: bytes) -> None:
    assert judged(token) in ("malformed", "algorithm")


def test_base64url_has_one_form() -> None:
    head, claims, signature = SIGNER.token().split(b".")
    for changed in (signature + b"=", signature + b"==", b" " + signature, signature + b"\n", signature[:-1] + b"+",
                    signature[:-1] + b"/", signature + b"A", signature[:20] + b"\n" + signature[20:], b""):  # fmt: skip
        assert judged(b".".join((head, claims, changed))) in ("malformed", "signature")
    assert judged(b".".join((head + b"=", claims, signature))) == "malformed"
    assert judged(b".".join((head, claims + b"=", signature))) == "malformed"


def test_stray_bits_at_the_end_of_a_part_are_another_token() -> None:
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = SIGNER.token()  # a signature of 64 bytes ends in a letter with four spare bits
    place = letters.index(token[-1:])
    for spare in range(1, 16):
        assert judged(token[:-1] + letters[place + spare : place + spare + 1]) == "malformed"


@pytest.mark.parametrize(
    "claims",
    [
        GOOD[:-1] + b',"exp":9999999999}',
        GOOD[:-1] + b',"e\\u0078p":9999999999}',
        GOOD[:-1] + b',"x":{"y":1,"y":2}}',
        GOOD[:-1] + b',"x":NaN}',
        GOOD[:-1] + b',"x":Infinity}',
        GOOD[:-1] + b',"x":-Infinity}',
        GOOD[:-1] + b',"x":1e999}',
        GOOD[:-1] + b',"x":9007199254740993}',
        GOOD[:-1] + b',"x":' + b"9" * 5000 + b"}",
        GOOD[:-1] + b',"x":"\\ud800"}',
        GOOD[:-1] + b',"\\udc00":1}',
        GOOD[:-1] + b',"x":' + b"[" * 8 + b"]" * 8 + b"}",
        GOOD[:-1] + b',"x":' + b'{"":' * 1000 + b"1" + b"}" * 1000 + b"}",
        b"[" * 3000 + b"]" * 3000,
        GOOD + b" x",
        b"[]", b"null", b'"text"', b"7", b"",
        b"'{}'",
    ],
)  # fmt: skip
def test_json_has_one_reading_and_bounds(claims: bytes) -> None:
    assert said(claims=claims) == "malformed"


def test_json_within_bounds() -> None:
    nested = b"[" * 7 + b"]" * 7
    for more in (b',"x":' + nested, b',"x":"\\ud83d\\ude00"', b',"x":9007199254740992',
                 b',"x":-1.5e3', b',"x":"{[{[{[{[{["'):  # fmt: skip
        assert said(claims=GOOD[:-1] + more + b"}") == "ok"


def test_the_head_is_read_as_strictly() -> None:
    for head in (b'{"alg":"none","alg":"ES256"}', b'{"alg":"ES256","kid":"a","x":NaN}', b"[]"):
        assert said(head=head) == "malformed"
    for head in (b"{}", b'{"alg":["ES256"]}', b'{"alg":null}'):
        assert said(head=head) == "algorithm"


def test_encrypted_and_nested_tokens_are_refused() -> None:
    assert judged(b".".join([SIGNER.token().split(b".")[0]] * 5)) == "malformed"
    assert judged(SIGNER.token(head={"cty": "JWT"})) == "header"
    inner = SIGNER.token()
    assert judged(raw_token(HEAD, inner, SIGNER.sign)) == "malformed"


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_in_one_way(token: bytes) -> None:
    with pytest.raises(BadToken):
        parse(token)


@given(st.data())
def test_any_change_of_a_good_token_is_refused(data: st.DataObject) -> None:
    token = SIGNER.token()
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != token[place]))
    assert judged(token[:place] + bytes([other]) + token[place + 1 :]) != "ok"


# ---- claims ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({}, set()), ({"scope": "a b"}, {"a", "b"}), ({"scope": "  a  "}, {"a"}), ({"scp": ["a", "b"]}, {"a", "b"}),
        ({"scp": "a b"}, {"a", "b"}), ({"scope": "a", "scp": ["b"]}, {"a", "b"}), ({"scope": ""}, set()),
        ({"scope": 1}, None), ({"scp": [1]}, None), ({"scope": None}, None), ({"scp": {"a": 1}}, None),
    ],
)  # fmt: skip
def test_scopes(claims: dict[str, Any], scopes: set[str] | None) -> None:
    if scopes is None:
        with pytest.raises(BadToken, match="malformed"):
            scopes_of(claims)
    else:
        assert scopes_of(claims) == scopes


OURS, THEIRS = "ab" * 32, "cd" * 32


@pytest.mark.parametrize(
    ("claims", "shown", "required", "bound"),
    [
        ({}, OURS, False, False), ({}, OURS, True, None),
        ({"cnf": fingerprint_claim(OURS)}, OURS, False, True), ({"cnf": fingerprint_claim(OURS)}, OURS, True, True),
        ({"cnf": fingerprint_claim(OURS)}, THEIRS, False, None), ({"cnf": fingerprint_claim(OURS)}, "", False, None),
        ({"cnf": {"x5t#S256": ""}}, "", False, None), ({"cnf": {"x5t#S256": OURS}}, OURS, False, None),
        ({"cnf": {"x5t#S256": fingerprint_claim(OURS)["x5t#S256"] + "="}}, OURS, False, None),
        ({"cnf": {"jkt": "x"}}, OURS, False, None),
        ({"cnf": {**fingerprint_claim(OURS), "jkt": "x"}}, OURS, False, None),
        ({"cnf": {}}, OURS, False, None), ({"cnf": None}, OURS, False, None), ({"cnf": "x"}, OURS, False, None),
    ],
)  # fmt: skip
def test_tokens_that_are_bound(claims: dict[str, Any], shown: str, required: bool, bound: bool | None) -> None:
    if bound is None:
        with pytest.raises(BadToken, match="bound"):
            check_bound(claims, shown, required=required)
    else:
        assert check_bound(claims, shown, required=required) is bound


def test_what_records_call_a_token_by_tells_nothing_of_it() -> None:
    assert token_id(b"a") != token_id(b"b")
    assert len(token_id(b"a")) == 16


# ---- JWT-SVIDs -------------------------------------------------------------------------------------------------------

DOMAIN: dict[str, Any] = {"issuer": "", "trust_domain": "demo.mesh"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, "ok"), ({"aud": "x"}, "audience"), ({"exp": None}, "expiry"), ({"head": {"typ": "JOSE"}}, "ok"),
        ({"head": {"typ": None}}, "ok"), ({"head": {"typ": "at+jwt"}}, "type"),
        ({"head": {"kid": None}}, "unknown_key"),
        ({"sub": "spiffe://other.mesh/ns/a/sa/b"}, "issuer"), ({"sub": "spiffe://demo.mesh"}, "subject"),
        ({"sub": "spiffe://demo.mesh/a/../b"}, "subject"), ({"sub": "demo.mesh/a"}, "subject"), ({"sub": 7}, "issuer"),
        ({"iss": ISSUER}, "ok"),
    ],
)  # fmt: skip
def test_jwt_svids(change: dict[str, Any], reason: str) -> None:
    from certs.spiffe import TrustDomain

    token = SIGNER.token(**({"iss": None, "sub": "spiffe://demo.mesh/ns/default/sa/web"} | change))
    assert judged(token, **(DOMAIN | {"trust_domain": TrustDomain("demo.mesh")})) == reason


def test_the_curve_of_a_key_is_its_own() -> None:
    """A token by P-384 under a key on P-256 of the same `kid`."""
    p384 = Signer("ES384", key=ec.generate_private_key(ec.SECP384R1()))
    assert judged(p384.over({"alg": "ES256", "kid": "a"}, GOOD)) == "signature"

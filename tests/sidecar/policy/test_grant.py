"""Client credentials: what is sent to a token endpoint, and which of its answers is a token."""

from __future__ import annotations

import base64
from urllib.parse import parse_qs, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.schema_egress import ClientToken, Secret
from sidecar.config.terms import Address
from sidecar.config.urls import WebUrl
from sidecar.policy.grant import LONGEST, Grant, NoGrant, read_answer, request

URL = WebUrl(Address("id.partner.test", 443), tls=True, path="/token")
JSON = b"application/json"
GOOD = b'{"access_token": "abc.def-_~+/==", "token_type": "Bearer", "expires_in": 60}'


def spec(**more: object) -> ClientToken:
    return ClientToken(URL, **({"client_id": "us", "secret": Secret("/s")} | more))  # type: ignore[arg-type]


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs")), min_size=1),
       st.text(min_size=1).filter(lambda text: not any("\ud800" <= each <= "\udfff" for each in text)))  # fmt: skip
def test_basic_is_form_encoded_before_it_is_base64(client: str, secret: str) -> None:
    """RFC 6749 section 2.3.1: so a colon in either of them is not the one between them."""
    body, headers = request(spec(client_id=client), secret)
    proof = dict(headers)[b"authorization"].removeprefix(b"Basic ")
    name, colon, word = base64.b64decode(proof, validate=True).decode("ascii").partition(":")
    assert (unquote_plus(name), colon, unquote_plus(word)) == (client, ":", secret)
    assert parse_qs(body.decode()) == {"grant_type": ["client_credentials"]}


def test_the_appendix_of_rfc_6749() -> None:
    """Appendix B: a space is a plus, and UTF-8 is escaped by its bytes."""
    _, headers = request(spec(client_id=" %&+"), "£€")
    assert dict(headers)[b"authorization"] == b"Basic " + base64.b64encode(b"+%25%26%2B:%C2%A3%E2%82%AC")


def test_what_else_goes_with_it() -> None:
    asked = spec(scopes=("a:read", "b"), audience="api", resource="https://api.partner.test", auth="post")
    body, headers = request(asked, "s&c=r")
    assert parse_qs(body.decode()) == {
        "grant_type": ["client_credentials"], "scope": ["a:read b"], "audience": ["api"],
        "resource": ["https://api.partner.test"], "client_id": ["us"], "client_secret": ["s&c=r"],
    }  # fmt: skip
    assert b"authorization" not in dict(headers)


@pytest.mark.parametrize(("said", "seconds"), [
    (b"60", 60.0), (b"0.5", 0.5), (b"1e3", 1000.0), (b"99999999999", LONGEST), (b"1e300", LONGEST),
])  # fmt: skip
def test_a_token(said: bytes, seconds: float) -> None:
    body = GOOD.replace(b"60", said).replace(b"Bearer", b"bEARER")
    assert read_answer(200, b"application/json;charset=UTF-8", body) == Grant(b"abc.def-_~+/==", seconds)


def test_one_that_does_not_say_how_long() -> None:
    body = b'{"access_token": "t", "token_type": "bearer", "refresh_token": "never used"}'
    assert read_answer(200, JSON, body) == Grant(b"t", 300.0)


BAD = [
    *((200, JSON, GOOD.replace(b"60", said)) for said in (
        b"-1", b"0", b"NaN", b"Infinity", b"-Infinity", b"1e999", b"null", b'"60"', b"true", b"[]", b"{}", b"-0.0",
    )),
    (200, JSON, GOOD.replace(b"Bearer", b"DPoP")), (200, JSON, GOOD.replace(b'"Bearer"', b"1")),
    (200, JSON, GOOD.replace(b'"token_type": "Bearer", ', b"")),
    (200, JSON, GOOD.replace(b"abc", b"a b")), (200, JSON, GOOD.replace(b"abc", b"a\\r\\nX-Evil: 1")),
    (200, JSON, GOOD.replace(b"abc", b"\\u00e9")), (200, JSON, GOOD.replace(b"abc.def-_~+/==", b"")),
    (200, JSON, GOOD.replace(b'"abc.def-_~+/=="', b"null")), (200, JSON, GOOD.replace(b"abc", b"a" * 20_000)),
    (200, JSON, GOOD[:-1]), (200, JSON, b"[" * 60_000), (200, JSON, b"[]"), (200, JSON, b"\xff"), (200, JSON, b""),
    (200, JSON, GOOD[:-1] + b', "access_token": "other"}'), (200, b"text/html", GOOD), (200, None, GOOD),
    (200, b"application/x-www-form-urlencoded", b"access_token=t&token_type=bearer"),
    (201, JSON, GOOD), (302, JSON, GOOD), (400, JSON, b'{"error": "invalid_scope"}'), (401, JSON, GOOD),
    (500, b"text/html", b"<html>"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "kind", "body"), BAD)
def test_what_is_no_token(status: int, kind: bytes | None, body: bytes) -> None:
    with pytest.raises(NoGrant) as raised:
        read_answer(status, kind, body)
    assert 0 < len(str(raised.value)) < 160
    assert "abc" not in str(raised.value)


def test_the_error_is_told_and_nothing_that_could_forge_a_log() -> None:
    with pytest.raises(NoGrant, match=r"it answers 400 \(invalid_client\)$"):
        read_answer(400, JSON, b'{"error": "invalid_client", "error_description": "x"}')
    with pytest.raises(NoGrant, match=r"it answers 400$"):
        read_answer(400, JSON, b'{"error": "a\\nb"}')


@given(st.floats(0.001, LONGEST), st.floats(0.0, 1.0))
def test_another_is_asked_for_before_it_is_used_no_more(seconds: float, dice: float) -> None:
    grant = Grant(b"t", seconds)
    assert 0.69 * seconds <= grant.refresh_after(dice) <= 0.8 * seconds + 1e-9
    assert grant.refresh_after(dice) < grant.usable < seconds

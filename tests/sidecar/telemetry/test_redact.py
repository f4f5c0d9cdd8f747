"""No secret leaves: by its place, or by its looks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.telemetry import redact
from sidecar.telemetry.redact import REDACTED

SECRET = "hunter2SECRETvalue99"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
PEM = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    "name",
    [
        b"authorization", b"proxy-authorization", b"cookie", b"set-cookie", b"x-api-key", b"apikey", b"x-auth-token",
        b"x-csrf-token", b"x-amz-security-token", b"x-session-id", b"x-client-secret", b"dpop", b"www-authenticate",
    ],
)  # fmt: skip
def test_credential_headers_are_never_shown(name):
    assert redact.header(name, SECRET.encode()) == REDACTED


@pytest.mark.parametrize("name", [b"user-agent", b"x-request-id", b"accept", b"x-env", b"content-type", b"x-author"])
def test_other_headers_are_shown(name):
    assert redact.header(name, b"curl/8.0") == "curl/8.0"


def test_a_referer_loses_its_query():
    assert SECRET not in redact.header(b"referer", f"https://a.example/x?code={SECRET}".encode())


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/a/b?token=x", "/a/b"),
        ("/a#frag?x", "/a"),
        ("/a", "/a"),
        ("http://user:pw@host/a?x", f"http://{REDACTED}@host/a"),
        ("/a;jsessionid=ABCDEF0123", f"/a;jsessionid={REDACTED}"),
    ],
)
def test_a_target_keeps_only_its_path(target, shown):
    assert redact.target(target) == shown


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"bearer {SECRET}",
        f"got Basic {SECRET}=",
        f"password={SECRET}",
        f"db_password: {SECRET}",
        f"api_key={SECRET}&x=1",
        f"client_secret={SECRET}",
        f"postgres://app:{SECRET}@db/orders",
        f"https://a.example/cb?code={SECRET}",
    ],
)
def test_secrets_in_free_text_are_replaced(text):
    assert SECRET not in redact.text(text)
    assert REDACTED in redact.text(text)


def test_tokens_and_keys_are_replaced():
    assert redact.text(f"token {JWT} refused") == f"token {REDACTED} refused"
    assert "MIGHAg" not in redact.text(f"loaded {PEM}")
    assert "MIGHAg" not in redact.text(f"cut {PEM[:60]}")


def test_plain_messages_stay_as_they_are():
    for text in (
        "the digest mismatch",
        "basic constraints missing",
        "connection refused",
        "spiffe://demo.mesh/ns/default/sa/web",
    ):
        assert redact.text(text) == text


def test_nothing_can_forge_a_line():
    assert redact.text("a\r\nb\x1b[31m\u2028c") == "a\\u000d\\u000ab\\u001b[31m\\u2028c"


@given(st.text())
def test_redacted_text_is_bounded_and_clean(text):
    shown = redact.text(text, 50)
    assert len(shown) <= 51
    assert "\n" not in shown
    assert "\x1b" not in shown
    shown.encode()


def test_repeated_headers_are_joined_and_bounded():
    headers = [(b"x-env", b"a"), (b"cookie", b"s"), (b"x-env", b"b"), (b"other", b"c")]
    assert redact.chosen_headers(headers, frozenset({b"x-env", b"cookie"})) == {"x-env": "a, b", "cookie": REDACTED}
    many = [(b"x-env", b"v" * 1000)] * 100
    assert len(redact.chosen_headers(many, frozenset({b"x-env"}))["x-env"]) <= 1024

"""Header hygiene, as tables."""

from __future__ import annotations

import pytest

from sidecar.errors import ProtocolViolation
from sidecar.hop import Headers
from sidecar.http.headers import PROTECTED, end_to_end, first, is_reserved, tokens, without_reserved

KEPT: Headers = [(b"host", b"a"), (b"x", b"1"), (b"x", b"2")]


def test_first_and_tokens_read_fields() -> None:
    headers: Headers = [(b"a", b"One, two"), (b"b", b"x"), (b"a", b" ,\tTHREE ,")]
    assert first(headers, b"a") == b"One, two"
    assert first(headers, b"c") is None
    assert tokens(headers, b"a") == [b"one", b"two", b"three"]
    assert tokens(headers, b"c") == []


@pytest.mark.parametrize(
    "name",
    [b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade", b"proxy-authenticate",
     b"proxy-authorization", b"http2-settings"],
)  # fmt: skip
def test_hop_by_hop_fields_stay_on_their_connection(name: bytes) -> None:
    assert end_to_end([*KEPT, (name, b"x-other")]) == KEPT


def test_fields_that_connection_names_stay_too() -> None:
    headers: Headers = [*KEPT, (b"connection", b"close, X-Private"), (b"x-private", b"1"), (b"connection", b"x-more")]
    assert end_to_end([*headers, (b"x-more", b"2")]) == KEPT


@pytest.mark.parametrize("name", [*sorted(PROTECTED), b"mesh-via", b"mesh-anything"])
def test_fields_that_matter_cannot_be_named(name: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="no hop-by-hop field"):
        end_to_end([*KEPT, (b"connection", b"close, " + name.upper())])


@pytest.mark.parametrize(
    ("name", "reserved"),
    [
        (b"mesh-via", True),
        (b"mesh-", True),
        (b"mesh_via", True),
        (b"x-forwarded-client-cert", True),
        (b"x_forwarded-client_cert", True),
        (b"mesh", False),
        (b"meshed", False),
        (b"x-mesh-via", False),
        (b"x-forwarded-client-certificate", False),
        (b"x-forwarded-for", False),
    ],
)
def test_reserved_names_in_every_spelling(name: bytes, reserved: bool) -> None:
    assert is_reserved(name) is reserved
    assert without_reserved([*KEPT, (name, b"x")]) == (KEPT if reserved else [*KEPT, (name, b"x")])

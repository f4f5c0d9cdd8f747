"""The claim that a request is counted by: read strictly, never raised about, and never a way to one's own allowance."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.traffic.claims import LONGEST_TOKEN, UNREAD, claim_key


def part(value: object) -> bytes:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def bearer(claims: object, scheme: bytes = b"Bearer ") -> list[tuple[bytes, bytes]]:
    return [(b"authorization", scheme + b".".join((part({"alg": "none"}), part(claims), b"c2ln")))]


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER ", b"Bearer   "])
def test_the_claim_of_a_token(scheme: bytes) -> None:
    assert claim_key(bearer({"sub": "ann", "n": 1}, scheme), "sub") == "=ann"


def test_values_that_look_alike_are_two() -> None:
    values = ["1", 1, True, "true", 1.5, "1.5", "x" * 100, "x" * 101, "", 0]
    keys = [claim_key(bearer({"sub": value}), "sub") for value in values]
    assert len(set(keys)) == len(values)
    assert UNREAD not in keys
    assert max(map(len, keys)) <= 65


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Basic YTpi")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer a.b")],
        [(b"authorization", b"Bearer " + b".".join((b"e30", part({"sub": "ann"}), b"")))],
        [(b"authorization", b"Bearer " + b".".join((b"e30", part({"sub": "ann"}), b"x", b"y", b"z")))],
        [(b"authorization", b"Bearer e30." + base64.urlsafe_b64encode(b'{"sub":"a"}  ') + b"==.x")],
        [(b"authorization", b"Bearer e30.eyJ+.x")],
        [(b"authorization", b"Bearer e30.eyJzd.x")],
        bearer({"sub": "ann"}) * 2,
        bearer({"sub": "a" * LONGEST_TOKEN}),
        bearer(b'{"sub":"ann","sub":"ben"}'),
        bearer(b'{"sub":NaN}'),
        bearer(b'{"sub":1e999}'),
        bearer(b'{"sub":' + b"9" * 6000 + b"}"),
        bearer(b'{"sub":"\\ud800"}'),
        bearer(b"\xff\xfe"),
        bearer(b"[" * 5000),
        bearer([{"sub": "ann"}]),
        bearer("ann"),
        bearer({"sub": None}),
        bearer({"sub": ["ann"]}),
        bearer({"sub": {"name": "ann"}}),
        bearer({"other": "ann"}),
    ],
)
def test_whatever_is_not_so_shares_one_key(headers: list[tuple[bytes, bytes]]) -> None:
    assert claim_key(headers, "sub") == UNREAD


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_raise_and_no_key_is_long(value: bytes, whole: bool) -> None:
    headers = bearer(value) if whole else [(b"authorization", b"Bearer " + value)]
    assert len(claim_key(headers, "sub")) <= 65

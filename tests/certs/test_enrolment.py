"""An enrolment file is read strictly, keeps its secret out of sight, and its key signs exactly one thing."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.enrolment import (
    Enrolment,
    EnrolmentKey,
    InvalidEnrolment,
    JoinToken,
    challenge_message,
    check_address,
    signature_is_by,
)
from certs.errors import PrivateFileUnavailable
from certs.spiffe import SpiffeId, TrustDomain

DEMO = TrustDomain.parse("demo.mesh")
TOKEN = "t" * 43
GOOD: dict[str, Any] = {
    "version": 1,
    "trust_domain": "demo.mesh",
    "ca_address": "127.0.0.1:17012",
    "root_sha256": ["ab" * 32],
    "entry": "orders-1c2d3e4f",
    "spiffe_id": "spiffe://demo.mesh/ns/default/sa/orders",
    "join_token": TOKEN,
}
KEY = base64.b64encode(bytes(32)).decode()
GONE = object()

MISTAKES = [
    ("version", 2, "version 1"),
    ("version", True, "version 1"),
    ("version", GONE, "version 1"),
    ("trust_domain", "Demo.Mesh", "a-z"),
    ("trust_domain", 7, "must be text"),
    ("trust_domain", "other.mesh", "no workload of trust domain"),
    ("ca_address", "localhost", "host:port"),
    ("ca_address", "localhost:0", "host:port"),
    ("ca_address", "localhost:65536", "host:port"),
    ("ca_address", "localhost:٣", "host:port"),
    ("ca_address", "::1:17012", "host:port"),
    ("ca_address", "user@host:1", "host:port"),
    ("root_sha256", [], "at least one root"),
    ("root_sha256", GONE, "at least one root"),
    ("root_sha256", ["AB" * 32], "lower-case hex"),
    ("root_sha256", ["ab" * 31], "64"),
    ("root_sha256", [1], "64"),
    ("entry", "a/b", "letters"),
    ("entry", "a\n", "letters"),
    ("entry", "", "letters"),
    ("entry", "e" * 129, "letters"),
    ("spiffe_id", "spiffe://demo.mesh", "no workload"),
    ("spiffe_id", "https://demo.mesh/a", "spiffe://"),
    ("join_token", "short", "not a join token"),
    ("join_token", GONE, "exactly one"),
    ("enrolment_key", KEY, "exactly one"),
    ("surprise", 1, "unknown field 'surprise'"),
]


@pytest.mark.parametrize(("field", "value", "says"), MISTAKES)
def test_a_mistake_is_refused_by_name(field: str, value: object, says: str) -> None:
    document = {**GOOD, field: value}
    if value is GONE:
        del document[field]
    with pytest.raises(InvalidEnrolment, match=says) as refusal:
        Enrolment.parse(json.dumps(document).encode())
    assert TOKEN not in str(refusal.value)
    assert KEY not in str(refusal.value)


@pytest.mark.parametrize("key", ["", "AAAA", KEY[:-1], KEY + "\n", " " + KEY, "é" * 44, KEY.replace("A", "-", 1)])
def test_a_key_that_is_no_key_is_refused(key: str) -> None:
    document = {**GOOD, "enrolment_key": key}
    del document["join_token"]
    with pytest.raises(InvalidEnrolment, match="enrolment_key"):
        Enrolment.parse(json.dumps(document).encode())


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b'{"version":1,"version":1}', b" " * 70_000],
)
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidEnrolment):
        Enrolment.parse(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        Enrolment.parse(data)
    except InvalidEnrolment:
        pass


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([*GOOD, "enrolment_key"]), _JSON)
def test_any_value_in_any_field_is_read_or_refused(field: str, value: object) -> None:
    try:
        read = Enrolment.parse(json.dumps({**GOOD, field: value}).encode())
    except InvalidEnrolment:
        return
    assert Enrolment.parse(read.to_json()) == read


@given(
    st.binary(min_size=32, max_size=32).map(EnrolmentKey) | st.from_regex(r"\A[A-Za-z0-9_-]{16,64}\Z").map(JoinToken),
    st.lists(st.binary(min_size=32, max_size=32).map(bytes.hex), min_size=1, max_size=3),
)
def test_what_is_written_is_read_again(proof: Any, roots: list[str]) -> None:
    orders = SpiffeId.parse("spiffe://demo.mesh/ns/default/sa/orders")
    enrolment = Enrolment(DEMO, "[::1]:17012", tuple(roots), "orders-1", orders, proof)
    assert Enrolment.parse(enrolment.to_json()) == enrolment


@pytest.mark.parametrize("field", ["spiffe_id", "trust_domain", "ca_address", "entry", "version", "root_sha256"])
def test_a_secret_in_the_wrong_field_does_not_show_in_the_message(field: str) -> None:
    secret = "kV3r5x1y8tWZJr4tV1jw1WJ0UTj/SUgtUWi4wyunZvho="
    for value in (secret, f"spiffe://demo.mesh/{secret}", f"spiffe://demo.mesh/ns/default/sa/{secret}"):
        with pytest.raises(InvalidEnrolment) as caught:
            Enrolment.parse(json.dumps({**GOOD, field: value}).encode())
        assert not any(secret[at : at + 12] in str(caught.value) for at in range(len(secret) - 12))
    with pytest.raises(InvalidEnrolment, match="unknown field '…'"):
        Enrolment.parse(json.dumps({**GOOD, secret: "x"}).encode())


def test_what_is_no_secret_is_quoted() -> None:
    with pytest.raises(InvalidEnrolment, match="Orders Of The Shop"):
        Enrolment.parse(json.dumps({**GOOD, "entry": "Orders Of The Shop"}).encode())


def test_no_secret_shows_in_a_repr() -> None:
    with_token = Enrolment.parse(json.dumps(GOOD).encode())
    assert TOKEN not in repr(with_token)
    assert "secret-bytes" not in repr(EnrolmentKey(b"secret-bytes".ljust(32)))


def test_the_file_is_ours_alone_and_an_open_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "orders.json"
    enrolment = Enrolment.parse(json.dumps(GOOD).encode())
    enrolment.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Enrolment.load(path) == enrolment
    path.chmod(0o644)
    with pytest.raises(PrivateFileUnavailable, match="chmod 600"):
        Enrolment.load(path)


def test_a_mistake_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "orders.json"
    path.write_bytes(b"{}")
    path.chmod(0o600)
    with pytest.raises(InvalidEnrolment, match=r"orders\.json"):
        Enrolment.load(path)


def test_a_signature_is_for_one_challenge_of_one_entry_and_one_request() -> None:
    key = EnrolmentKey.generate()
    good = (DEMO, "orders-1", "nonce", b"csr")
    signature = key.sign(*good)
    story = [
        (good, True),
        ((TrustDomain.parse("other.mesh"), *good[1:]), False),
        ((DEMO, "orders-2", "nonce", b"csr"), False),
        ((DEMO, "orders-1", "nonce2", b"csr"), False),
        ((DEMO, "orders-1", "nonce", b"csr2"), False),
    ]
    assert [signature_is_by(key.public_bytes, signature, *asked) for asked, _ in story] == [good for _, good in story]
    assert not signature_is_by(EnrolmentKey.generate().public_bytes, signature, *good)
    assert not signature_is_by(b"short", signature, *good)
    assert not signature_is_by(key.public_bytes, b"", *good)


def test_the_parts_of_a_challenge_cannot_run_into_each_other() -> None:
    assert challenge_message(DEMO, "a", "bc", b"") != challenge_message(DEMO, "ab", "c", b"")
    with pytest.raises(InvalidEnrolment):
        challenge_message(DEMO, "a\0b", "c", b"")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:65535", "ca.internal:17012", "localhost:17012"])
def test_addresses_that_are_read(address: str) -> None:
    assert check_address(address) == address

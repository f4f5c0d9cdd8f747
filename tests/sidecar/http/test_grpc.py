"""gRPC as a proxy sees it: refusals that its clients read, deadlines, and messages that pass as they are."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar import errors
from sidecar.errors import HopError, ProtocolViolation
from sidecar.http.grpc import (
    FAILURES,
    NAMES,
    Messages,
    Status,
    is_grpc,
    last_words,
    message,
    refusal,
    status_name,
    status_of,
    timeout,
    timeout_of,
    without_status,
)
from sidecar.telemetry import outcome
from tests.kit.hops import a_hop

KINDS = [
    ("application/grpc", True),
    ("application/grpc+proto", True),
    ("application/grpc;charset=utf-8", True),
    ("APPLICATION/GRPC", True),
    ("application/grpc ", True),
    ("application/grpc-web", False),
    ("application/grpc-web-text+proto", False),
    ("application/grpcx", False),
    ("application/json", False),
    ("", False),
]


@pytest.mark.parametrize(("kind", "answer"), KINDS)
def test_what_is_grpc(kind: str, answer: bool) -> None:
    assert is_grpc([(b"content-type", kind.encode())]) is answer


def test_without_a_content_type_it_is_not() -> None:
    assert not is_grpc([])


ALL = [
    kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, HopError)
]  # fmt: skip
STATUSES = [
    (errors.PolicyDenied("x"), Status.PERMISSION_DENIED),
    (errors.UndeclaredUpstream("x"), Status.PERMISSION_DENIED),
    (errors.IdentityRefused("x"), Status.PERMISSION_DENIED),
    (errors.ConnectFailed("x"), Status.UNAVAILABLE),
    (errors.UpstreamRefused("x"), Status.UNAVAILABLE),
    (errors.Draining("x"), Status.UNAVAILABLE),
    (errors.Overflow("x"), Status.UNAVAILABLE),
    (errors.DeadlinePast("x"), Status.DEADLINE_EXCEEDED),
    (errors.ResponseTimeout("x"), Status.DEADLINE_EXCEEDED),
    (errors.DownstreamGone("x"), Status.CANCELLED),
    (errors.NoRoute("x"), Status.UNIMPLEMENTED),
    (errors.BodyTooLarge("x"), Status.RESOURCE_EXHAUSTED),
]


@pytest.mark.parametrize(("error", "status"), STATUSES, ids=[type(error).__name__ for error, _ in STATUSES])
def test_the_status_of_an_error(error: HopError, status: Status) -> None:
    assert status_of(error) is status


RESETS = [
    (2, Status.INTERNAL), (7, Status.UNAVAILABLE), (8, Status.CANCELLED), (11, Status.RESOURCE_EXHAUSTED),
    (12, Status.PERMISSION_DENIED), (99, Status.INTERNAL),
]  # fmt: skip


@pytest.mark.parametrize(("code", "status"), RESETS)
def test_a_reset_means_what_it_means_to_a_client(code: int, status: Status) -> None:
    error = errors.UpstreamReset("x")
    error.code = code
    assert status_of(error) is status


NAMED = [(b"0", "OK"), (b"16", "UNAUTHENTICATED"), (b"17", "other"), (b"", "other"), (b"00", "other"), (b"-1", "other")]


@pytest.mark.parametrize(("value", "name"), NAMED)
def test_the_name_of_a_status_is_one_of_a_few(value: bytes, name: str) -> None:
    assert status_name(value) == name
    assert name in NAMES


@pytest.mark.parametrize(("status", "name"), [(200, "UNKNOWN"), (403, "PERMISSION_DENIED"), (503, "UNAVAILABLE")])
def test_an_answer_without_a_status(status: int, name: str) -> None:
    assert without_status(status) == name


@pytest.mark.parametrize("name", NAMES)
def test_what_is_a_failure_is_what_http_tells_by_5xx(name: str) -> None:
    """And no error that says what is wrong with the request."""
    failures = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "other"}
    assert (name in FAILURES) is (name in failures)
    assert outcome.failed(a_hop(grpc_status=name)) is (name in failures)


def test_last_words_are_a_refusal_behind_an_answer() -> None:
    assert last_words(errors.DeadlinePast("secret"), "Request Timeout", [(b"a", b"b")]) == [
        (b"grpc-status", b"4"), (b"grpc-message", b"Request Timeout"), (b"a", b"b"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ALL)
def test_every_error_has_a_status_that_is_no_success(kind: type[HopError]) -> None:
    assert status_of(kind("x")) is not Status.OK


def test_a_refusal_is_trailers_only_and_says_no_more_than_its_title() -> None:
    head = refusal(errors.PolicyDenied("secret rule"), "Forbidden, 100 %", [(b"mesh-decision-id", b"cafe-1")])
    assert head.status == 200
    assert head.headers == [
        (b"content-type", b"application/grpc"), (b"grpc-status", b"7"), (b"grpc-message", b"Forbidden, 100 %25"),
        (b"mesh-decision-id", b"cafe-1"),
    ]  # fmt: skip


def test_messages_are_percent_encoded() -> None:
    assert message("ä\r\n~") == b"%C3%A4%0D%0A~"


DEADLINES = [
    (b"1S", 1.0), (b"99999999H", 99999999 * 3600.0), (b"5M", 300.0), (b"250m", 0.25), (b"10u", 1e-5), (b"0n", 0.0),
    (b"00000001S", 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("value", "seconds"), DEADLINES)
def test_a_deadline(value: bytes, seconds: float) -> None:
    assert timeout_of([(b"grpc-timeout", value)]) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"", b"S", b"1", b"1s", b"-1S", b"1.5S", b"123456789S", b" 1S", b"1 S", b"1SS"])
def test_a_deadline_that_is_none(value: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        timeout_of([(b"grpc-timeout", value)])


def test_no_deadline() -> None:
    assert timeout_of([]) is None


@settings(deadline=None)
@given(st.floats(0, 1e11))
@example(100000.5)
def test_a_deadline_that_is_passed_on_is_never_later(seconds: float) -> None:
    again = timeout_of([(b"grpc-timeout", timeout(seconds))])
    assert again is not None
    assert again <= seconds * (1 + 1e-12)
    # eight digits, and units a thousand apart: five digits at the worst
    assert again >= seconds * 0.99999 - 1e-9 or seconds > 99999999


WRITTEN = [(-1, b"0n"), (0, b"0n"), (0.05, b"50000000n"), (1, b"1000000u"), (1e12, b"99999999H")]


@pytest.mark.parametrize(("seconds", "value"), WRITTEN)
def test_how_a_deadline_is_written(seconds: float, value: bytes) -> None:
    assert timeout(seconds) == value


def a_message(payload: bytes, compressed: int = 0) -> bytes:
    return bytes((compressed,)) + len(payload).to_bytes(4, "big") + payload


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20), max_size=6), st.lists(st.integers(1, 12), max_size=20), st.integers(0, 200))
def test_messages_are_counted_however_they_are_cut(payloads: list[bytes], cuts: list[int], missing: int) -> None:
    whole = b"".join(map(a_message, payloads))
    stream = whole[: max(0, len(whole) - missing)]
    messages, at = Messages(), 0
    for cut in (*cuts, len(stream)):
        messages.feed(stream[at : at + cut])
        at += cut
    ends, position = [], 0
    for payload in payloads:
        position += 5 + len(payload)
        ends.append(position)
    assert messages.count == sum(end <= len(stream) for end in ends)
    assert messages.cut_off is (len(stream) not in (0, *ends))


def test_a_message_of_64_mib_is_followed_without_being_kept() -> None:
    messages = Messages()
    messages.feed(b"\1" + (64 << 20).to_bytes(4, "big"))
    piece = bytes(1 << 20)
    for _ in range(64):
        assert messages.cut_off
        messages.feed(piece)
    assert (messages.count, messages.cut_off) == (1, False)


def test_what_cannot_be_grpc() -> None:
    with pytest.raises(ProtocolViolation):
        Messages().feed(b"\2\0\0\0\0")

"""What an answer to a check means."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sidecar import errors
from sidecar.config.schema_outbound import HealthCheck
from sidecar.config.terms import StatusRange
from sidecar.hop import Headers
from sidecar.http.message import ResponseHead
from sidecar.proxy.health import Checks, _Answer, _of_error
from sidecar.traffic.health import Result

BY_MESH = (b"mesh-decision-id", b"a1-b2")


def checks(**said: Any) -> Checks:
    upstream: Any = SimpleNamespace(name="orders")
    return Checks(upstream, upstream, HealthCheck(**said), lambda _: None)


def answer(status: int, *headers: tuple[bytes, bytes], body: bytes = b"", trailers: Headers | None = None) -> _Answer:
    found = _Answer(ResponseHead(status, list(headers)))
    found.body, found.trailers = body, trailers or []
    return found


@pytest.mark.parametrize(("status", "by_mesh", "word", "why"), [
    (200, False, "passed", ""),
    (399, False, "passed", ""),
    (404, False, "failed", "answers 404 to /healthz?a=1, not 200-399"),
    (500, False, "failed", "answers 500"),
    (403, False, "failed", "answers 403"),  # of the application itself
    (403, True, "refused", "the check is refused by orders's allowlist, so it says nothing: allow GET /healthz"),
    (429, True, "refused", "by a rate limit of orders"),
    (503, True, "failed", "its sidecar answers 503"),  # the application behind it is not there
])  # fmt: skip
def test_http(status: int, by_mesh: bool, word: str, why: str) -> None:
    found = checks(http="/healthz?a=1")._judge(answer(status, *([BY_MESH] if by_mesh else [])))
    assert found.word == word
    assert why in found.why


def test_a_range_of_one() -> None:
    one = checks(http="/", expect=StatusRange(204, 204))
    assert one._judge(answer(204)).passed
    assert one._judge(answer(200)).why == "answers 200 to /, not 204"


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


OK: Headers = [(b"grpc-status", b"0")]


@pytest.mark.parametrize(("found", "word", "why"), [
    (answer(200, body=framed(b"\x08\x01"), trailers=OK), "passed", ""),
    (answer(200, body=framed(b"\x12\x01x\x08\x01"), trailers=OK), "passed", ""),  # a field that we do not know
    (answer(200, body=framed(b"\x08\x02"), trailers=OK), "failed", "says NOT_SERVING"),
    (answer(200, body=framed(b"\x08\x03"), trailers=OK), "failed", "says SERVICE_UNKNOWN"),
    (answer(200, body=framed(b""), trailers=OK), "failed", "says UNKNOWN"),
    (answer(200, body=framed(b"\x08\x63"), trailers=OK), "failed", "says a status unknown to us"),
    (answer(200, body=framed(b"\x0a\x01x"), trailers=OK), "failed", "says a status unknown to us"),
    (answer(200, body=framed(b"\x08\x01")[:-1], trailers=OK), "failed", "answers with no message"),
    (answer(200, body=framed(b"\x08"), trailers=OK), "failed", "answers with no message: a number is cut off"),
    (answer(200, body=b"\1" + framed(b"\x08\x01")[1:], trailers=OK), "failed", "answers with no message"),
    (answer(200, body=framed(b"\x08\x01") * 2, trailers=OK), "failed", "answers with no message"),
    (answer(200, trailers=OK), "failed", "answers with no message"),
    (answer(200, (b"grpc-status", b"12")), "failed", "has no grpc.health.v1.Health"),
    (answer(404), "failed", "has no grpc.health.v1.Health"),
    (answer(200, (b"grpc-status", b"5")), "failed", 'knows no "a.B"'),
    (answer(200, (b"grpc-status", b"14")), "failed", "grpc-status UNAVAILABLE"),
    (answer(200), "failed", "grpc-status UNKNOWN"),
    (answer(200, (b"grpc-status", b"7")), "failed", "grpc-status PERMISSION_DENIED"),
    (answer(200, (b"grpc-status", b"7"), BY_MESH), "refused", "allow POST /grpc.health.v1.Health/Check"),
    (answer(200, (b"grpc-status", b"8"), BY_MESH), "refused", "by a rate limit of orders"),
    (answer(200, (b"grpc-status", b"14"), BY_MESH), "failed", "grpc-status UNAVAILABLE"),
])  # fmt: skip
def test_grpc(found: _Answer, word: str, why: str) -> None:
    result = checks(grpc="a.B")._judge_grpc(found)
    assert result.word == word
    assert why in result.why


def test_the_question_of_grpc() -> None:
    head, body = _asked(checks(grpc="a" * 200))
    assert body == b"\0\0\0\0\xcb\x0a\xc8\x01" + b"a" * 200
    assert (head.method, head.target, head.version) == (b"POST", b"/grpc.health.v1.Health/Check", b"2")
    assert (b"grpc-timeout", b"1000000u") in head.headers
    assert _asked(checks(grpc=""))[1] == b"\0" * 5


def _asked(these: Checks) -> Any:
    these._upstream.host = "orders"
    return these._request()


@pytest.mark.parametrize(("error", "word"), [
    (errors.ConnectFailed("refused"), "unreachable"),
    (errors.HandshakeFailed("no TLS"), "unreachable"),
    (errors.PeerIdentityMismatch("other_identity"), "unreachable"),
    (errors.PeerIdentityMismatch("alert_unknown_ca"), "refused"),
    (errors.UpstreamClosed("gone"), "unreachable"),
    (errors.UpstreamProtocolViolation("not HTTP"), "unreachable"),
    (errors.NoIdentity("expired"), "skipped"),
    (errors.Overflow("full"), "skipped"),
    (errors.UpstreamRefused("GOAWAY"), "skipped"),
])  # fmt: skip
def test_what_is_no_failure_for_a_request_is_none_for_a_check(error: errors.HopError, word: str) -> None:
    assert _of_error(error).word == word


def test_what_says_nothing() -> None:
    words = ("passed", "failed", "timed_out", "unreachable", "refused", "skipped")
    assert [Result(word).passed for word in words] == [True, False, False, False, None, None]  # type: ignore[arg-type]

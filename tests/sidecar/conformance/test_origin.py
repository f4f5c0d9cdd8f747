"""The recording origin: what it takes, what it calls malformed, what was never whole."""

from __future__ import annotations

import socket

import pytest

from sidecar.conformance.origin import Origin, Seen
from tests.kit.processes import eventually

LINE = b"POST /a HTTP/1.1\r\nHost: app\r\n"
CHUNKED = LINE + b"Transfer-Encoding: chunked\r\n\r\n"


def tell(data: bytes, *, wait: bool = True) -> list[Seen]:
    with Origin() as origin:
        with socket.create_connection(origin.address) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        found: list[Seen] = []
        if wait:
            eventually("something seen", lambda: found.extend(origin.take()) or found)
        return found + origin.take()


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (LINE + b"\r\n", b""),
        (LINE + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (CHUNKED + b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n", b"hello"),
    ],
)
def test_good_requests(data: bytes, body: bytes) -> None:
    (seen,) = tell(data)
    assert (seen.method, seen.target, seen.body, seen.malformed) == (b"POST", b"/a", body, "")


def test_a_second_request_is_one_more() -> None:
    first, second = tell(LINE + b"\r\n" + b"GET /b HTTP/1.1\r\nHost: app\r\n\r\n")
    assert (first.target, second.target) == (b"/a", b"/b")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET /a\r\n\r\n", "request line"),
        (b"GET /a HTTP/2.0\r\n\r\n", "request line"),
        (b"GET /a HTTP/1.1\nHost: app\n\n", "bare CR or LF"),
        (b"GET /a HTTP/1.1\r\n\r\n", "0 Host lines"),
        (LINE + b"Host: b\r\n\r\n", "2 Host lines"),
        (LINE + b"X : y\r\n\r\n", "field line"),
        (LINE + b"X: y\rz\r\n\r\n", "bare CR or LF"),
        (LINE + b"X: \x00\r\n\r\n", "field line"),
        (LINE + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "framing by"),
        (LINE + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "framing by"),
        (LINE + b"Content-Length: +5\r\n\r\nhello", "Content-Length"),
        (LINE + b"Transfer-Encoding: cow\r\n\r\n", "Transfer-Encoding"),
        (CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", "chunk size"),
        (CHUNKED + b"5\r\nhelloXX0\r\n\r\n", "does not end"),
        (CHUNKED + b"0\r\n X: y\r\n\r\n", "field line"),
    ],
)
def test_what_has_no_one_reading_is_malformed(data: bytes, why: str) -> None:
    (seen,) = tell(data)
    assert why in seen.malformed


@pytest.mark.parametrize(
    "data",
    [
        LINE,
        LINE + b"Content-Length: 9\r\n\r\nhello",
        LINE + b"Content-Length: 99999999\r\n\r\n",
        CHUNKED + b"5\r\nhello\r\n",
    ],
)
def test_what_never_came_whole_was_never_a_request(data: bytes) -> None:
    assert tell(data, wait=False) == []

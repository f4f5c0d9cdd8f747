"""The whole corpus against our reading alone, without sockets: what must not pass is refused, however it is cut."""

from __future__ import annotations

import time

import pytest

from sidecar.conformance.case import Case
from sidecar.conformance.corpus import CASES
from sidecar.errors import HopError
from sidecar.http.canonical import canonical_target, request_host
from sidecar.http.h1 import H1Server
from sidecar.http.headers import end_to_end
from sidecar.http.message import CLOSED, NEED_DATA, SWITCHED, End, RequestHead, ResponseHead
from sidecar.proxy.forwarding import outgoing_headers

SMALL = [case for case in CASES if len(case.raw) <= 4096]


def read(data: bytes, step: int) -> tuple[int, str]:
    """How many whole requests there are, and how it ends: with a refusal, a wait, or a close."""
    codec = H1Server(32 * 1024, 100)
    whole = position = 0
    try:
        while True:
            event = codec.next_event()
            if isinstance(event, RequestHead):
                if event.method == b"CONNECT":
                    return whole, "refused"  # as the inbound side does with each
                target = canonical_target(event.target, event.method.decode())
                request_host(target, [v for n, v in event.headers if n == b"host"], event.version.decode())
                end_to_end(event.headers)
                outgoing_headers(event)
            elif isinstance(event, End):
                whole += 1
                codec.send_head(ResponseHead(200, [(b"content-length", b"0")]))
                codec.send_end()
                if not codec.reusable:
                    return whole, "close"
                codec.next_exchange()
            elif event is NEED_DATA:
                if position >= len(data):
                    return whole, "wait"
                codec.receive(data[position : position + step])
                position += step
            elif event is CLOSED or event is SWITCHED:
                return whole, "close"
    except HopError:
        return whole, "refused"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_must_not_pass_is_not_read_as_a_whole_request(case: Case) -> None:
    whole, end = read(case.bytes_for(b"app"), 1 << 20)
    if case.must_pass:
        assert whole == case.answers
    elif not case.accept:
        assert (whole, end) in ((0, "refused"), (0, "wait"))
    else:
        assert whole <= case.answers


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_byte_by_byte_the_reading_is_the_same(case: Case) -> None:
    data = case.bytes_for(b"app")
    assert read(data, 1) == read(data, 1 << 20)


def test_a_head_that_comes_byte_by_byte_costs_its_length_not_its_square() -> None:
    """It took ten seconds of a core when every byte made us look at all of them again."""
    head = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-Name: some value or other\r\n" * 90 + b"Y: " + b"y" * 29_000
    began = time.process_time()
    assert read(head + b"\r\n\r\n", 1) == (1, "wait")
    assert time.process_time() - began < 3.0

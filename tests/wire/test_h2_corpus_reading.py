"""The corpus of HTTP/2 against our reading alone, without sockets: what must not pass is refused, however it is cut."""

from __future__ import annotations

import pytest

from sidecar.conformance.corpus import H2_CASES
from sidecar.conformance.h2case import GREETING, H2Case
from sidecar.errors import HopError
from sidecar.http.canonical import canonical_target, request_host
from sidecar.http.h2 import H2Server, H2Stream, Opened
from sidecar.http.message import CLOSED, NEED_DATA, End, RequestHead, ResponseHead
from sidecar.http.versions import h1_request

# The connection ends behind a good request, which is answered where it came alone and dropped where both came at once.
LATE = {
    "h2-frames/head-lower", "h2-trailers/head-after-end", "h2-trailers/data-after-end", "h2-protocol/skipped",
    "h2-protocol/ended-continuation",
}  # fmt: skip
SMALL = [case for case in H2_CASES if len(case.bytes_for(b"app")) <= 2048]


def read(data: bytes, step: int) -> tuple[int, bool]:
    """How many whole requests these bytes are, and whether anything of them was refused."""
    codec = H2Server(now=0.0)
    whole, refused = 0, False
    waiting: list[H2Stream] = []
    for position in range(0, len(data), step):
        codec.receive(data[position : position + step], 0.0)
        while codec.to_send(0.0):
            pass
        while (event := codec.next_event()) is not None:
            if isinstance(event, Opened):
                waiting.append(event.stream)
        for stream in list(waiting):
            done = _take(stream)
            if done is not None:
                waiting.remove(stream)
                whole, refused = whole + done, refused or not done
    return whole, refused or codec.error is not None


def _take(stream: H2Stream) -> bool | None:
    """Whether a request is whole (then it is answered) or refused; None while more of it is due."""
    try:
        while True:
            event = stream.next_event()
            if isinstance(event, RequestHead):
                target = canonical_target(event.target, event.method.decode())
                request_host(target, [v for n, v in event.headers if n == b"host"], "1.1")
                if event.method == b"CONNECT":
                    return False  # as the inbound side does with each
                h1_request(event, bytes(16))
            elif isinstance(event, End):
                stream.send_head(ResponseHead(200, []), end=True)
                return True
            elif event is NEED_DATA:
                return None
            elif event is CLOSED:
                return True
    except HopError:
        return False


@pytest.mark.parametrize("case", H2_CASES, ids=lambda case: case.name)
def test_what_must_not_pass_is_not_read_as_a_whole_request(case: H2Case) -> None:
    whole, refused = read(GREETING + case.bytes_for(b"app"), 1 << 20)
    if case.must_pass:
        assert (whole, refused) == (case.answers, False)
    elif not case.accept:
        assert whole == 0
    else:
        assert whole <= case.answers


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_byte_by_byte_the_reading_is_the_same(case: H2Case) -> None:
    data = GREETING + case.bytes_for(b"app")
    slow, fast = read(data, 1), read(data, 1 << 20)
    assert slow == fast or (case.name in LATE and (slow, fast) == ((1, True), (0, True)))

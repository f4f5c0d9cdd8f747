"""llhttp's response messages read by our side toward upstreams."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.errors import HopError
from sidecar.http.h1 import H1Client
from sidecar.http.message import CLOSED, NEED_DATA, SWITCHED, End, RequestHead
from tests.kit import llhttp, vectors


def every_answer() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes and llhttp's verdict (taken, refused, lenient) of each response message."""
    for path in sorted(vectors.folder("http1", "llhttp", "response").glob("*.md")):
        for message in llhttp.messages(path):
            expected = "refused" if message.error else "lenient" if message.lenient else "taken"
            yield f"llhttp/response/{message.name}", message.raw, expected


def read_answer(raw: bytes, *, eof: bool) -> str:
    """What our reading of an answer to GET says: taken, waits, or why it is refused."""
    codec = H1Client(32 * 1024, 100)
    codec.begin(RequestHead(b"GET", b"/", [(b"host", b"a"), (b"connection", b"upgrade"), (b"upgrade", b"x")]))
    codec.send_end()
    codec.receive(raw)
    if eof:
        codec.receive(b"")
    try:
        while True:
            event = codec.next_event()
            if isinstance(event, End) or event is CLOSED or event is SWITCHED:
                return "taken"
            if event is NEED_DATA:
                return "waits"
    except HopError as error:
        return str(error)

"""Fuzzers of the plain readers: against the strict reading, and against two readers that share nothing with either."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import example
from hypothesis import strategies as st

from sidecar.errors import HopError
from sidecar.http.chunk_relay import ChunkRelay
from sidecar.http.plain import CHUNKED, JudgedReader, OpaqueReader, PlainRequest
from sidecar.http.plain_answers import AnswerReader, PlainResponse
from tests.fuzz.depth import fuzz
from tests.fuzz.readers import Careless, Message, Pedantic, Unreadable
from tests.fuzz.test_http import HIDDEN, LINES, STATUS, messages
from tests.kit.plain import check_answers, check_bytes, spoilt
from tests.properties.test_plain import FIRST, SPOILT, heads

JUDGED, OPAQUE, ANSWERS = JudgedReader(2048, 20), OpaqueReader(2048, 20), AnswerReader(2048, 20)
ANY = st.one_of(messages(LINES), st.builds(spoilt, heads(FIRST), *SPOILT))


@fuzz(ANY, brief=900, long=50_000)
@example(b"GET / HTTP/1.1\r\nHost: h\r\nX-mesh-via: a\r\nmesh-via: a\r\n\r\n")
def test_a_plain_head_is_read_like_the_strict_reading(stream: bytes) -> None:
    """Whatever is plain, the strict reading takes and reads alike; while more is waited for, it waits too."""
    check_bytes(stream)


@fuzz(messages(STATUS), st.booleans(), brief=900, long=50_000)
def test_a_plain_answer_is_read_like_the_strict_reading(stream: bytes, to_head: bool) -> None:
    """Whatever answer is plain, the strict reading takes and reads alike, and so do two strangers."""
    check_answers(stream, to_head=to_head)
    found = ANSWERS.read(stream, to_head=to_head)
    if not isinstance(found, PlainResponse):
        return
    for reader in (Careless(), Pedantic()):
        with suppress(Unreadable):  # its body is not whole
            seen = reader.response(stream, to_head=to_head)
            assert seen.end - found.size >= found.length if found.length == CHUNKED else found.length == len(seen.body)


@fuzz(ANY, brief=900, long=50_000)
@example(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n" + HIDDEN)
def test_what_is_spliced_is_one_request_to_every_reader(stream: bytes) -> None:
    """What goes on of a plain request is, to a careless and a pedantic server, that request and nothing after it; a
    careless proxy before us sees its end where we do.
    """
    for reader in (JUDGED, OPAQUE):
        found = reader.read(stream)
        if not isinstance(found, PlainRequest):
            continue
        host = b"" if reader is JUDGED else b"Host: h\r\n"
        out = [found.line, host, found.fields, b"mesh-via: a\r\n\r\n"]
        end = found.end + found.length
        if found.length == CHUNKED:
            relay = ChunkRelay(2048, 20)
            try:
                end = relay.pass_on(stream, out, found.end)
            except HopError:
                continue
            if not relay.done:
                continue
        elif end > len(stream):
            continue
        else:
            out.append(stream[found.end : end])
        written = b"".join(out)
        body = Careless().request(stream)
        assert body.end == end
        wanted = Message(found.line[:-2], body.body, len(written))
        assert Careless().request(written) == wanted
        assert Pedantic().request(written) == wanted

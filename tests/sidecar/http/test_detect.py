"""What is spoken, by the first bytes: a table, cut at every byte; whatever any HTTP reader takes is never opaque."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.detect import DETECT_BYTES, conclude, detect
from sidecar.http.h2.codes import PREFACE

TABLE = [
    # what comes first, what it is, after how many bytes that is known (None: only by waiting), what waiting finds
    (PREFACE, "http2", len(PREFACE)),
    (PREFACE + b"\0\0\0\4\0\0\0\0\0", "http2", len(PREFACE)),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "http1", 11),
    (b"get / HTTP/1.0\r\n\r\n", "http1", 11),
    (b"PURGE /a?b=c#d HTTP/2.7\r\n", "http1", 20),
    (b"OPTIONS * HTTP/1.1\r\n", "http1", 15),
    (b"CONNECT a:443 HTTP/1.1\r\n", "http1", 19),
    (b"GET http://a/ HTTP/1.1\r\n", "http1", 19),
    (b"GET  /two  HTTP/1.1\r\n", "http1", 16),  # the strict reader has the words for it
    (b"GET /\xff HTTP/1.1\r\n", "http1", 12),
    (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "http1", 19),
    (b"GET /" + b"a" * 2000, "http1", DETECT_BYTES),
    (b"\x16\x03\x01\x02\0\x01\0", "opaque", 1),  # TLS
    (b"*1\r\n$4\r\nPING\r\n", "opaque", 3),  # Redis; `*` may stand in a method
    (b"PING\r\n", "opaque", 5),
    (b"SET a b\r\n", "opaque", 7),
    (b"get key\r\n", "opaque", 8),  # memcached
    (b"EHLO example.org\r\n", "opaque", 17),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "opaque", 20),
    (b"\0\0\0\x08\x04\xd2\x16\x2f", "opaque", 1),  # PostgreSQL asks for TLS
    (b"AMQP\0\0\x09\x01", "opaque", 5),
    (b"\r\nGET / HTTP/1.1\r\n", "opaque", 1),
    (b" GET / HTTP/1.1\r\n", "opaque", 1),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "opaque", 12),
    (b"A" * 33, "opaque", 33),
    (b"GET " + b"a" * 2000, "opaque", DETECT_BYTES),
]  # fmt: skip


@pytest.mark.parametrize(("data", "spoken", "after"), TABLE)
def test_it_is_known_from_one_byte_on_and_stays_so(data: bytes, spoken: str, after: int) -> None:
    for size in range(len(data) + 1):
        assert detect(data[:size]) == (spoken if size >= after else None), data[:size]


UNFINISHED = [
    (b"", "opaque"), (b"G", "opaque"), (b"GET", "opaque"), (b"GET ", "opaque"), (b"GET key", "opaque"),
    (b"GET /", "http1"), (b"GET /a HTT", "http1"), (b"OPTIONS *", "http1"), (b"GET HTTPS://a", "http1"),
    (b"PRI * HTTP/2", "http1"), (PREFACE[:20], "http1"), (PREFACE, "http2"), (b"HELO", "opaque"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "spoken"), UNFINISHED)
def test_what_is_not_whole_when_time_is_up(data: bytes, spoken: str) -> None:
    assert conclude(data) == spoken


TOKENS = st.text("ABCdef!#$%&'*+-.^_`|~09", min_size=1, max_size=32).map(str.encode)
TARGETS = st.lists(st.sampled_from([*range(0x21, 0x7F), 0x80, 0xFF]), min_size=1, max_size=60).map(bytes)


@given(TOKENS, TARGETS, st.sampled_from([b"1.1", b"1.0", b"2.0", b""]), st.data())
def test_no_request_line_is_opaque_however_it_is_cut(
    method: bytes, target: bytes, version: bytes, cut: st.DataObject
) -> None:
    line = b"%b %b HTTP/%b\r\n\r\n" % (method, target, version)
    assert detect(line) == "http1"
    part = line[: cut.draw(st.integers(0, len(line)))]
    assert detect(part) in (None, "http1")


@given(st.binary(max_size=1200), st.integers(0, 1200))
def test_what_is_known_never_changes(data: bytes, size: int) -> None:
    known = detect(data[:size])
    if known is not None:
        assert detect(data) == known
        assert conclude(data) == known
    if len(data) >= DETECT_BYTES:
        assert detect(data) is not None

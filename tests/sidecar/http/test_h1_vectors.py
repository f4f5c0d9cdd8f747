"""Gunicorn's request vectors through our reader: the same verdict, or a written reason for another."""

from __future__ import annotations

import pytest

from sidecar.errors import HopError
from sidecar.http.canonical import opaque_target, request_host
from sidecar.http.h1 import H1Server
from sidecar.http.message import CLOSED, NEED_DATA, SWITCHED, End, RequestHead, ResponseHead
from tests.kit import vectors

GUNICORN = ("http1", "gunicorn")

# Gunicorn's test client leaves Host away in most requests; RFC 9112 section 3.2 makes that a 400 in HTTP/1.1. Each of
# these is refused as it stands, and read a second time with a Host line put in.
NO_HOST = "the Host header is missing"

# What gunicorn takes and we refuse, and why.
STRICTER = {
    "002.http": "`Host: 0.0.0.0=5000` is no host",
    "003.http": "`Host: 0.0.0.0=5000` is no host",
    "005.http": "a fragment in a request target (RFC 9112 section 3.2 has none)",
    "009.http": "both Content-Length and Transfer-Encoding: two readings (RFC 9112 section 6.3)",
    "012.http": "Content-Type as a trailer (RFC 9110 section 6.5.1)",
    "018.http": "its second request has no Host either",
    "023.http": "its second request has no Host either",
    "025.http": "Transfer-Encoding over two lines, and a coding that we do not undo",
    "025_line.http": "a transfer coding that we do not undo",
    "027.http": "bytes beyond ASCII in a request target",
    "028.http": "a blank before the colon (RFC 9112 section 5.1: MUST be rejected)",
    "029.http": "the coding `identity` was removed from HTTP, and Transfer-Encoding is repeated",
    "030.http": "the coding `identity` was removed from HTTP, and Transfer-Encoding is repeated",
    "040.http": "Transfer_Encoding and Content_Length: CGI's heirs read them as framing",
    "040_compat.http": "Transfer_Encoding and Content_Length: CGI's heirs read them as framing",
    "099.http": "its body is shorter than its Content-Length",
    "compat_obs_fold.http": "folded lines (RFC 9112 section 5.2: reject)",
    "compat_obs_fold_huge.http": "folded lines (RFC 9112 section 5.2: reject)",
    "pp_01.http": "the PROXY protocol is read by listeners that are told to, and not as HTTP",
    "pp_02.http": "the PROXY protocol is read by listeners that are told to, and not as HTTP",
    "pp_04.http": "the PROXY protocol is read by listeners that are told to, and not as HTTP",
    "pp_05.http": "the PROXY protocol is read by listeners that are told to, and not as HTTP",
    "rfc9112_smuggle_gzip_chunked_01.http": "a transfer coding that we do not undo",
    "rfc9112_smuggle_te_identity_chunked_01.http": "the coding `identity` was removed from HTTP",
    "rfc9112_target_absolute_userinfo_01.http": "user information in a target: a known trick (RFC 9110 section 4.2.4)",
}
# What gunicorn refuses and we take, and why. Nothing here can be read in two ways.
MILDER = {
    "003c.http": "a method may have any length; policy passes only those it knows or lists",
    "006.http": "gunicorn's limit of a request line; ours is 32 KiB for the whole head",
    "007.http": "gunicorn's limit of header fields in this test; ours is 100 lines",
    "008.http": "gunicorn's limit of a field's size in this test; ours is 32 KiB for the whole head",
    "010.http": "gunicorn's limit of a field's size in this test; ours is 32 KiB for the whole head",
    "017.http": "gunicorn's limit of a field's size in this test; ours is 32 KiB for the whole head",
    "019.http": "gunicorn compares forwarded-scheme headers; we believe none of them, and the application may decide",
    "limit_header_default_01.http": "gunicorn's limit of a field's size; ours is 32 KiB for the whole head",
}


def read(data: bytes) -> list[RequestHead]:
    """Every request in these bytes, each answered, then the end of the stream. Raises HopError."""
    server = H1Server(32 * 1024, 100)
    server.receive(data)
    server.receive(b"")
    heads: list[RequestHead] = []
    while True:
        event = server.next_event()
        if isinstance(event, RequestHead):
            heads.append(event)
            target = opaque_target(event.target, event.method.decode())
            request_host(target, [value for name, value in event.headers if name == b"host"], event.version.decode())
        elif isinstance(event, End):
            if heads[-1].method == b"CONNECT":
                return heads
            server.send_head(ResponseHead(200, [(b"content-length", b"0")]))
            server.send_end()
            if not server.reusable:
                return heads
            server.next_exchange()
        elif event is CLOSED or event is SWITCHED:
            return heads
        assert event is not NEED_DATA


def verdict(data: bytes) -> str:
    """`taken`, or why not."""
    try:
        read(data)
    except HopError as error:
        return str(error)
    return "taken"


def judged(kind: str, name: str) -> str:
    """Our verdict; where only the Host is missing, that of the request with a Host."""
    data = vectors.request(vectors.folder(*GUNICORN, kind) / name)
    found = verdict(data)
    if found == NO_HOST:
        found = verdict(data.replace(b"\r\n", b"\r\nHost: example.com\r\n", 1))
    return found


@pytest.mark.parametrize("name", vectors.names(*GUNICORN, "valid"))
def test_what_gunicorn_takes_is_taken_or_refused_for_a_reason(name: str) -> None:
    found = judged("valid", name)
    assert (found != "taken") is (name in STRICTER), f"{found}; {STRICTER.get(name)}"


@pytest.mark.parametrize("name", vectors.names(*GUNICORN, "invalid"))
def test_what_gunicorn_refuses_is_refused_or_taken_for_a_reason(name: str) -> None:
    found = judged("invalid", name)
    assert (found == "taken") is (name in MILDER), f"{found}; {MILDER.get(name)}"


def test_every_written_decision_is_about_a_vector() -> None:
    known = {*vectors.names(*GUNICORN, "valid"), *vectors.names(*GUNICORN, "invalid")}
    if known == {""}:
        vectors.folder(*GUNICORN, "valid")
    assert {*STRICTER, *MILDER} <= known

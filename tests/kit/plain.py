"""The plain readers beside the strict reading: what a plain head may be, checked against `h1` for any bytes."""

from __future__ import annotations

from sidecar.hop import Headers
from sidecar.http.canonical import canonical_target, opaque_target, request_host
from sidecar.http.h1 import H1Client, H1Server
from sidecar.http.headers import end_to_end, first, tokens, without_reserved
from sidecar.http.message import NEED_DATA, End, RequestHead, ResponseHead
from sidecar.http.plain import CHUNKED, MORE, OTHER, JudgedReader, OpaqueReader, PlainRequest, headers_of
from sidecar.http.plain_answers import AnswerReader, PlainResponse
from sidecar.proxy.forwarding import VIA, outgoing_headers

BYTES, LINES = 2000, 24
READERS = {reader: reader(BYTES, LINES) for reader in (JudgedReader, OpaqueReader)}


def strictly(data: bytes) -> tuple[RequestHead, H1Server]:
    """The request head at the front of these bytes. Raises HopError, or ValueError where there is none yet."""
    codec = H1Server(BYTES, LINES)
    codec.receive(data)
    head = codec.next_event()
    if not isinstance(head, RequestHead):
        raise ValueError(f"no head but {head}")
    return head, codec


def one_order(headers: Headers) -> Headers:
    """Fields in an order that does not tell where a writer puts Host and framing, which mean the same anywhere."""
    moved = (b"host", b"transfer-encoding")
    return [field for field in headers if field[0] in moved] + [field for field in headers if field[0] not in moved]


def written(head: RequestHead, target: bytes, headers: Headers) -> RequestHead:
    """The request as h1 sends it on, read again."""
    codec = H1Client(BYTES, LINES)
    return strictly(codec.begin(RequestHead(head.method, target, headers)))[0]


def check_request(found: PlainRequest, data: bytes, start: int, *, judged: bool) -> None:
    """Everything that a plain head says is what the strict reading says of the same bytes."""
    head, codec = strictly(data[start:])
    assert found.start == start
    assert (found.method, found.target, head.version) == (head.method.decode(), head.target.decode(), b"1.1")
    assert headers_of(data, found) == head.headers
    assert not head.expects_continue
    assert (CHUNKED if head.body and head.length is None else head.length or 0) == found.length
    assert data[start : found.end].endswith(b"\r\n\r\n")
    if head.body:
        with_body = H1Server(BYTES, LINES)
        with_body.receive(data[start : found.end])
        assert with_body.next_event() == head
        assert with_body.next_event() is NEED_DATA
    else:
        assert isinstance(codec.next_event(), End)
        assert codec.trailing() == data[found.end :]
        codec.send_head(ResponseHead(200, [(b"content-length", b"0")]))
        codec.send_end()
        assert codec.reusable is not found.close
    target = (canonical_target if judged else opaque_target)(head.target, found.method)
    hosts = [value for name, value in head.headers if name == b"host"]
    assert (found.host, found.port) == request_host(target, hosts, "1.1")
    assert found.segments == target.segments
    assert (found.via or []) == tokens(head.headers, VIA)
    assert (found.content_type or b"").strip(b" \t") == (first(head.headers, b"content-type") or b"")
    assert found.keyed is (first(head.headers, b"idempotency-key") is not None)
    headers = outgoing_headers(head)
    assert not tokens(headers, b"upgrade")
    lines = found.line + (b"" if judged else b"Host: " + hosts[0] + b"\r\n") + found.fields + b"\r\n"
    again, slow = strictly(lines)[0], written(head, target.origin_form, headers)
    assert (again.method, again.target, again.length, again.body) == (slow.method, slow.target, slow.length, slow.body)
    assert one_order(again.headers) == one_order(slow.headers)
    if judged:
        assert (first(head.headers, b"sec-fetch-site") or b"").lower() != b"cross-site"


def check_answer(found: PlainResponse, data: bytes, *, to_head: bool) -> None:
    """The same for the head of an answer."""
    upstream = H1Client(BYTES, LINES)
    upstream.begin(RequestHead(b"HEAD" if to_head else b"GET", b"/", [(b"host", b"h")]))
    upstream.send_end()
    upstream.receive(data[: found.size])
    head = upstream.next_event()
    assert isinstance(head, ResponseHead)
    assert head.status == found.status >= 200
    after = upstream.next_event()
    if found.length:
        assert after is NEED_DATA
        upstream.receive(b"x" * found.length if found.length != CHUNKED else b"0\r\n\r\n")
        after = upstream.next_event() if found.length == CHUNKED else (upstream.next_event(), upstream.next_event())[1]
    assert isinstance(after, End)
    assert upstream.clean is not found.close
    downstream = H1Server(BYTES, LINES)
    downstream.receive(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n" if to_head else b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    downstream.next_event(), downstream.next_event()
    headers = without_reserved(end_to_end(head.headers))
    if head.status == 204:
        headers = [field for field in headers if field[0] != b"content-length"]
    slow = downstream.send_head(ResponseHead(head.status, headers, head.reason))
    readings = []
    for raw in (slow, found.lines + b"\r\n"):
        codec = H1Client(BYTES, LINES)
        codec.begin(RequestHead(b"HEAD" if to_head else b"GET", b"/", [(b"host", b"h")]))
        codec.receive(raw)
        read = codec.next_event()
        assert isinstance(read, ResponseHead)
        readings.append((read.status, read.reason, one_order(read.headers)))
    assert readings[0] == readings[1]


def check_bytes(data: bytes, start: int = 0) -> set[object]:
    """Whatever these bytes are, as a request. Returns how it was read: MORE, OTHER, or the kind of a reader."""
    said: set[object] = set()
    for kind, reader in READERS.items():
        found = reader.read(data, start)
        if isinstance(found, PlainRequest):
            check_request(found, data, start, judged=kind is JudgedReader)
            said.add(kind)
            continue
        said.add(found)
        if found is MORE:
            codec = H1Server(BYTES, LINES)
            codec.receive(data[start:] or b"\r")
            assert codec.next_event() is NEED_DATA
        else:
            assert found is OTHER
    return said


def check_answers(data: bytes, *, to_head: bool) -> bool:
    """Whatever these bytes are, as an answer. Returns whether it was plain."""
    reader = AnswerReader(BYTES, LINES)
    plain = False
    for _ in range(2):  # the second time it may be remembered
        found = reader.read(b"old" + data + b"rest", 3, to_head=to_head)
        if isinstance(found, PlainResponse):
            check_answer(found, data, to_head=to_head)
            plain = True
    return plain


def spoilt(data: bytes, at: int, bit: int, how: int, byte: int) -> bytes:
    """The bytes with one bit turned, one byte more, one less, or one doubled."""
    at %= len(data) or 1
    if how == 0:
        return data[:at] + bytes((data[at] ^ (1 << bit),)) + data[at + 1 :]
    if how == 1:
        return data[:at] + bytes((byte,)) + data[at:]
    return data[:at] + data[at + 1 :] if how == 2 else data[:at] + data[at : at + 1] + data[at:]

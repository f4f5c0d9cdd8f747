"""The plain readers: what they say of a head, what they leave to h1, and that bad input costs its length."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, ModuleType

import pytest

from sidecar.conformance.case import Case
from sidecar.conformance.corpus import CASES
from sidecar.http.chunk_relay import ChunkRelay
from sidecar.http.plain import CHUNKED, MORE, OTHER, JudgedReader, OpaqueReader, PlainRequest, Unread, headers_of
from sidecar.http.plain_answers import AnswerReader, PlainResponse
from sidecar.http.plain_stencil import PAUSE, TRIES, Stencil, StencilReader
from tests.kit import llhttp, vectors
from tests.kit.plain import check_answers, check_bytes

HEAD = (
    b"POST /items/7?x=y HTTP/1.1\r\nUser-Agent: a\r\nHost: Orders:80\r\nConnection: Keep-Alive\r\nX-Id:  1 \r\n"
    b"content-type: text/plain\r\nContent-Length: 5\r\nTE: trailers\r\nIdempotency-Key: k\r\nmesh-via: a1,b2\r\n"
    b"Accept: */*\r\n\r\n"
)
KEPT_BEFORE_HOST, KEPT_AFTER = b"User-Agent: a\r\n", (
    b"X-Id:  1 \r\ncontent-type: text/plain\r\nContent-Length: 5\r\nIdempotency-Key: k\r\nAccept: */*\r\n"
)  # fmt: skip


def judged(data: bytes, start: int = 0) -> PlainRequest:
    found = JudgedReader(32 * 1024, 100).read(data, start)
    assert isinstance(found, PlainRequest)
    return found


def opaque(data: bytes) -> PlainRequest:
    found = OpaqueReader(32 * 1024, 100).read(data)
    assert isinstance(found, PlainRequest)
    return found


def test_a_judged_head_is_read_and_spliced() -> None:
    found = judged(b"before" + HEAD + b"hello", 6)
    assert found == PlainRequest(
        start=6, end=6 + len(HEAD), method="POST", target="/items/7?x=y", segments=("items", "7"), host="orders",
        port=80, length=5, close=False, via=[b"a1", b"b2"], content_type=b"text/plain", keyed=True, within=None,
        line=b"POST /items/7?x=y HTTP/1.1\r\n", fields=KEPT_BEFORE_HOST + b"Host: Orders:80\r\n" + KEPT_AFTER,
    )  # fmt: skip
    assert headers_of(b"before" + HEAD, found)[1:4] == [
        (b"host", b"Orders:80"), (b"connection", b"Keep-Alive"), (b"x-id", b"1"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "within"), [(b"30S", 30.0), (b" 250m", 0.25), (b"0n", 0.0), (b"99999999H", 359999996400.0)]
)
def test_what_is_left_for_a_request_is_read_and_does_not_travel_on(said: bytes, within: float) -> None:
    head = b"GET /a HTTP/1.1\r\nHost: h\r\nMesh-Deadline:" + said + b"\r\nA: b\r\nmesh-via: a1\r\n\r\n"
    found = judged(head)
    assert (found.within, found.fields, found.via) == (within, b"Host: h\r\nA: b\r\n", [b"a1"])
    assert OpaqueReader(32 * 1024, 100).read(head) is OTHER  # an application has no say in it


def test_an_opaque_head_leaves_host_to_the_sender() -> None:
    found = opaque(HEAD)
    assert (found.segments, found.host, found.port) == ((), "orders", 80)
    assert (found.line, found.fields) == (b"POST /items/7?x=y HTTP/1.1\r\n", KEPT_BEFORE_HOST + KEPT_AFTER)
    third_party = opaque(b"GET //a;b/../%zz?c HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (third_party.target, third_party.fields) == ("//a;b/../%zz?c", b"")


def test_absolute_form_goes_on_as_origin_form() -> None:
    found = opaque(b"GET http://Orders:80/a?b HTTP/1.1\r\nHost: Orders:80\r\nX: y\r\n\r\n")
    assert (found.target, found.line) == ("http://Orders:80/a?b", b"GET /a?b HTTP/1.1\r\n")
    assert (found.host, found.port, found.fields) == ("orders", 80, b"X: y\r\n")


@pytest.mark.parametrize("value", [b"close", b"Close", b"CLOSE"])
def test_a_caller_that_will_close_says_so(value: bytes) -> None:
    found = judged(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: " + value + b"\r\n\r\n")
    assert found.close
    assert found.fields == b"Host: h\r\n"


def test_a_chunked_request_keeps_its_framing_line() -> None:
    found = judged(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert found.length == CHUNKED
    assert found.fields.endswith(b"Transfer-Encoding: chunked\r\n")


@pytest.mark.parametrize(
    ("path", "segments"),
    [(b"/", ("",)), (b"/a/", ("a", "")), (b"/a%20b/c", ("a b", "c")), (b"/.well-known/x", (".well-known", "x")),
     (b"/%C3%A4", ("ä",)), (b"/a..b/...", ("a..b", "..."))],
)  # fmt: skip
def test_segments_are_those_of_the_canonical_reading(path: bytes, segments: tuple[str, ...]) -> None:
    assert judged(b"GET " + path + b" HTTP/1.1\r\nHost: h\r\n\r\n").segments == segments


ODD_LINES = [
    b"Host: h\r\nHost: h", b"X: y", b"Host:h\x00", b"Host: ", b"Host: h h", b"Host:\th", b"Host : h", b"Host: 127.1",
    b"Host: h\r\n X: folded", b"Host: h\r\nX : y", b"Host: h\r\n: y", b"Host: h\r\nX", b"Host: h\nX: y",
    b"Host: h\r\nX: a\rb", b"Host: h\r\nX: a\x7f", b"Host: h\r\nX\xe4: y",
    b"Host: h\r\nContent-Length: 1\r\nContent-Length: 1", b"Host: h\r\nContent-Length: 01",
    b"Host: h\r\nContent-Length: 1 ",
    b"Host: h\r\nContent-Length: +1", b"Host: h\r\nContent-Length: 1,1", b"Host: h\r\nContent-Length:",
    b"Host: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked", b"Host: h\r\nTransfer-Encoding: gzip, chunked",
    b"Host: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"Host: h\r\nTransfer-Encoding: Chunked",
    b"Host: h\r\ncontent_length: 1", b"Host: h\r\nTransfer_Encoding: chunked", b"Host: h\r\nExpect: 100-continue",
    b"Host: h\r\nUpgrade: websocket\r\nConnection: upgrade", b"Host: h\r\nConnection: x-y", b"Host: h\r\nUpgrade: h2c",
    b"Host: h\r\nConnection: close\r\nConnection: close", b"Host: h\r\nConnection: close, te",
    b"Host: h\r\nTE:\r\nTE:",
    b"Host: h\r\nHTTP2-Settings: x", b"Host: h\r\nProxy-Authorization: x", b"Host: h\r\nmesh-deadline: 1",
    b"Host: h\r\nmesh-deadline: 1S\r\nmesh-deadline: 1S", b"Host: h\r\nmesh-deadline: 123456789S",
    b"Host: h\r\nmesh-timeout: 1S",
    b"Host: h\r\nmesh_deadline: 1S", b"Host: h\r\nmesh-deadline: 1s", b"Host: h\r\nmesh-deadline:  1S",
    b"Host: h\r\nmesh_via: a", b"Host: h\r\nmesh-via: a\r\nmesh-via: b", b"Host: h\r\nmesh-via: A",
    b"Host: h\r\nMesh-: x", b"Host: h\r\nmesh-via: " + b",".join([b"a"] * 32),
    b"Host: h\r\nX-Forwarded-Client-Cert: x", b"Host: h\r\nx_forwarded-client_cert: x", b"Host: h\r\nmesh-via: a, b",
    b"Host: h\r\nContent-Type: a\r\nContent-Type: a", b"Host: h\r\nAuthorization: a\r\nAuthorization: a",
    b"Host: h\r\nsec-fetch-site: cross-site",
]  # fmt: skip
ODD_FIRST = [
    b"GET / HTTP/1.0", b"GET / HTTP/1.1 ", b"GET  / HTTP/1.1", b" GET / HTTP/1.1", b"get / HTTP/1.1",
    b"TRACE / HTTP/1.1",
    b"CONNECT h:1 HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET /\xe4 HTTP/1.1", b"GET /#x HTTP/1.1", b"GET /a#x HTTP/1.1",
    b"GET h HTTP/1.1", b"GET / HTTP/2.0", b"PRI * HTTP/2.0", b"GET /\x00 HTTP/1.1", b"\r\nGET / HTTP/1.1",
    b"GET ? HTTP/1.1",
    b"GET http://other/ HTTP/1.1", b"GET https://h/ HTTP/1.1", b"GET http://h HTTP/1.1", b"GET http://u@h/ HTTP/1.1",
]  # fmt: skip
JUDGED_ONLY = [b"//a", b"/a/../b", b"/.", b"/%2e", b"/a;b", b"/%2f", b"/%00", b"/%", b"/%2561", b"/a\\b", b"/%ff"]


@pytest.mark.parametrize("lines", ODD_LINES)
def test_odd_lines_are_for_h1(lines: bytes) -> None:
    assert check_bytes(b"GET / HTTP/1.1\r\n" + lines + b"\r\n\r\n") == {OTHER}


@pytest.mark.parametrize("first", ODD_FIRST)
def test_odd_first_lines_are_for_h1(first: bytes) -> None:
    assert check_bytes(first + b"\r\nHost: h\r\n\r\n") == {OTHER}


@pytest.mark.parametrize("path", JUDGED_ONLY)
def test_a_path_that_needs_leniency_is_for_h1(path: bytes) -> None:
    assert JudgedReader(2000, 20).read(b"GET " + path + b" HTTP/1.1\r\nHost: h\r\n\r\n") is OTHER


def test_the_limits_are_those_of_h1_to_the_byte_and_the_line() -> None:
    head = b"GET / HTTP/1.1\r\nHost: h\r\nX: y\r\nX: z\r\n\r\n"
    assert isinstance(JudgedReader(len(head) - 4, 3).read(head), PlainRequest)
    assert JudgedReader(len(head) - 5, 3).read(head) is OTHER
    assert JudgedReader(len(head), 2).read(head) is OTHER
    answer = b"HTTP/1.1 204 No\r\nA: b\r\nC: d\r\n\r\n"
    assert isinstance(AnswerReader(len(answer) - 4, 2).read(answer), PlainResponse)
    assert AnswerReader(len(answer) - 5, 2).read(answer) is OTHER
    assert AnswerReader(len(answer), 1).read(answer) is OTHER


def test_every_beginning_of_a_plain_head_is_waited_for() -> None:
    for cut in range(len(HEAD)):
        assert check_bytes(HEAD[:cut]) == {MORE}, HEAD[:cut]
    assert check_bytes(HEAD) == {JudgedReader, OpaqueReader}


def test_a_long_beginning_is_for_h1_which_reads_it_in_linear_time() -> None:
    assert JudgedReader(32 * 1024, 100).read(b"GET /" + b"a" * 5000) is OTHER


@pytest.mark.parametrize(
    "beginning", [b"\x16\x03\x01", b"GXT", b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nX: a\rb", b"\r\n"]
)
def test_what_will_never_be_plain_is_not_waited_for(beginning: bytes) -> None:
    assert JudgedReader(2000, 20).read(beginning) is OTHER


# ---- answers -------------------------------------------------------------------------------------------------------

ANSWER = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\nKeep-Alive: timeout=5\r\nX: y\r\n\r\n"


def test_an_answer_is_read_spliced_and_remembered() -> None:
    reader = AnswerReader(2000, 20)
    found = reader.read(b"12" + ANSWER + b"hello", 2)
    assert found == PlainResponse(len(ANSWER), 200, 5, False, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n")
    assert reader.read(ANSWER) is found
    to_head = reader.read(ANSWER, to_head=True)
    assert isinstance(to_head, PlainResponse)
    assert to_head.length == 0


@pytest.mark.parametrize(
    ("lines", "length"),
    [(b"200 OK\r\nTransfer-Encoding: chunked", CHUNKED), (b"204 No\r\nX: y", 0), (b"304 Not\r\nContent-Length: 9", 0)],
)
def test_where_the_body_of_an_answer_ends(lines: bytes, length: int) -> None:
    found = AnswerReader(2000, 20).read(b"HTTP/1.1 " + lines + b"\r\n\r\n")
    assert isinstance(found, PlainResponse)
    assert found.length == length


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 100 Go", b"HTTP/1.1 101 Go\r\nUpgrade: x", b"HTTP/1.0 200 OK\r\nContent-Length: 1",
     b"HTTP/1.1 204 No\r\nContent-Length: 0", b"HTTP/1.1 304 Not\r\nTransfer-Encoding: chunked",
     b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked", b"HTTP/1.1 200\r\nContent-Length: 1",
     b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1", b"HTTP/1.1 600 x\r\nContent-Length: 1",
     b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nmesh-decision-id: a-b", b"HTTP/1.1 200 OK\nContent-Length: 1",
     b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nUpgrade: h2", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: x",
     b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n X: y", b"HTTP/1.1 200 O\x00K\r\nContent-Length: 1"],
)  # fmt: skip
def test_odd_answers_are_for_h1(head: bytes) -> None:
    assert AnswerReader(2000, 20).read(head + b"\r\n\r\n") is OTHER


def test_what_is_remembered_is_bounded_and_holds_no_secret() -> None:
    reader = AnswerReader(32 * 1024, 100)
    for line in (b"Set-Cookie: s", b"set-cookie: s", b"LOCATION: s", b"X: " + b"s" * 1024):
        assert isinstance(reader.read(ANSWER[:-2] + line + b"\r\n\r\n"), PlainResponse)
    assert reader.remembered == 0
    for number in range(1000):
        reader.read(ANSWER[:-2] + b"N: %d\r\n\r\n" % number)
        reader.read(ANSWER[:-2] + b"N: %d\r\n\r\n" % number, to_head=True)
    assert 0 < reader.remembered <= 512


# ---- stencils ------------------------------------------------------------------------------------------------------


class Counting(JudgedReader):
    """Counts what it is asked."""

    __slots__ = ("asked",)

    def __init__(self) -> None:
        super().__init__(2000, 20)
        self.asked = 0

    def read(self, data: bytes, start: int = 0) -> PlainRequest | Unread:
        self.asked += 1
        return super().read(data, start)


def of_one_kind(number: int, *more: bytes) -> bytes:
    lines = (b"Host: h", b"X-Id: %d" % number, b"Authorization: Bearer s3cr3t", b"Accept: */*", *more, b"mesh-via: a1")
    return b"\r\n".join((b"GET /items/%d HTTP/1.1" % number, *lines, b"", b""))


def test_a_third_head_of_a_kind_is_compared_and_not_read() -> None:
    reader = Counting()
    learned = StencilReader(reader)
    found = [learned.read(of_one_kind(number)) for number in range(5)]
    assert reader.asked == 2
    assert found == [JudgedReader(2000, 20).read(of_one_kind(number)) for number in range(5)]
    assert isinstance(learned.read(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"), PlainRequest)
    assert reader.asked == 3


def reachable(thing: object) -> list[object]:
    """Everything that this object holds, but for classes and modules."""
    found = [thing]
    for one in found:
        if not isinstance(one, type | ModuleType | FunctionType | BuiltinFunctionType):
            found += [held for held in gc.get_referents(one) if not any(held is known for known in found)]
    return found


def test_a_stencil_never_keeps_what_may_be_a_secret() -> None:
    learned = StencilReader(JudgedReader(2000, 20))
    for number in range(3):
        learned.read(of_one_kind(number, b"X-Api-Key: s3cr3t", b"cookie: s3cr3t", b"X-Auth-Token: s3cr3t"))
        kept = [thing for thing in reachable(learned) if isinstance(thing, bytes)]
        assert any(b"Accept: */*" in thing or thing == b"Accept:" for thing in kept)
        assert not any(b"s3cr3t" in thing for thing in kept)


def test_heads_that_never_repeat_themselves_are_left_alone_for_a_while() -> None:
    reader = Counting()
    learned = StencilReader(reader)
    for number in range(2 + PAUSE):
        learned.read(of_one_kind(number, b"N%d: x" % number))
    assert reader.asked == 2 + PAUSE
    assert [thing for thing in reachable(learned) if isinstance(thing, Stencil)] == []
    for number in range(5):
        learned.read(of_one_kind(number))
    assert reader.asked == 2 + PAUSE + 2


def test_callers_of_many_kinds_do_not_make_stencils_without_end() -> None:
    reader = Counting()
    learned = StencilReader(reader)
    for number in range(TRIES * 2):
        learned.read(of_one_kind(number, b"N%d: x" % (number // 2)))
    made = [thing for thing in reachable(learned) if isinstance(thing, Stencil)]
    for number in range(TRIES * 2, PAUSE):
        learned.read(of_one_kind(number, b"N%d: x" % (number // 2)))
    assert [thing for thing in reachable(learned) if isinstance(thing, Stencil)] == made


@pytest.mark.parametrize(
    "third",
    [of_one_kind(3, b"Content-Length: 4"), of_one_kind(3).replace(b"/items/3", b"/../3"), of_one_kind(3)[:-2],
     of_one_kind(3).replace(b"/items", b"http://h/items"), of_one_kind(3).replace(b"X-Id: 3", b"X-Id: " + b"3" * 300),
     of_one_kind(3).replace(b"GET", b"GXT"), of_one_kind(3).replace(b"X-Id: 3", b"X-Id: 3\x00"),
     of_one_kind(3).replace(b"X-Id: 3", b"X-Id: 3\r\nX-Id: 3"), of_one_kind(3).replace(b"via: a1", b"via: b1"),
     of_one_kind(3).replace(b"/1.1", b"/1.0"), of_one_kind(3).replace(b"Host: h", b"Host: i")],
)  # fmt: skip
def test_a_stencil_takes_nothing_that_its_reader_reads_otherwise(third: bytes) -> None:
    for reader in (JudgedReader(300, 20), OpaqueReader(300, 20)):
        learned = StencilReader(reader)
        learned.read(of_one_kind(1))
        learned.read(of_one_kind(2))
        assert learned.read(third) == reader.read(third)


@pytest.mark.parametrize(
    "line", [b"Content-Length: %d", b"Content-Type: %d", b"mesh-via: %d", b"Host: h:%d", b"sec-fetch-site: %d"]
)
def test_a_line_that_says_something_is_no_hole(line: bytes) -> None:
    reader = Counting()
    learned = StencilReader(reader)
    for number in range(1, 6):
        head = b"POST /%d HTTP/1.1\r\n%b\r\nX-Id: %d\r\n" % (number, line % number, number)
        head += b"\r\n" if line.startswith(b"Host") else b"Host: h\r\n\r\n"
        assert learned.read(head) == JudgedReader(2000, 20).read(head)
    assert reader.asked == 5


def test_absolute_form_is_read_and_never_compared() -> None:
    reader = OpaqueReader(2000, 20)
    learned = StencilReader(reader)
    head = b"GET http://h/a HTTP/1.1\r\nX-Id: 1\r\nHost: h\r\n\r\n"
    for _ in range(3):
        found = learned.read(head)
        assert found == reader.read(head)
        assert isinstance(found, PlainRequest)
    # what would fit, had its header lines been looked for behind the line that goes on, which is shorter
    trick = found.line + b"TP/1.1\r\nz\r\nX-Id: 1\r\nHost: h\r\n\r\n"
    assert reader.read(trick) is OTHER
    assert learned.read(trick) is OTHER


# ---- everybody's tricks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_corpus_is_never_read_otherwise(case: Case) -> None:
    data = case.bytes_for(b"app")
    check_bytes(data)
    for cut in range(min(len(data), 400)):
        check_bytes(data[:cut])


@pytest.mark.parametrize("kind", ["valid", "invalid"])
def test_gunicorns_vectors_are_never_read_otherwise(kind: str) -> None:
    for path in sorted(vectors.folder("http1", "gunicorn", kind).glob("*.http")):
        whole = vectors.request(path)
        for data in (whole, whole.replace(b"\r\n", b"\r\nHost: example.com\r\n", 1)):
            check_bytes(data)


def test_llhttps_vectors_are_never_read_otherwise() -> None:
    plain = 0
    for path in sorted(vectors.folder("http1", "llhttp", "request").glob("*.md")):
        for message in llhttp.messages(path):
            for data in (message.raw, message.raw.replace(b"\r\n", b"\r\nHost: example.com\r\n", 1)):
                plain += JudgedReader in check_bytes(data)
    for path in sorted(vectors.folder("http1", "llhttp", "response").glob("*.md")):
        for message in llhttp.messages(path):
            plain += check_answers(message.raw, to_head=False) + check_answers(message.raw, to_head=True)
    assert plain > 20, "the vectors say nothing of the plain readers"


# ---- hostile input costs its length --------------------------------------------------------------------------------

HOSTILE: dict[str, Callable[[int], bytes]] = {
    "long path": lambda n: b"GET /" + b"a/" * (n // 2),
    "long path and no version": lambda n: b"GET /" + b"a" * n + b" HTTP/1.\r\n\r\n",
    "long query": lambda n: b"GET /?" + b"?" * n + b"\x00 HTTP/1.1\r\n\r\n",
    "long authority": lambda n: b"GET http://" + b"a." * (n // 2) + b" HTTP/1.1\r\nHost: h\r\n\r\n",
    "long name": lambda n: b"GET / HTTP/1.1\r\nHost: h\r\n" + b"a" * n + b"\r\n\r\n",
    "long value": lambda n: b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a \t" * (n // 3) + b"\x00\r\n\r\n",
    "long host": lambda n: b"GET / HTTP/1.1\r\nHost: " + b"h." * (n // 2) + b"\r\n\r\n",
    "long via": lambda n: b"GET / HTTP/1.1\r\nHost: h\r\nmesh-via: " + b"a," * (n // 2) + b"\r\n\r\n",
    "long length": lambda n: b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: " + b"1" * n + b"\r\n\r\n",
    "many lines": lambda n: b"GET / HTTP/1.1\r\nHost: h\r\n" + b"a: b\r\n" * (n // 6) + b"\x00\r\n\r\n",
    "many known lines": lambda n: b"GET / HTTP/1.1\r\n" + b"te: b\r\nhost: h\r\n" * (n // 16) + b"\r\n",
    "many nearly known": lambda n: b"GET / HTTP/1.1\r\nHost: h\r\n" + b"content-lengtH\r\n" * (n // 16) + b"\r\n",
    "blanks": lambda n: b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: " + b" " * n + b"5\r\n\r\n",
    "line ends": lambda n: b"GET / HTTP/1.1" + b"\r\n" * (n // 2),
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_bad_input_costs_its_length(shape: str) -> None:
    """Sixteen times the bytes cost about sixteen times the time; what is quadratic would cost 256 times."""
    readers = (JudgedReader(1 << 24, 10**6).read, OpaqueReader(1 << 24, 10**6).read, AnswerReader(1 << 24, 10**6).read)
    short, long = HOSTILE[shape](1 << 14), HOSTILE[shape](1 << 18)

    def cost(data: bytes) -> float:
        took = []
        for _ in range(5):
            began = time.process_time()
            for read in readers:
                read(data)
                read(b"HTTP/1.1 200 OK" + data[14:])
            took.append(time.process_time() - began)
        return min(took)

    assert cost(long) < 64 * cost(short) + 0.01


def test_tiny_chunks_cost_their_length() -> None:
    def cost(count: int) -> float:
        took = []
        for _ in range(3):
            data, out = b"1\r\nx\r\n" * count + b"0\r\n\r\n", []
            began = time.process_time()
            assert ChunkRelay(1000, 10).pass_on(data, out) == len(data)
            took.append(time.process_time() - began)
        return min(took)

    assert cost(16_000) < 64 * cost(1000) + 0.01

"""Cases in HTTP/2: the frames are what the case says, by another's reading; and answers are read as they are."""

from __future__ import annotations

import datetime
import re
import socket
import struct
import threading
from collections import Counter

import hpack
import pytest
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame

from sidecar.conformance.case import HOST
from sidecar.conformance.corpus import CASES, H2_CASES, choose, digest
from sidecar.conformance.h2answers import Conversation
from sidecar.conformance.h2case import GREETING, Head, case, fields
from sidecar.conformance.judge import Observation, Outcome, judge
from sidecar.conformance.origin import Origin
from sidecar.conformance.report import corpus_table, document, groups_table
from sidecar.conformance.runner import Target, Unreachable, run
from tests.kit.h2_wire import ACK, END_HEADERS, OK, PING, data, frame, frames_of, headers, settings, word

SUBJECTS = {
    "h2-control", "h2-tunnels", "h2-frames", "h2-pseudo", "h2-hidden", "h2-names", "h2-values", "h2-hosts", "h2-paths",
    "h2-fields", "h2-lengths", "h2-chunks", "h2-trailers", "h2-protocol",
}  # fmt: skip


def test_every_case_has_its_own_name_a_subject_a_section_and_one_sentence_why() -> None:
    assert [name for name, count in Counter(one.name for one in H2_CASES).items() if count > 1] == []
    assert {one.group for one in H2_CASES} == SUBJECTS
    for one in H2_CASES:
        assert re.fullmatch(r"h2-[a-z]+/[a-z0-9.-]+", one.name), one.name
        assert re.match(r"RFC \d{4} [0-9C]|D\d+", one.section), one.name
        assert one.why[-1] in ".?", one.name
        assert len(one.why) <= 130, one.name
        assert one.accept or not one.must_pass, one.name


# What h2spec goes through: its generic part (1 to 5), HTTP/2 (3 to 8) by the sections of RFC 9113, and HPACK (2 to 6).
SECTIONS = {
    "RFC 9113": (
        "3.4 4.1 4.2 4.3 5.1 5.1.1 5.1.2 5.3 5.4.1 5.5 6.1 6.2 6.3 6.4 6.5 6.5.2 6.5.3 6.6 6.7 6.8 6.9 6.9.1 6.9.2 "
        "6.10 7 8.1 8.1.1 8.2.1 8.2.2 8.3 8.3.1 8.4 8.5"
    ),
    "RFC 7541": "2.3.3 4.2 5.1 5.2 6.1 6.2 6.3",
}


@pytest.mark.parametrize("rfc", SECTIONS)
def test_every_section_of_the_usual_suite_has_a_case(rfc: str) -> None:
    found = {one.section for one in H2_CASES}
    assert [section for section in SECTIONS[rfc].split() if f"{rfc} {section}" not in found] == []


def test_the_two_corpora_are_chosen_and_named_apart() -> None:
    assert choose((), ours=True, http2=True) == list(H2_CASES)
    assert not {one.name for one in CASES} & {one.name for one in H2_CASES}
    assert digest() != digest(H2_CASES)
    assert corpus_table(http2=True).count("\n") == len(H2_CASES) + 2


def test_a_head_that_is_cut_padded_and_weighted_is_the_same_head() -> None:
    one = case("a/b", "", "", Head(fields((b"x-a", HOST)), end=False, cuts=(2, 2, 9), padding=7, priority=True))
    found = frames_of(one.bytes_for(b"orders"))
    assert [type(frame) for frame in found] == [HeadersFrame, *[ContinuationFrame] * 3]
    first = found[0]
    assert isinstance(first, HeadersFrame)
    assert (first.pad_length, sorted(first.flags)) == (7, ["PADDED", "PRIORITY"])
    assert ["END_HEADERS" in frame.flags for frame in found] == [False, False, False, True]
    block = b"".join(frame.data for frame in found if isinstance(frame, (HeadersFrame, ContinuationFrame)))
    assert dict(hpack.Decoder().decode(block, raw=True))[b"x-a"] == b"orders"


def test_the_target_that_was_sent_is_the_first_path() -> None:
    assert case("a/b", "", "", Head(fields(path=b"/" + HOST))).sent_target(b"app") == b"/app"
    assert case("a/b", "", "").sent_target(b"app") == b""


def test_an_answer_is_read_across_frames_behind_a_1xx_and_with_trailers() -> None:
    heard = Conversation((1, 3))
    block = hpack.Encoder().encode([(b":status", b"200"), (b"x-long", b"a" * 60)])
    said = (
        settings((4, 9)), headers(1, [(b":status", b"103")], end=False), frame(1, 0, 1, block[:5]),
        frame(9, END_HEADERS, 1, block[5:]), data(1, b"bo", padding=3), frame(PING, 0, 0, b"12345678"), data(1, b"dy"),
    )  # fmt: skip
    replies = b"".join(heard.feed(bytes((byte,))) for byte in b"".join(said))
    assert replies == frame(4, ACK, 0) + frame(PING, ACK, 0, b"12345678")
    assert not heard.done
    heard.feed(headers(1, [(b"x-sum", b"1")]) + frame(3, 0, 3, word(1)))
    assert heard.done
    assert [(one.status, one.body, one.whole) for one in heard.answers] == [(200, b"body", True)]
    assert (heard.reset, heard.failed) == ("PROTOCOL_ERROR", False)


@pytest.mark.parametrize(("code", "failed"), [(0, False), (1, True)])
def test_a_goaway_ends_the_connection_only_with_an_error(code: int, failed: bool) -> None:
    heard = Conversation((1,))
    heard.feed(frame(7, 0, 0, struct.pack("!LL", 0, code)))
    assert heard.failed is failed
    assert (heard.done, heard.answers) == (False, [])


@pytest.mark.parametrize(
    ("observed", "outcome", "detail"),
    [
        (Observation([], False, [], reset="CANCEL"), Outcome.RESET, "CANCEL"),
        (Observation([], True, [], goaway="PROTOCOL_ERROR"), Outcome.CLOSED, "PROTOCOL_ERROR"),
        (Observation([], False, []), Outcome.HELD, ""),
    ],
)
def test_a_reset_and_a_goaway_are_safe_ways_to_refuse(observed: Observation, outcome: Outcome, detail: str) -> None:
    verdict = judge(H2_CASES[-1], observed, b"app", b"app")
    assert (verdict.outcome, verdict.detail, verdict.passed) == (outcome, detail, True)


def naive(sock: socket.socket, origin: tuple[str, int]) -> None:
    """A proxy that writes each head of HTTP/2 down as a head of HTTP/1, byte for byte, and DATA behind it."""
    received = b""
    while len(received) < len(GREETING) + 9:
        if not (more := sock.recv(65536)):
            return
        received += more
    sent = frames_of(received)
    heads = {one.stream_id: one for one in sent if isinstance(one, HeadersFrame)}
    body = b"".join(one.data for one in sent if isinstance(one, DataFrame))
    for stream, head in heads.items():
        found = dict(hpack.Decoder().decode(head.data, raw=True))
        line = found.pop(b":method") + b" " + found.pop(b":path") + b" HTTP/1.1\r\nHost: " + found.pop(b":authority")
        rest = b"".join(b"\r\n" + name + b": " + value for name, value in found.items() if name[:1] != b":")
        with socket.create_connection(origin) as upstream:
            upstream.sendall(line + rest + b"\r\n\r\n" + body)
            upstream.settimeout(0.3)
            answer = upstream.recv(65536).partition(b"\r\n\r\n")[2]
            sock.sendall(settings() + headers(stream, OK, end=False) + data(stream, answer, end=True))


def test_the_suite_finds_what_a_naive_downgrade_lets_through() -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def serve(origin: tuple[str, int]) -> None:
        while True:
            try:
                sock, _ = server.accept()
            except OSError:
                return
            with sock:
                try:
                    naive(sock, origin)
                except (OSError, KeyError):
                    pass

    with Origin() as origin:
        thread = threading.Thread(target=serve, args=(origin.address,), daemon=True)
        thread.start()
        target = Target(f"http://127.0.0.1:{server.getsockname()[1]}", host="app", http2=True)
        names = ("control/get", "lengths/zero", "hidden/value-line", "hidden/path-lf", "fields/connection")
        verdicts = run(target, choose(tuple(f"h2-{name}" for name in names), ours=False, http2=True), origin)
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)
    found = {verdict.case.name: verdict.outcome for verdict in verdicts}
    assert found.pop("h2-control/get") is Outcome.FORWARDED
    assert found.pop("h2-lengths/zero") is Outcome.SMUGGLED
    assert found.pop("h2-hidden/path-lf") is Outcome.MALFORMED
    assert set(found.values()) == {Outcome.PASSED_ON}
    told = document("naive", verdicts, origin=True, when=datetime.date(2026, 1, 1))
    assert told["corpus"] == digest(H2_CASES)
    assert "| h2-control | 1 of 1 |" in groups_table([told])


def test_who_does_not_agree_on_h2_is_unreachable() -> None:
    with Origin() as origin:
        target = Target(f"http://127.0.0.1:{origin.address[1]}", http2=True, patience=0.2)
        with pytest.raises(Unreachable):
            run(target, H2_CASES[:1], None)



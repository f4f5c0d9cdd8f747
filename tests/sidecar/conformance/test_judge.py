"""The judgement as a table: what was seen, and what it is called."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.conformance.answers import Answer, read_answers
from sidecar.conformance.case import HOST, Case, Reading, Wanted
from sidecar.conformance.judge import Observation, Outcome, judge
from sidecar.conformance.origin import Seen

OK, NO = [Answer(200)], [Answer(400)]
ONE: tuple[Reading, ...] = ((Wanted(),),)
GOOD = Seen(1, b"GET", b"/c", b"HTTP/1.1", ((b"host", b"app"),))


def seen(method: bytes = b"GET", target: bytes = b"/c", body: bytes = b"", **fields: bytes) -> Seen:
    named = tuple((name.replace("__", "-").encode(), value) for name, value in fields.items())
    return Seen(1, method, target, b"HTTP/1.1", ((b"host", b"app"), *named), body)


def outcome(
    accept: tuple[Reading, ...], got: list[Seen] | None, answers: list[Answer], *, closed: bool = False, **more: Any
) -> Outcome:
    case = Case("a/b", "RFC", "why.", b"GET /raw HTTP/1.1\r\n\r\n", accept, must_pass=more.get("must_pass", False))
    return judge(case, Observation(answers, closed, got, more.get("canary", "")), b"app", b"app").outcome


@pytest.mark.parametrize(
    ("accept", "got", "answers", "closed", "expected"),
    [
        ((), [], NO, False, Outcome.REFUSED),
        ((), [], [Answer(501)], True, Outcome.REFUSED),
        ((), [], [], True, Outcome.CLOSED),
        ((), [], [], False, Outcome.HELD),
        ((), [], [Answer(301)], False, Outcome.ANSWERED),
        ((), [GOOD], OK, False, Outcome.PASSED_ON),
        ((), [GOOD], NO, False, Outcome.PASSED_ON),  # the answer does not undo what the origin has read
        (ONE, [GOOD], OK, False, Outcome.FORWARDED),
        ((), [GOOD, GOOD], OK, False, Outcome.SMUGGLED),
        (ONE, [GOOD, GOOD], OK, False, Outcome.SMUGGLED),
        (ONE, [seen(target=b"/d")], OK, False, Outcome.MISREAD),
        (ONE, [seen(target=b"/raw")], OK, False, Outcome.PASSED_ON),  # as it came: the origin may judge
        (ONE, [seen(method=b"POST")], OK, False, Outcome.MISREAD),
        (ONE, [seen(body=b"x")], OK, False, Outcome.MISREAD),
        (ONE, [seen(x__a=b"a spoofed value")], OK, False, Outcome.PASSED_ON),
        (ONE, [Seen(1, malformed="a bare LF")], NO, False, Outcome.MALFORMED),
        (ONE, [GOOD, Seen(1, malformed="a bare LF")], OK, False, Outcome.MALFORMED),
        (((Wanted(without=(b"x-a",)),),), [seen(x_a=b"1")], OK, False, Outcome.PASSED_ON),
        (((Wanted(without=(b"x-a",)),),), [seen(x_b=b"1")], OK, False, Outcome.FORWARDED),
        (((Wanted(fields=((b"x-a", b"1"),)),),), [seen(x__a=b"1")], OK, False, Outcome.FORWARDED),
        (((Wanted(fields=((b"x-a", b"1"),)),),), [GOOD], OK, False, Outcome.PASSED_ON),
        (((Wanted(host=HOST),),), [GOOD], OK, False, Outcome.FORWARDED),
        (((Wanted(host=b"other"),),), [GOOD], OK, False, Outcome.PASSED_ON),
        (((Wanted(),), (Wanted(), Wanted())), [GOOD, GOOD], OK, False, Outcome.FORWARDED),
        ((), None, OK, False, Outcome.PASSED_ON),  # no origin of ours: the number of answers decides
        (ONE, None, OK, False, Outcome.FORWARDED),
        (ONE, None, OK * 2, False, Outcome.SMUGGLED),
        ((), None, NO, False, Outcome.REFUSED),
    ],
)
def test_outcomes(
    accept: tuple[Reading, ...], got: list[Seen] | None, answers: list[Answer], closed: bool, expected: Outcome
) -> None:
    assert outcome(accept, got, answers, closed=closed) is expected


def test_a_field_that_may_come_once_is_counted_in_any_spelling() -> None:
    wanted: tuple[Reading, ...] = ((Wanted(once=(b"content-length",)),),)
    twice = Seen(1, b"GET", b"/c", b"HTTP/1.1", ((b"content-length", b"0"), (b"content_length", b"9")))
    assert outcome(wanted, [twice], OK) is Outcome.PASSED_ON


def test_a_trailer_counts_like_a_field() -> None:
    late = Seen(1, b"GET", b"/c", b"HTTP/1.1", (), b"", ((b"cookie", b"spoofed"),))
    assert outcome(ONE, [late], OK) is Outcome.PASSED_ON


def test_a_good_message_must_be_forwarded_and_a_poisoned_connection_outweighs_all() -> None:
    assert outcome(ONE, [], NO, must_pass=True) is Outcome.NOT_SERVED
    assert outcome(ONE, [GOOD], OK, canary="somebody else's answer") is Outcome.POISONED


LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "methods", "expected"),
    [
        (b"", [b"GET"], []),
        (LENGTH, [b"GET"], [Answer(200, b"hi")]),
        (LENGTH[:-1], [b"GET"], [Answer(200, b"h", whole=False)]),
        (LENGTH + CHUNKED, [b"GET", b"GET"], [Answer(200, b"hi"), Answer(200, b"hi")]),
        (CHUNKED[:-3], [b"GET"], [Answer(200, b"hi", whole=False)]),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH, [b"POST"], [Answer(200, b"hi")]),
        (LENGTH[:-2] + LENGTH, [b"HEAD", b"GET"], [Answer(200), Answer(200, b"hi")]),
        (b"HTTP/1.1 204 No\r\n\r\n" + LENGTH, [b"GET"], [Answer(204), Answer(200, b"hi")]),
        (b"HTTP/1.1 101 Switch\r\n\r\nanything", [b"GET"], [Answer(101)]),
        (b"HTTP/1.0 400 Bad\r\n\r\nuntil the end", [b"GET"], [Answer(400, b"until the end", whole=False)]),
        (b"HTTP/1.1 400 Ba", [b"GET"], [Answer(400, whole=False)]),
        (b"<html>no status line", [b"GET"], [Answer(0, b"<html>no status line")]),
    ],
)
def test_answers_are_counted(data: bytes, methods: list[bytes], expected: list[Answer]) -> None:
    assert read_answers(data, methods) == expected

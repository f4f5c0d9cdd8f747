"""What came back: a forgiving reader of responses, for counting them and for their status codes."""

from __future__ import annotations

import re
from dataclasses import dataclass

_STATUS = re.compile(rb"HTTP/[0-9.]+ ([0-9]{3})")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """One final response."""

    status: int
    body: bytes = b""
    whole: bool = True


def read_answers(data: bytes, methods: list[bytes]) -> list[Answer]:
    """The final responses in these bytes, the last one perhaps not whole; `methods` are those of the requests.

    Bytes without a status line (HTTP/0.9, or noise) are one answer of status 0.
    """
    answers: list[Answer] = []
    while data:
        match = _STATUS.match(data)
        if match is None:
            return [*answers, Answer(0, data)]
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            return [*answers, Answer(int(match[1]), b"", whole=False)]
        status = int(match[1])
        if 100 <= status < 200 and status != 101:
            data = rest
            continue
        method = methods[min(len(answers), len(methods) - 1)] if methods else b"GET"
        bodiless = method == b"HEAD" or status in (101, 204, 304)
        body, data, whole = (b"", rest, True) if bodiless else _body(head, rest)
        answers.append(Answer(status, body, whole))
        if status == 101:
            break
    return answers


def _body(head: bytes, rest: bytes) -> tuple[bytes, bytes, bool]:
    """Body, what follows it, and whether it is whole."""
    if length := _LENGTH.search(head):
        size = int(length[1])
        return rest[:size], rest[size:], len(rest) >= size
    if not _CHUNKED.search(head):
        return rest, b"", False  # ends with the connection
    body = b""
    while True:
        line, end, rest = rest.partition(b"\r\n")
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            return body, b"", False
        if not end or len(rest) < size + 2:
            return body + rest[:size], b"", False
        body, rest = body + rest[:size], rest[size + 2 :]
        if not size:
            return body, rest, True

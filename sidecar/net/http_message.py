"""Requests and responses of our small HTTP/1.1 server and client: admin, health, the CA; never the proxied traffic."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from certs.errors import MeshError

Headers = Sequence[tuple[bytes, bytes]]  # lower-case names
JSON = (b"content-type", b"application/json")


class BadHttp(MeshError):
    """The other end did not speak HTTP as it should, or left in the middle of it."""

    name: ClassVar[str] = "bad_http"


class AnswerTooLarge(BadHttp):
    """The answer has more bytes than we take; the connection is of no use any more."""


class BadJson(MeshError):
    """A body is not the JSON object that it should be."""

    name: ClassVar[str] = "bad_json"


def find_header(headers: Headers, name: bytes) -> bytes | None:
    """The first value under this lower-case name."""
    return next((value for key, value in headers if key == name), None)


def parse_json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises BadJson."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadJson(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadJson("the body is not a JSON object")
    return value


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. `path` is as received, without its query; `peer` is what the server knows of the caller."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes = b""
    peer: Any = None

    def header(self, name: bytes) -> bytes | None:
        """The first value under this lower-case name."""
        return find_header(self.headers, name)

    def json(self) -> dict[str, Any]:
        """The JSON object in the body. Raises BadJson, which the server answers with 400."""
        return parse_json_object(self.body)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. A body that is an async iterator is sent as it comes, each piece at once."""

    status: int
    headers: Headers = ()
    body: bytes | AsyncIterator[bytes] = field(default=b"", repr=False)

    @classmethod
    def of_json(cls, status: int, value: Any, headers: Headers = ()) -> Response:
        """An answer whose body is this value as JSON."""
        return cls(status, (JSON, *headers), json.dumps(value, separators=(",", ":")).encode() + b"\n")

    @classmethod
    def error(cls, status: int, name: str, detail: str = "", headers: Headers = ()) -> Response:
        """The error document of our own APIs: `{"error": name, "detail": what to do}`."""
        return cls.of_json(status, {"error": name, "detail": detail}, headers)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client received: a whole response."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)

    def header(self, name: bytes) -> bytes | None:
        """The first value under this lower-case name."""
        return find_header(self.headers, name)

    def json(self) -> dict[str, Any]:
        """The JSON object in the body. Raises BadJson."""
        return parse_json_object(self.body)

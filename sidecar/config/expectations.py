"""Expectations of rules, in files beside a service's code: who asks whom for what, and what is to be said of it.

    config: ../mesh.yaml
    tests:
      - name: a customer reads no other's orders
        from: web
        to: orders
        request: {path: /customers/c8/orders, claims: {customer_id: c7}}
        expect: 403

They are read like a config, by the same reader: every mistake at once, each with its place. `mesh test` tries them.
"""
# ruff: noqa: RUF009 - `described` only wraps dataclasses.field; its defaults are immutable

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sidecar.config.document import decode, read_node
from sidecar.config.mistakes import Book
from sidecar.config.plain import NOWHERE
from sidecar.config.posture import show_moment
from sidecar.config.reader import Draft, read_record
from sidecar.config.terms import (
    BindAddress,
    ClaimName,
    Expected,
    FilePath,
    HeaderName,
    HostName,
    Json,
    ListenerRef,
    Method,
    Moment,
    Operation,
    Scope,
    ServiceName,
    Where,
    described,
)

_BEGINS: Final = 'it begins with "tests:"'


@dataclass(frozen=True, slots=True)
class TriedRequest:
    """A request that is never sent."""

    method: Method = described("Its method.", "GET")
    path: str = described("Its path, with its query if it has one.", "/")
    host: HostName | None = described("The host it asks for.", None, filled="the service's name")
    headers: Mapping[HeaderName, tuple[str, ...]] = described("A value for each name, or a list of them.", factory=dict)
    claims: Mapping[ClaimName, Json] | None = described("Of a bearer token that was verified.", None)
    scopes: tuple[Scope, ...] = described("Of that token.", ())
    operation: Operation | None = described("What the listener's contract calls it.", None)
    time: Moment | None = described("When it is asked, like 2026-01-05T12:00:00Z.", None, filled="now")
    source: BindAddress | None = described("The address it comes from.", None)
    port: ListenerRef | None = described("The listener, by name or port.", None, filled="the first")


@dataclass(frozen=True, slots=True)
class Expectation:
    """One request, and what is expected to be said of it."""

    name: str = described("What it is about, in words.")
    called: ServiceName = described("The service that is called.", yaml="to")
    expect: Expected = described("`permit`, `deny`, or the status of the refusal: 401, 403.")
    caller: str = described(
        "Who calls: a service, namespace/service, or a SPIFFE ID. Absent: a caller without identity.", "", yaml="from"
    )
    request: TriedRequest = described("What is asked for.", factory=TriedRequest)
    rule: str = described("The rule that has to decide it, by name.", "")
    where: Where = described("Where it stands.", Where("", 0), hidden=True)

    @property
    def question(self) -> dict[str, Any]:
        """The same as `sidecar.policy.question.hop_of` asks it."""
        asked = self.request
        time = show_moment(asked.time) if asked.time is not None else None
        given: dict[str, Any] = {
            "from": self.caller, "method": asked.method, "path": asked.path, "host": asked.host, "time": time,
            "headers": {name: list(lines) for name, lines in asked.headers.items()}, "operation": asked.operation,
            "source": asked.source, "port": asked.port,
        }  # fmt: skip
        if asked.claims is not None or asked.scopes:
            given |= {"claims": dict(asked.claims or {}), "scopes": list(asked.scopes)}
        return {name: value for name, value in given.items() if value or name == "claims"}


@dataclass(frozen=True, slots=True)
class Expectations:
    """A file of them."""

    tests: tuple[Expectation, ...] = described("What is expected.", some=True)
    config: FilePath | None = described("The mesh.yaml they are about, seen from this file.", None, filled="that of -f")


def read_expectations(file: str, book: Book) -> Draft | None:
    """A file as a draft of `Expectations`; what is wrong stands in the book. Raises TooMany alone."""
    try:
        text = decode(Path(file).read_bytes(), file, book)
    except OSError as error:
        book.add(Where(file, 0), "", f"cannot be read: {error.strerror}")
        return None
    if text is None:
        return None
    book.sources[file] = text
    node = read_node(text, file, book, _BEGINS)
    return read_record(Expectations, node, "", NOWHERE, book) if node is not None else None


def complete(draft: Draft) -> list[tuple[str, Expectation]]:
    """The tests of a draft that have all they need, each with its path in the file."""
    tests: list[Draft] = draft.values.get("tests", [])
    return [(each.path, each.build()) for each in tests if not each.incomplete]

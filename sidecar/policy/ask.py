"""What OPA is asked about a request, and what its answer means (`services.X.opa`).

The proxy, shadow mode and `mesh explain` use these same functions, so that what is shown is what is sent.

OPA answers a query of a document with 200 and `{"result": …}`; a document that is undefined for this input has no
`result`. Only `true`, and an object with `allow: true`, is a yes; only `false`, and an object with `allow: false`, is a
no. Everything else is silence: another status (a redirect as well), no JSON, a name that stands twice in an object, a
number that JSON does not have, a `result` of another kind or none.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from certs.strict_json import read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.config.schema_opa import Opa
    from sidecar.hop import Hop

RULE: Final = "opa"  # what stands in a record where a rule's name does, when OPA has said no
ALL: Final = "*"
MOST_ANSWER_BYTES: Final = 64 * 1024  # a decision has a few hundred; OPA's own documents can be of any size
REASON_CHARACTERS: Final = 200
_REASONS: Final = ("reason", "message")  # of an object, what may be told to the operator


class Said(NamedTuple):
    """What OPA says of a request."""

    allow: bool
    reason: str = ""  # in its own words, printable, for the operator alone


class Unsaid(Exception):
    """OPA has said neither yes nor no. The text is for the operator."""


class AskRules:
    """Which requests OPA is asked about, and with which words."""

    def __init__(self, spec: Opa) -> None:
        self.spec = spec
        self._headers = {name.lower(): name.lower().encode("ascii") for name in spec.headers}

    def concerns(self, hop: Hop) -> bool:
        """Whether OPA is asked about this hop, whose target has been read."""
        some = self.spec.concerns
        return hop.protocol == "http" and (
            not some
            or any(
                (not each.methods or hop.method in each.methods)
                and (not each.paths or any(path.matches(hop.segments) for path in each.paths))
                for each in some
            )
        )

    def input(self, hop: Hop) -> dict[str, Any]:
        """The `input` document: facts that are verified or canonical, and the headers that were asked for."""
        token = hop.token
        found: dict[str, Any] = {
            "caller": hop.peer.text if hop.peer is not None else None,
            "service": hop.destination.text if hop.destination is not None else None,
            "source": str(hop.source) if hop.source is not None else None,
            "listener": hop.listener,
            "host": hop.host,
            "method": hop.method,
            "path": list(hop.segments),
            "operation": hop.operation or None,
            "rule": hop.rule,
            "route": hop.route,
            "headers": {name: _values(hop, raw) for name, raw in self._headers.items()},
        }
        if self.spec.claims:
            claims = self._claims(token.claims) if token is not None else None
            found["token"] = {"issuer": token.issuer, "claims": claims} if token is not None else None
        return found

    def _claims(self, claims: Mapping[str, object]) -> dict[str, object]:
        if ALL in self.spec.claims:
            return dict(claims)
        return {name: claims[name] for name in self.spec.claims if name in claims}

    def question(self, hop: Hop) -> bytes:
        """The body to POST: the same for the same input, byte by byte."""
        document = {"input": self.input(hop)}
        return json.dumps(document, separators=(",", ":"), sort_keys=True, default=str).encode("ascii")


def _values(hop: Hop, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in hop.headers if key == name]


def read_answer(status: int, content_type: bytes | None, body: bytes) -> Said:
    """What an answer says. Raises Unsaid."""
    if status != 200:
        raise Unsaid(f"it answers {status}")
    if (content_type or b"").partition(b";")[0].strip().lower() != b"application/json":
        raise Unsaid("its answer is not application/json")
    try:
        document = read(body)
    except ValueError as error:
        raise Unsaid(f"its answer is no JSON: {str(error)[:80]}") from None
    if not isinstance(document, dict):
        raise Unsaid("its answer is no object")
    if "result" not in document:
        raise Unsaid("the document is undefined for this input (no result)")
    result = document["result"]
    if isinstance(result, bool):
        return Said(result)
    if isinstance(result, dict) and isinstance(result.get("allow"), bool):
        return Said(result["allow"], _reason(result))
    raise Unsaid("its result is neither true nor false, nor an object with such an `allow`")


def _reason(result: Mapping[str, Any]) -> str:
    found = next((result[name] for name in _REASONS if isinstance(result.get(name), str)), "")
    return "".join(each if each.isprintable() else "?" for each in found[:REASON_CHARACTERS])


class AnswerBook:
    """Answers that stand for a while, by a digest of the question. Never longer than `ttl` after it was asked."""

    __slots__ = ("_entries", "_size", "_ttl")

    def __init__(self, ttl: float, size: int) -> None:
        self._ttl = ttl
        self._size = size
        self._entries: dict[bytes, tuple[float, Said]] = {}  # in the order in which they were asked

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, question: bytes, now: float) -> Said | None:
        """What stands for this question at this monotonic time."""
        entry = self._entries.get(_digest(question))
        return entry[1] if entry is not None and now < entry[0] + self._ttl else None

    def keep(self, question: bytes, said: Said, asked: float) -> None:
        """Keep what was said to a question that was asked then; the oldest makes room. An older one never replaces a
        younger one.
        """
        key = _digest(question)
        known = self._entries.pop(key, None)
        if known is not None and known[0] > asked:
            asked, said = known
        while len(self._entries) >= self._size:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = asked, said


def _digest(question: bytes) -> bytes:
    return blake2b(question, digest_size=16).digest()


def place(spec: Opa) -> str:
    """Where OPA is asked, as a URL."""
    return f"http{'s' if spec.url.tls else ''}://{spec.url.authority}{target(spec)}"


def target(spec: Opa) -> str:
    """The path that is asked: that of the URL in front of the document's."""
    return spec.url.path.rstrip("/") + spec.path

"""What the proxy asks a contract: which operation is this, does it keep to it, may the answer go, and what of it.

Complaints are text for the operator; nothing of them reaches a caller. A complaint names fields and types and quotes no
values, so that no log learns what a body said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sidecar.contract.checks import Exhausted, Work
from sidecar.contract.fields import ALL, Tree, cutter, merged, read_fields
from sidecar.contract.json_body import MAX_BYTES, NotJson, parse, write
from sidecar.contract.parameters import BadQuery, query_of
from sidecar.contract.reading import UNLISTED, is_stream
from sidecar.errors import BodyTooLarge, ContractBroken, OperationGone, OperationUnknown, UnsupportedContentType
from sidecar.http.headers import first

if TYPE_CHECKING:
    from certs.spiffe import SpiffeId
    from sidecar.config.schema_contract import Contract as Spec
    from sidecar.config.schema_contract import Grant
    from sidecar.contract.reading import Bodies, Operation
    from sidecar.errors import HopError
    from sidecar.hop import Headers, Hop
    from sidecar.http.message import RequestHead
    from sidecar.patterns import IdentityPattern

_CHARSET: Final = re.compile(rb";\s*charset\s*=\s*\"?([^\s;\"]*)", re.IGNORECASE)
_UTF_8: Final = (b"utf-8", b"us-ascii")
_MOST_SEEN: Final = 1000  # undocumented routes that are remembered
_LONGEST_SHAPE: Final = 200  # characters of such a route
_PARTIAL: Final = 206
MAX_HELD: Final = 64 << 20  # bytes of bodies that wait to be checked, of all requests of a listener together
_MOST_CALLERS: Final = 4096  # callers whose fields are remembered, and callers of deprecated operations
# What a cut or checked answer must not ask the application for: parts of it, other encodings, or nothing but 304 by a
# validator of the whole (RFC 9110 sections 12.5.3, 14.2 and 13.1).
_NEVER_ASKED: Final = (b"accept-encoding", b"range", b"if-range", b"expect", b"te", b"want-content-digest",
                       b"want-repr-digest", b"a-im")  # fmt: skip
_NOT_ASKED_OF_CUT: Final = (b"if-none-match", b"if-modified-since")
# What says something of bytes that are no longer the same: RFC 9110 sections 8.6, 8.8.3, 14.3, 14.4 and 6.6.2, RFC 9530
# sections 2 and 3, RFC 9421, and the older fields for the same.
_OF_THE_BYTES: Final = (b"content-length", b"etag", b"accept-ranges", b"content-range", b"content-digest",
                        b"repr-digest", b"digest", b"content-md5", b"signature", b"signature-input",
                        b"trailer")  # fmt: skip


@dataclass(slots=True)
class Uses:
    """What was seen of a contract since it came into force. Bounded."""

    calls: dict[str, int] = field(default_factory=dict)  # by operation
    broken: dict[str, tuple[int, str]] = field(default_factory=dict)  # by operation: how often, and why last
    undocumented: dict[tuple[str, str], int] = field(default_factory=dict)  # by method and shape of the path
    deprecated: dict[tuple[str, str], int] = field(default_factory=dict)  # by operation and caller
    overlooked: int = 0  # requests to undocumented routes beyond those that are remembered


class Contract:
    """The contract of one listener in one generation."""

    def __init__(self, spec: Spec, grants: Mapping[IdentityPattern, Grant]) -> None:
        assert spec.api is not None
        self.spec, self.api = spec, spec.api
        self.enforced = spec.mode == "enforce"
        self.judges = spec.mode != "off"
        self.uses = Uses()
        self.held = 0  # bytes of bodies
        self._grants = tuple((caller, frozenset(g.operations), read_fields(g.fields)) for caller, g in grants.items())
        self._cuts: dict[tuple[str, str], tuple[Tree, Callable[[Any], Any]]] = {}  # by operation and caller
        self._shared: dict[tuple[int, ...], tuple[Tree, Callable[[Any], Any]]] = {}  # by the grants that apply

    def find(self, hop: Hop) -> Operation | None:
        """The operation of a request whose target has been read; the hop learns its name."""
        found: Operation | None = self.api.find(hop.method, hop.segments)
        if found is not None:
            hop.operation = found.id
        return found

    # ---- requests --------------------------------------------------------------------------------------------------

    def wrong_head(
        self, operation: Operation | None, hop: Hop, head: RequestHead, wall: float, *, switches: bool = False
    ) -> HopError | None:
        """What is wrong with a request as far as its head tells; `wall` is in seconds since the epoch, and `switches`
        whether it would have its connection speak another protocol.
        """
        uses = self.uses
        if operation is None:
            shape = (hop.method, shape_of(hop.segments))
            if shape in uses.undocumented or len(uses.undocumented) < _MOST_SEEN:
                uses.undocumented[shape] = uses.undocumented.get(shape, 0) + 1
            else:
                uses.overlooked += 1
            if self.spec.undocumented == "pass":
                return None
            return OperationUnknown(f"no operation of the contract is {hop.method} on this path")
        uses.calls[operation.id] = uses.calls.get(operation.id, 0) + 1
        if switches:
            return ContractBroken("the request asks for another protocol, in which nothing could be checked")
        return self._gone(operation, hop, wall) or self._wrong_parameters(operation, hop) or self._wrong_type(
            operation, head
        )

    def _gone(self, operation: Operation, hop: Hop, wall: float) -> HopError | None:
        if operation.deprecated is None and operation.sunset is None:
            return None
        key = (operation.id, hop.peer.text if hop.peer is not None else "")
        if key in self.uses.deprecated or len(self.uses.deprecated) < _MOST_CALLERS:
            self.uses.deprecated[key] = self.uses.deprecated.get(key, 0) + 1
        if operation.sunset is None or wall < operation.sunset:
            return None
        if hop.peer is not None and any(each.matches(hop.peer) for each in self.spec.after_sunset):
            return None
        return OperationGone(f"{operation.id} is past its x-sunset")

    def _wrong_parameters(self, operation: Operation, hop: Hop) -> HopError | None:
        work = Work()
        try:
            query = query_of(hop.target)
        except BadQuery as error:
            return ContractBroken(f"the query: {error}")
        places = dict(zip(_names(operation.path.text), _filled(operation, hop.segments), strict=True))
        for each in operation.parameters:
            if each.place == "query":
                given = query.get(each.name)
            elif each.place == "path":
                given = [places[each.name]] if each.name in places else None
            else:
                name = each.name.encode()
                given = [value.decode("latin-1") for key, value in hop.headers if key == name] or None
            if given is None:
                if each.required:
                    return ContractBroken(f"the {each.place} parameter {each.name}: is missing")
                continue
            try:
                wrong = each.wrong(given, work)
            except Exhausted:
                wrong = ": takes too long to check"
            if wrong is not None:
                return ContractBroken(f"the {each.place} parameter {each.name}{wrong}")
        if self.spec.unknown_query == "refuse" and query:
            known = {each.name for each in operation.parameters if each.place == "query"}
            if not known >= query.keys():
                return ContractBroken("the query has a parameter that is not in the contract (unknown_query)")
        return None

    def _wrong_type(self, operation: Operation, head: RequestHead) -> HopError | None:
        if not head.body or head.length == 0:
            if operation.body_required:
                return ContractBroken("the request has no body, and the contract requires one")
            return None
        if operation.bodies is None:
            return ContractBroken("the request has a body, and the contract has none")
        if head.length is not None and head.length > MAX_BYTES:
            return BodyTooLarge(f"the request body is {head.length} bytes; {MAX_BYTES} can be checked")
        if is_encoded(head.headers):
            return UnsupportedContentType("an encoded request body, which is not decoded here")
        types = [value for name, value in head.headers if name == b"content-type"]
        if len(types) != 1:
            return UnsupportedContentType(f"{len(types) or 'no'} content types")
        if media_of(operation.bodies, types[0]) is UNLISTED:
            return UnsupportedContentType("a content type that the contract does not list")
        return None

    def looks_into(self, operation: Operation | None, head: RequestHead) -> bool:
        """Whether a request body has to be held until it is checked: what is let pass unchecked is held where the
        contract is enforced, for its size.
        """
        if operation is None or operation.bodies is None or not head.body:
            return False
        kind = first(head.headers, b"content-type") or b""
        return self.enforced or (media_of(operation.bodies, kind) not in (None, UNLISTED)
                                 and not is_encoded(head.headers))  # fmt: skip

    def wrong_body(self, operation: Operation, head: RequestHead, body: bytes) -> HopError | None:
        """What is wrong with a whole request body."""
        if operation.bodies is None:
            return None
        if not body and operation.body_required:
            return ContractBroken("the request has an empty body, and the contract requires one")
        wrong = _wrong(operation.bodies, first(head.headers, b"content-type") or b"", body) if body else None
        return ContractBroken(f"the request body{wrong}") if wrong is not None else None

    def asked(self, operation: Operation | None, hop: Hop, headers: Headers) -> Headers:
        """The fields of a request that the application may see, so that its answer can be checked, and cut."""
        if not self.enforced or operation is None:
            return headers
        cut = self.tree(operation, hop.peer) is not ALL
        never = _NEVER_ASKED + _NOT_ASKED_OF_CUT if cut else _NEVER_ASKED
        left = [field for field in headers if field[0] not in never]
        left.append((b"accept-encoding", b"identity"))
        return left

    # ---- answers ---------------------------------------------------------------------------------------------------

    def tree(self, operation: Operation, peer: SpiffeId | None) -> Tree:
        """What a caller may see of this operation's answers: all of it where the service has no grants at all."""
        if not self._grants:
            return ALL
        return self._cut_for(operation, peer)[0]

    def _cut_for(self, operation: Operation, peer: SpiffeId | None) -> tuple[Tree, Callable[[Any], Any]]:
        """What the grants of a caller leave of an answer, and what cuts it so."""
        key = (operation.id, peer.text if peer is not None else "")
        found = self._cuts.get(key)
        if found is None:
            grants = tuple(
                number for number, (caller, ids, _) in enumerate(self._grants)
                if operation.id in ids and peer is not None and caller.matches(peer)
            )  # fmt: skip
            found = self._shared.get(grants)
            if found is None:
                tree = merged(self._grants[number][2] for number in grants)
                found = self._shared[grants] = (tree, cutter(tree))
            if len(self._cuts) >= _MOST_CALLERS:
                self._cuts.clear()
            self._cuts[key] = found
        return found

    def goes_bare(self, operation: Operation, status: int) -> bool:
        """Whether an answer is an error that the contract does not have: its status goes on, and nothing else."""
        return status >= 400 and operation.answer(status) is None

    def wrong_answer_head(self, operation: Operation, hop: Hop, status: int, headers: Headers) -> str | None:
        """What is wrong with an answer as far as its head tells, before anybody waits for a body."""
        known = operation.answer(status)
        if status == 304:
            return None
        if known is None:
            return f"the status {status}: is not in the contract"
        if status == _PARTIAL:
            return "the answer is a part (206), and nobody asked for one"
        if hop.method == "HEAD" or status in (204, 205) or first(headers, b"content-length") == b"0":
            return None
        if is_encoded(headers):
            return "the answer is encoded although nobody asked for that"
        types = [value for name, value in headers if name == b"content-type"]
        if not types and not known.bodies:
            return None  # perhaps there is no body
        if len(types) != 1:
            return f"the answer has {len(types) or 'no'} content types"
        if is_stream(kind_of(types[0])):
            return "the answer is a stream, which cannot be checked before it is sent on"
        check = media_of(known.bodies, types[0])
        if check is UNLISTED:
            return "the answer has a content type that is not in the contract"
        if check is None and self.tree(operation, hop.peer) is not ALL:
            return "the answer is no JSON, and only JSON can be cut to a grant"
        return None

    def answer(
        self, operation: Operation, hop: Hop, status: int, headers: Headers, body: bytes
    ) -> tuple[Headers, bytes] | str:
        """The fields and the body of an answer with a good head that may go on, or what is wrong with them."""
        tree = self.tree(operation, hop.peer)
        known = operation.answer(status)
        bodies = known.bodies if known is not None else None
        if not body or status in (204, 304):
            if bodies and status not in (204, 205, 304) and hop.method != "HEAD":
                return "the answer has no body, and the contract has one"
            return (headers if tree is ALL else without(headers, hop.method == "HEAD" or status == 304)), b""
        if not bodies:
            return "the answer has a body, and the contract has none"
        check = media_of(bodies, first(headers, b"content-type") or b"")
        if check is None:
            return headers, body
        try:
            value = parse(body)
            wrong = check(value, Work())
        except NotJson as error:
            return f"the answer is no JSON: {error}"
        except (Exhausted, RecursionError):
            return "the answer takes too long to check"
        if wrong is not None:
            return f"the answer{wrong}"
        if tree is ALL:
            return headers, body
        cut = write(self._cut_for(operation, hop.peer)[1](value))
        return [*without(headers, False), (b"content-length", b"%d" % len(cut))], cut

    def told(self, operation: Operation | None, headers: Headers) -> Headers:
        """The fields of an answer with Deprecation (RFC 9745 section 2) and Sunset (RFC 8594 section 3), in place of
        what the application says of the same.
        """
        if operation is None or not operation.ending:
            return headers
        names = [name for name, _ in operation.ending]
        return [*(field for field in headers if field[0] not in names), *operation.ending]

    def to_json(self) -> dict[str, Any]:
        """What was seen since this generation came into force, for `mesh contract status`."""
        uses = self.uses
        rows = []
        for name in self.api.operations:
            broken, why = uses.broken.get(name, (0, ""))
            rows.append({"operation": name, "calls": uses.calls.get(name, 0), "broken": broken, "last": why})
        undocumented = [{"method": m, "path": p, "calls": count} for (m, p), count in uses.undocumented.items()]
        ending = [{"operation": o, "caller": caller, "calls": count} for (o, caller), count in uses.deprecated.items()]
        return {
            "mode": self.spec.mode, "operations": rows, "undocumented": undocumented, "overlooked": uses.overlooked,
            "deprecated": ending,
        }  # fmt: skip

    def note(self, operation: Operation | None, why: str) -> None:
        """Remember a request or an answer that was outside the contract."""
        name = operation.id if operation is not None else ""
        count, _ = self.uses.broken.get(name, (0, ""))
        self.uses.broken[name] = (count + 1, why)


def kind_of(given: bytes) -> str:
    """The media type of a Content-Type field, without its parameters."""
    return given.partition(b";")[0].strip().lower().decode("latin-1")


def media_of(bodies: Bodies, given: bytes) -> Any:
    """The check for this content type, None for one that is listed but not checked, or UNLISTED. JSON has to be UTF-8,
    whatever its `charset` says (RFC 8259 section 8.1).
    """
    found = bodies.check_of(kind_of(given))
    if found is None or found is UNLISTED:
        return found
    return UNLISTED if any(each.lower() not in _UTF_8 for each in _CHARSET.findall(given)) else found


def _wrong(bodies: Bodies, kind: bytes, body: bytes) -> str | None:
    check: Callable[[Any, Work], str | None] | None = media_of(bodies, kind)
    if check is None or check is UNLISTED:
        return None
    try:
        return check(parse(body), Work())
    except NotJson as error:
        return f" is no JSON: {error}"
    except (Exhausted, RecursionError):
        return " takes too long to check"


def is_encoded(headers: Headers) -> bool:
    """Whether a body is anything but itself (RFC 9110 section 8.4)."""
    return any(name == b"content-encoding" and value.lower() != b"identity" for name, value in headers)


def without(headers: Headers, headless: bool) -> Headers:
    """Fields of an answer without those that speak of its bytes; `headless`: there are none, so no length is given."""
    left = [field for field in headers if field[0] not in _OF_THE_BYTES]
    return left if headless else [*left, (b"accept-ranges", b"none")]


def bare(headers: Headers) -> Headers:
    """Fields of an answer that goes on without its body."""
    left = [field for field in headers if field[0] not in _OF_THE_BYTES and not field[0].startswith(b"content-")]
    return [*left, (b"content-length", b"0")]


def shape_of(segments: Sequence[str]) -> str:
    """A path whose segments that look like ids are `{}`, so that few shapes stand for many paths."""
    shape = "/" + "/".join(part if part.isalpha() and len(part) < 32 else "{}" if part else "" for part in segments)
    return shape if len(shape) <= _LONGEST_SHAPE else shape[:_LONGEST_SHAPE] + "…"


def _names(template: str) -> list[str]:
    return [part[1:-1] for part in template.split("/") if part.startswith("{") and part.endswith("}")]


def _filled(operation: Operation, segments: tuple[str, ...]) -> list[str]:
    return [given for part, given in zip(operation.path.segments, segments, strict=True) if part is None]

"""Requests and answers on a listener with a contract: held until they are known to be inside of it.

Theory of operation. A request body is read whole, at most 1 MiB, within the deadlines and the pace of any upload,
before anybody is asked and before limits are taken; then it is replayed as one that is sent again would be. An answer
is read whole before its head goes on, so that of one outside the contract not a byte leaks. Both happen here alone:
without a contract nothing is held.

In shadow nothing is refused or changed: a body is looked at as far as 1 MiB and travels on as it came, and an answer is
held only where it is JSON.

    field of an answer                     unchanged answer        cut to a grant
    Content-Length (RFC 9110, 8.6)         as it came              of the new bytes; none on HEAD and 304
    ETag (RFC 9110, 8.8.3)                 as it came              taken away: it names other bytes
    Content-Digest, Repr-Digest (9530)     as it came              taken away, and signatures over them (RFC 9421)
    Accept-Ranges (RFC 9110, 14.3)         as it came              `none`: Range is never asked for
    206, Content-Range (RFC 9110, 14)      502: not asked for      502: at the head, before any body is read
    Content-Encoding (RFC 9110, 8.4)       502: not asked for      502: the same, and so are streams of events
    trailers (RFC 9110, 6.5)               pass                    taken away
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.contract.json_body import MAX_BYTES
from sidecar.contract.judge import MAX_HELD, Contract, bare, is_encoded, kind_of
from sidecar.contract.reading import is_json
from sidecar.errors import AnswerBroken, BodyTooLarge, Overload
from sidecar.hop import ShadowVerdict
from sidecar.http.headers import first
from sidecar.http.message import NEED_DATA, Data, End, ResponseHead
from sidecar.net.pool import Connection

if TYPE_CHECKING:
    from sidecar.contract.reading import Operation
    from sidecar.errors import HopError
    from sidecar.hop import Headers, Hop
    from sidecar.http.message import HttpEvent, RequestHead
    from sidecar.proxy.exchange import Exchange
    from sidecar.telemetry.record import Recorder

REQUEST, ANSWER = "contract:request", "contract:answer"  # what shadow verdicts are called
_PARTIAL = 206
_LARGE = f"the answer is over {MAX_BYTES} bytes, which are not checked"
_CROWDED = f"{MAX_HELD} bytes of other bodies are held already, to be checked against the contract"


@dataclass(slots=True)
class Checked:
    """A request under a contract that judges."""

    contract: Contract
    operation: Operation | None  # None: not in the contract, and let pass all the same
    recorder: Recorder
    hop: Hop
    head: RequestHead
    _held: int = 0  # bytes of its bodies

    def room(self, size: int) -> bool:
        """Whether so many bytes more may be held; they count until it is over."""
        contract = self.contract
        if contract.held + size > MAX_HELD:
            return False
        contract.held += size
        self._held += size
        return True

    def let_go(self) -> None:
        """It is over."""
        self.contract.held -= self._held
        self._held = 0

    def refuse(self, error: HopError) -> None:
        """What becomes of a request outside the contract. Raises the error where that is enforced."""
        if any(each.rule == REQUEST for each in self.hop.shadow):
            return  # said already
        self.contract.note(self.operation, error.detail)
        self.recorder.outside_contract(self.hop.listener, self.hop.operation, "request", refused=self.contract.enforced)
        if self.contract.enforced:
            raise error
        self.hop.shadow = (*self.hop.shadow, ShadowVerdict(REQUEST, "deny"))

    def _tell(self, why: str, *, refused: bool) -> None:
        self.contract.note(self.operation, why)
        self.recorder.outside_contract(self.hop.listener, self.hop.operation, "answer", refused=refused)

    def complain(self, why: str) -> None:
        """The same of an answer. Raises AnswerBroken."""
        self._tell(why, refused=self.contract.enforced)
        if self.contract.enforced:
            raise AnswerBroken(why)
        self.hop.shadow = (*self.hop.shadow, ShadowVerdict(ANSWER, "deny"))

    # ---- the request -----------------------------------------------------------------------------------------------

    async def take_body(self, exchange: Exchange) -> None:
        """Read the request body and judge it; what was read will be replayed. Raises HopError."""
        operation = self.operation
        if operation is None or not self.contract.looks_into(operation, self.head):
            return
        pieces = await exchange.hold_body(MAX_BYTES, self.room)
        if pieces is None:
            self._not_held()
            return
        wrong = self.contract.wrong_body(operation, self.head, b"".join(pieces))
        if wrong is not None:
            self.refuse(wrong)

    def _not_held(self) -> None:
        if self.hop.received_bytes > MAX_BYTES:
            self.refuse(BodyTooLarge(f"the request body is over {MAX_BYTES} bytes, which are not checked"))
        elif self.contract.enforced:
            raise Overload(_CROWDED)

    # ---- the answer ------------------------------------------------------------------------------------------------

    async def relay(self, exchange: Exchange, connection: Connection, response: ResponseHead) -> None:
        """Send an answer on, or what may go on of it. Raises HopError."""
        operation, contract = self.operation, self.contract
        status, headers = response.status, contract.told(operation, response.headers)
        if headers is not response.headers:
            response = ResponseHead(status, headers, response.reason, response.version)
        if operation is None or not (contract.enforced or _is_held(response)):
            await exchange.relay(connection, response)
        elif contract.goes_bare(operation, status) and contract.enforced:
            self._tell(f"the error {status}: is not in the contract; it went on without its body", refused=False)
            response = ResponseHead(status, bare(headers), response.reason, response.version)
            await exchange.relay(_replayed(connection, [End()]), response)
        else:
            await self._relay_checked(exchange, connection, response, operation)

    async def _relay_checked(
        self, exchange: Exchange, connection: Connection, response: ResponseHead, operation: Operation
    ) -> None:  # fmt: skip
        contract = self.contract
        events: list[HttpEvent] = []
        status, headers = response.status, response.headers
        wrong = contract.wrong_answer_head(operation, self.hop, status, headers)
        if wrong is not None:
            self.complain(wrong)
        else:
            events, body = await self._hold(exchange, connection, response)
            if body is not None:
                found = contract.answer(operation, self.hop, status, headers, body)
                if isinstance(found, str):
                    self.complain(found)
                elif contract.enforced and found[0] is not headers:
                    response = ResponseHead(status, found[0], response.reason, response.version)
                    events = [Data(found[1]), End()] if found[1] else [End()]
        await exchange.relay(_replayed(connection, events), response)

    async def _hold(
        self, exchange: Exchange, connection: Connection, response: ResponseHead
    ) -> tuple[list[HttpEvent], bytes | None]:  # fmt: skip
        """Read an answer as far as MAX_BYTES: its events, and its body where that is all of it."""
        events: list[HttpEvent] = []
        pieces: list[bytes] = []
        size = 0
        length = first(response.headers, b"content-length") or b"0"
        if self.head.method != b"HEAD" and length.isdigit() and int(length) > MAX_BYTES:
            self.complain(_LARGE)
            return events, None
        while True:
            event = connection.codec.next_event()
            if event is NEED_DATA:
                await exchange.read_more(connection, response)
                continue
            events.append(event)
            if not isinstance(event, Data):
                return events, b"".join(pieces)
            size += len(event.data)
            if size > MAX_BYTES:
                self.complain(_LARGE)
                return events, None
            if not self.room(len(event.data)):
                if self.contract.enforced:
                    raise Overload(_CROWDED)
                return events, None
            pieces.append(event.data)


def _is_held(response: ResponseHead) -> bool:
    """Whether an answer is looked at in shadow: JSON as it is, and all of it. What the application encodes, or sends
    in parts, since it was asked to, would not have been asked of it.
    """
    headers = response.headers
    kind = kind_of(first(headers, b"content-type") or b"")
    return is_json(kind) and not is_encoded(headers) and response.status != _PARTIAL


class _Replay:
    """A codec that gives first what was held of an answer."""

    def __init__(self, connection: Connection, events: list[HttpEvent]) -> None:
        self._codec = connection.codec
        self._events = events[::-1]

    @property
    def clean(self) -> bool:
        return self._codec.clean

    def begin(self, head: RequestHead) -> bytes:
        return self._codec.begin(head)

    def receive(self, data: bytes) -> None:
        self._codec.receive(data)

    def next_event(self) -> HttpEvent:
        return self._events.pop() if self._events else self._codec.next_event()

    def send_data(self, data: bytes) -> bytes:
        return self._codec.send_data(data)

    def send_end(self, trailers: Headers | tuple[()] = ()) -> bytes:
        return self._codec.send_end(trailers)

    def trailing(self) -> bytes:
        return self._codec.trailing()


def _replayed(connection: Connection, events: list[HttpEvent]) -> Connection:
    return Connection(
        connection.wire, _Replay(connection, events), connection.peer, connection.endpoint, connection.generation
    )

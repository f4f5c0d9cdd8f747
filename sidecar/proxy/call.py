"""One gRPC call: an exchange that may be quiet for ever, that ends when its caller's deadline does, and whose failures
are told in its own language.

What a call says passes as it is: messages, metadata, compression. Its messages are followed, not read, so that an end
in the middle of one is known for what it is. Its deadline (`grpc-timeout`) is kept like that of any exchange
(`sidecar.proxy.waiting`): when it passes, work upstream is cancelled, whatever the call waits for. There is no idle
time, because a stream may wait for its next message as long as it likes (decision D8); connections that are dead show
by TCP's keep-alive.

A call that fails once its answer has begun ends with trailers, since gRPC has its status there: the caller learns that
it was UNAVAILABLE, not that some stream was reset. Where trailers would say something else (an answer that is not gRPC,
or has a length), the stream is reset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import ProtocolViolation, UpstreamProtocolViolation
from sidecar.http import grpc
from sidecar.http.headers import first
from sidecar.net.port import NEVER
from sidecar.proxy.exchange import Exchange

if TYPE_CHECKING:
    from sidecar.hop import Headers, Hop
    from sidecar.http.message import RequestHead, ResponseHead
    from sidecar.net.port import Port
    from sidecar.proxy.side import Caller, HttpSide, Plan
    from sidecar.proxy.streams import ServedStream


class Call(Exchange):
    """The state of one call on its way."""

    may_be_quiet = True

    def __init__(
        self, port: Port, side: HttpSide, hop: Hop, head: RequestHead, plan: Plan, end: ServedStream, caller: Caller
    ) -> None:
        super().__init__(port, side, hop, head, plan, end, end, caller)
        self.takes_trailers = False  # an answer has begun, and its caller looks for its status behind it
        self._asked = grpc.Messages()
        self._told = grpc.Messages()

    def _patience(self) -> float:
        """A server sends its head with its first message, whenever that is."""
        return NEVER

    # ---- its messages ------------------------------------------------------------------------------------------------

    def _count(self, data: bytes) -> None:
        super()._count(data)
        self._asked.feed(data)

    def _check_whole(self) -> None:
        if self._asked.cut_off:
            raise ProtocolViolation("the caller ends its call in the middle of a message")

    def _begin_answer(self, head: ResponseHead) -> None:
        status = first(head.headers, grpc.STATUS_FIELD)
        self._hop.grpc_status = grpc.status_name(status) if status is not None else grpc.without_status(head.status)
        if head.status == 200 and grpc.is_grpc(head.headers):
            self.takes_trailers = first(head.headers, b"content-length") is None

    def _pass_on(self, data: bytes) -> None:
        if self.takes_trailers:
            try:
                self._told.feed(data)
            except ProtocolViolation as error:
                raise UpstreamProtocolViolation(f"response: {error}") from None

    def _end_answer(self, trailers: Headers) -> Headers:
        """What follows the messages. A status that says OK behind half a message is not believed."""
        status = first(trailers, grpc.STATUS_FIELD)
        if status is not None:
            self._hop.grpc_status = grpc.status_name(status)
        if self._told.cut_off and status in (None, b"0"):
            raise UpstreamProtocolViolation("the upstream ends its answer in the middle of a message")
        return self._side.response_trailers(self._hop, trailers, self._plan.upstream)

"""One exchange on an HTTP/2 connection, in the words of the HTTP/1 codec: `next_event`, `send_head` and so on.

Back-pressure inward: what came of a body waits here until `next_event` hands it out, at most `PIECE_BYTES` at a time,
and only then the other side gets that much window back. Whoever has passed a piece on before asking for the next one
holds the whole way back to the sender: what is buffered for a stream is never more than its window and one piece.

Back-pressure outward: `send_data` keeps what the other side's windows have no room for. A sender waits until `unsent`
is 0 before it sends more.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from sidecar.http.message import CLOSED, NEED_DATA, Data, End, HttpEvent, RequestHead, ResponseHead

if TYPE_CHECKING:
    from sidecar.errors import HopError
    from sidecar.hop import Headers
    from sidecar.http.h2.sending import Sending

PIECE_BYTES: Final = 64 * 1024  # of a body, handed out at once
_JOIN_BYTES: Final = 4096  # pieces are joined up to here, so that a body of tiny frames is no heap of tiny objects


class H2Stream:
    """One stream: a request and its answer. Made by the connection only."""

    __slots__ = (
        "_connection",
        "_flow",
        "_inbox",
        "_outbox",
        "_taken_end",
        "_trailers",
        "answered",
        "asked_continue",
        "blocked_since",
        "end_queued",
        "error",
        "expected",
        "head",
        "id",
        "left",
        "on_books",
        "received",
        "since",
        "stirred",
        "tag",
        "they_are_done",
        "unsent",
        "we_are_done",
    )

    def __init__(self, connection: Sending, stream_id: int) -> None:
        self._connection = connection
        self.id = stream_id
        self.head: RequestHead | None = None  # of the request, where it could be read
        self.error: HopError | None = None  # why the stream cannot go on, or could not begin
        self.they_are_done = False  # the other side's message has come whole
        self.we_are_done = False  # ours has been framed whole
        self.on_books = True  # neither ended nor reset
        self.answered = False  # the final response head has been sent (server) or has come (client)
        self.asked_continue = False  # the downstream waits for our 100
        self.expected: int | None = None  # how long their body must be
        self.received = 0  # bytes of it so far
        self.since = 0.0  # monotonic: when a downstream began it
        self.tag: Any = None  # for whoever serves it: a task, a signal
        self.stirred = False  # an event for it waits to be told
        self.unsent = 0  # bytes of our body that wait for room
        self.end_queued = False  # our end waits behind them
        self.left = False  # whoever served it is done with it
        self.blocked_since: float | None = None  # monotonic: since when the other side takes none of them
        self._trailers: Headers = []
        self._inbox: deque[HttpEvent] = deque()
        self._flow = 0  # bytes of window that the inbox holds
        self._outbox: deque[memoryview] = deque()
        self._taken_end = False

    # ---- reading -----------------------------------------------------------------------------------------------------

    def next_event(self) -> HttpEvent:
        """The next event. Raises the stream's error once it has one."""
        if self.error is not None:
            raise self.error
        if not self._inbox:
            return CLOSED if self._taken_end else NEED_DATA
        event = self._inbox.popleft()
        if isinstance(event, Data):
            return self._take(event)
        if isinstance(event, End):
            self._taken_end = True
        return event

    def _take(self, first: Data) -> Data:
        """Join waiting pieces, and give their room back."""
        if not self._inbox or not isinstance(self._inbox[0], Data):
            self._flow -= len(first.data)
            self._connection.give_back(self, len(first.data))
            return first
        pieces, size = [first.data], len(first.data)
        while self._inbox and isinstance(following := self._inbox[0], Data):
            if size + len(following.data) > PIECE_BYTES:
                break
            pieces.append(following.data)
            size += len(following.data)
            self._inbox.popleft()
        self._flow -= size
        self._connection.give_back(self, size)
        return Data(b"".join(pieces))

    @property
    def has_news(self) -> bool:
        """Whether `next_event` has something to say: an event, or the stream's error."""
        return bool(self._inbox) or self.error is not None

    @property
    def buffered(self) -> int:
        """Bytes of their body that wait here."""
        return self._flow

    @property
    def wants_continue(self) -> bool:
        """Whether the downstream still waits for our 100 before it sends its body."""
        return self.asked_continue and not self.answered and not self.received and not self.they_are_done

    @property
    def is_tunnel(self) -> bool:
        """Whether a downstream's tunnel has been answered: a reader that pauses has as much time there as by HTTP/1."""
        head = self.head
        return self.answered and head is not None and (bool(head.protocol) or head.method == b"CONNECT")

    def put(self, event: HttpEvent) -> None:
        """The connection has something for us."""
        if isinstance(event, Data):
            self._flow += len(event.data)
            last = self._inbox[-1] if self._inbox else None
            if isinstance(last, Data) and len(last.data) + len(event.data) <= _JOIN_BYTES:
                last.data += event.data
                return
        self._inbox.append(event)

    def fail(self, error: HopError) -> int:
        """It ends here, whatever waits; returns the bytes of window that were held."""
        if self.error is None:
            self.error = error
        self.stop_sending()
        return self.forget()

    def forget(self) -> int:
        """Nobody reads what waits; returns the bytes of window that it has held."""
        self._inbox.clear()
        held, self._flow = self._flow, 0
        return held

    @property
    def waiting_heads(self) -> int:
        """How many heads have come that nobody has read yet."""
        return sum(isinstance(event, ResponseHead) for event in self._inbox)

    # ---- writing -----------------------------------------------------------------------------------------------------

    def send_head(self, head: ResponseHead, *, end: bool = False) -> None:
        """Our response head, final or 1xx; `end`: nothing follows. Dropped where the stream has ended."""
        if self.on_books and not self.answered:
            self.answered = head.status >= 200 or head.status == 101  # which is the 200 that a tunnel begins with
            self._connection.send_response(self, head, end=end)

    def send_data(self, data: bytes) -> None:
        """A piece of our body: framed as room and turns allow. Dropped where the stream has ended."""
        if self.on_books and data and not self.end_queued:
            self._outbox.append(memoryview(data))
            self.unsent += len(data)
            self._connection.has_output(self)

    def send_end(self, trailers: Headers | tuple[()] = ()) -> None:
        """The end of our message, behind its data."""
        if self.on_books and not self.end_queued and not self.we_are_done:
            self.end_queued = True
            self._trailers = list(trailers)
            self._connection.has_output(self)

    def stop_sending(self) -> None:
        """Nothing more can be sent; what has come can still be read."""
        self.on_books = False
        self.unsent = 0
        self._outbox.clear()

    def next_piece(self, most: int) -> memoryview:
        """Take so many bytes of our body off the front."""
        first = self._outbox.popleft()
        if len(first) > most:
            self._outbox.appendleft(first[most:])
            first = first[:most]
        self.unsent -= len(first)
        return first

    @property
    def trailers(self) -> Headers:
        """What follows our body."""
        return self._trailers

    def finish(self) -> None:
        """Whoever served this stream is done with it: what has not come to its end ends now.

        A request whose answer is whole, once that has been sent, is stopped with NO_ERROR (RFC 9113 section 8.1); else
        the stream is cancelled.
        """
        self._connection.finish(self)

    def reset(self, code: int) -> None:
        """End the stream at once, in both directions."""
        self._connection.reset(self, code)

    @property
    def clean(self) -> bool:
        """Whether both messages have come to their end, and nothing failed."""
        return self.error is None and self.they_are_done and self.we_are_done

"""The lane of a caller: what is known of its plain requests before they come.

A lane belongs to one caller at one listener, under one generation of it, and keeps *tickets*: for a request that has
been permitted, the verdict and all that follows from it and cannot differ the next time: where it goes, the lines that
we add to its head, where it is counted. A ticket is only ever made of a Permit that nothing clouds: no shadow rule, no
posture, no limit of a route that looks at the body, no route that changes or holds it. Whatever gets none takes the
general way, where refusals are made.

A verdict may be kept because it depends on nothing else: not on the clock, and on headers only where a rule or a route
that can apply to this caller looks at one; then each request is judged anew. So it is where a split throws its dice.
What does depend on the clock, the rate limits, is asked at each request; the ticket knows which they are. A reload
makes new sides, and so new lanes. What is kept is bounded, and forgotten whole when full.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.hop import Hop, Permit
    from sidecar.http.plain import PlainRequest, Unread
    from sidecar.proxy.side import Caller, HttpSide, Judged
    from sidecar.proxy.upstream import Upstream
    from sidecar.telemetry.tally import Tally
    from sidecar.traffic.limits import Dues

# The way out, should the fast way ever misread something: MESH_HTTP1_READER=h11 sends every request the general way.
ENABLED = os.environ.get("MESH_HTTP1_READER", "plain") != "h11"
MAX_TICKETS = 128  # for each lane
MAX_LANES = 64  # for each listener
LONGEST_TARGET = 512  # bytes; longer ones are judged anew each time

Key = tuple[str, str, str, "int | None"]


class Ticket:
    """What a permitted plain request comes to."""

    __slots__ = ("dues", "lines", "permit", "tail", "tallies", "upstream", "via")

    def __init__(self, upstream: Upstream, permit: Permit, dues: Dues | None, lines: bytes) -> None:
        self.upstream = upstream
        self.permit = permit
        self.dues = dues  # the rate limits that it comes under
        self.lines = lines  # of ours, to stand before theirs
        self.via: list[bytes] | None = None  # the sidecars that the last one had come by
        self.tail: bytes | None = None  # our lines at the end of its head, with the empty line; None: it may not go on
        self.tallies: dict[int, Tally | None] = {}  # by class of status


class Lane:
    """The plain requests of one caller. What a side has to say about them is in `judge`, which is its `judge_plain` or
    one that knows more, and in its method `plain_tail`.
    """

    __slots__ = ("_caller", "_issued", "_judge", "_memo", "_side", "limits_bodies", "read", "tickets", "wants_headers")

    def __init__(
        self, side: HttpSide, caller: Caller, read: Callable[[bytes, int], PlainRequest | Unread],
        judge: Callable[[Hop, PlainRequest], Judged | None], *, memo: bool, wants_headers: bool, limits_bodies: bool,
    ) -> None:  # fmt: skip
        self.read = read
        self._judge = judge
        self.tickets: dict[Key, Ticket] = {}  # of requests that came lately
        self.wants_headers = wants_headers  # whether a hop has to carry its headers, to be judged or for the record
        self.limits_bodies = limits_bodies  # whether a route looks at what comes with a body
        self._issued: dict[tuple[int, ...], Ticket] = {}  # by permit, upstream and dues
        self._side = side
        self._caller = caller
        self._memo = memo

    def judge(self, hop: Hop, request: PlainRequest, key: Key) -> Ticket | None:
        """A ticket for a hop whose like has not come lately; None where it must take the general way."""
        found = self._judge(hop, request)
        if found is None:
            return None
        upstream, permit, dues = found
        issued: tuple[int, ...] = (id(permit), id(upstream))  # of objects that the ticket keeps alive
        if dues is not None:
            issued = (*issued, id(dues))
        ticket = self._issued.get(issued)
        if ticket is None:
            if len(self._issued) >= MAX_TICKETS:
                self._issued.clear()
            ticket = self._issued[issued] = Ticket(upstream, permit, dues, self._side.plain_lines(upstream))
            self.direct(ticket, request.via)
        if self._memo and len(request.target) <= LONGEST_TARGET:
            if len(self.tickets) >= MAX_TICKETS:
                self.tickets.clear()
            self.tickets[key] = ticket
        return ticket

    def direct(self, ticket: Ticket, via: list[bytes] | None) -> bytes | None:
        """Make the ticket's tail for a request that has come by these sidecars."""
        ticket.via = via
        ticket.tail = self._side.plain_tail(self._caller, ticket.upstream, via or ())
        return ticket.tail

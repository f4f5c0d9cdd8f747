"""Where a request goes once it is known to whom: the routes of one upstream, or of one inbound listener, at work.

Theory of operation. A `Course` is a route with the upstreams that it leads to; a `Steering` finds the course of a
request. Both are made with each generation of the configuration and never change; they hold no connection, so a reload
that changes a route alone leaves every pool, breaker and budget as it is.

A split throws its dice for each request, and so does a fault. The express throws them too; where it then leaves the
request to the general way, the hop carries what came of it (`Hop.drawn`: the fault that it meets, or the upstream that
it goes to), and nobody throws again: otherwise the destination whose connections are busy, or young, would get less
than its share, and a fault the square of its own.

Paths of requests to others are read for this alone, as an inbound listener with every leniency would; who is asked
judges them by its own rules. A path that has two readings even so cannot be told to be on a route or not, and is
refused (decision D4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.errors import AmbiguousPath, ProtocolViolation
from sidecar.hop import Permit
from sidecar.http.canonical import Leniency, Target, canonical_target
from sidecar.traffic.faults import Injected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from certs.spiffe import SpiffeId
    from sidecar.config.schema_inbound import Route as Declared
    from sidecar.hop import Hop
    from sidecar.http.plain import PlainRequest
    from sidecar.policy.reading import Reading
    from sidecar.proxy.side import Judged, Plan
    from sidecar.proxy.upstream import Upstream
    from sidecar.traffic.routes import Route

    Judge = Callable[[Hop, PlainRequest], Judged | None]

ANY_PATH: Final = Leniency(encoded_slash=True, empty_segments=True, path_parameters=True)
REWRITTEN: Final = Leniency(path_parameters=True)  # a slash that is cut off must not have been part of a segment


class Course:
    """One route, with the upstreams that it leads to."""

    __slots__ = ("_count", "_dice", "_listener", "_sole", "_told", "_upstreams", "permit", "route")

    def __init__(
        self, listener: str, route: Route, upstreams: Mapping[str, Upstream], dice: Callable[[], float],
        count: Callable[[str, str, str], None],
    ) -> None:  # fmt: skip
        self.route = route
        self.permit = Permit("", route.name)  # of outbound requests: what is declared may be asked
        self._listener = listener
        self._upstreams = {name: upstreams[name] for name in route.to.names}
        some = [name for name, weight in zip(route.to.names, route.to.weights, strict=True) if weight]
        self._sole = upstreams[some[0]] if len(some) == 1 else None
        statuses = route.retries.statuses if route.retries is not None else frozenset()
        self._told = all(statuses <= upstream.telling for upstream in self._upstreams.values())
        self._dice = dice
        self._count = count

    def throws(self, peer: SpiffeId | None) -> bool:
        """Whether dice are thrown for requests of this caller."""
        fault = self.route.fault
        return self._sole is None or (fault is not None and fault.concerns(peer))

    def choose(self, hop: Hop) -> Upstream:
        """Where this request goes: where it has been sent already, or as the dice fall."""
        if self._sole is not None:
            return self._sole
        drawn = hop.drawn
        for upstream in self._upstreams.values():
            if upstream is drawn:
                return upstream
        name = self.route.to.choose(self._dice())
        self._count(self._listener, self.route.name, name)
        return self._upstreams[name]

    def strike(self, hop: Hop) -> Injected | None:
        """The fault that this request meets; None, as a rule. Who was spared once, or sent, meets none."""
        drawn = hop.drawn
        if isinstance(drawn, Injected):
            return drawn
        fault = self.route.fault
        if fault is None or drawn is not None or hop.attempts:
            return None
        return fault.check(hop.peer, self._dice)

    def choose_plain(self, hop: Hop) -> Upstream | None:
        """Where a plain request goes; None where it is for the general way to change, to hold or to refuse."""
        route = self.route
        hop.drawn = None
        if not self._told or route.rewrite is not None or route.request or route.response:
            return None
        if route.fault is not None:
            hop.drawn = route.fault.check(hop.peer, self._dice)
            if hop.drawn is not None:
                return None
        return self.choose(hop)

    def target(self, target: Target) -> bytes:
        """What is asked for, in origin form, with its new front. Raises AmbiguousPath."""
        rewrite = self.route.rewrite
        if rewrite is None:
            return target.origin_form
        path = rewrite.apply(target.path or b"/")
        if not REWRITTEN.covers(target.needs):
            raise AmbiguousPath(f"route {self.route.name} rewrites paths, and this one has `//` or an encoded slash")
        canonical_target(path, "GET", leniency=REWRITTEN)
        return path if target.query is None else path + b"?" + target.query


class AppRoutes:
    """Those routes of an inbound listener that lead to an application of their own, or have a fault."""

    __slots__ = ("_courses", "_reading", "apps", "looks_at_headers")

    def __init__(
        self, reading: Reading, courses: Mapping[int, Course], apps: Mapping[str, Upstream], *, looks_at_headers: bool
    ) -> None:
        self._reading = reading
        self.apps = apps  # that they lead to, by address
        self._courses = courses  # by id() of the route, which the listener's configuration keeps
        self.looks_at_headers = looks_at_headers  # to know which route a request is on

    def throws(self, peer: SpiffeId | None) -> bool:
        """Whether dice are thrown for any request of this caller."""
        return any(course.throws(peer) for course in self._courses.values())

    def follow(self, route: Declared, hop: Hop, plan: Plan) -> None:
        """Write into the plan what this route says."""
        course = self._courses.get(id(route))
        if course is not None:
            plan.course = course.route.name
            plan.upstream = course.choose(hop)
            plan.injected = course.strike(hop)

    def judge_plain(self, judge: Judge, hop: Hop, request: PlainRequest) -> Judged | None:
        """What `judge` says of a plain request, and where its route leads it."""
        judged = judge(hop, request)
        hop.drawn = None
        course = self._courses.get(id(self._reading.route_of(hop))) if judged is not None else None
        if judged is None or course is None:
            return judged
        chosen = course.choose_plain(hop)
        return (chosen, *judged[1:]) if chosen is not None else None


class Steering:
    """The routes of one upstream, in their order."""

    __slots__ = ("_courses", "looks_at_headers", "looks_at_paths")

    def __init__(self, courses: Sequence[Course]) -> None:
        self._courses = tuple(courses)
        routes = [course.route for course in courses]
        self.looks_at_headers = any(route.headers for route in routes)
        self.looks_at_paths = any(route.paths or route.rewrite for route in routes)

    def throws(self, peer: SpiffeId | None) -> bool:
        """Whether dice are thrown for any request of this caller."""
        return any(course.throws(peer) for course in self._courses)

    def find(self, hop: Hop, target: bytes) -> tuple[Course | None, Target | None]:
        """The course of a request, and its target as it was read for that; no target where no route looks at paths.

        Raises AmbiguousPath and its kind.
        """
        read = canonical_target(target, hop.method, leniency=ANY_PATH) if self.looks_at_paths else None
        kept = hop.segments
        hop.segments = read.segments if read is not None else ()
        try:
            return next((course for course in self._courses if course.route.matches(hop)), None), read
        finally:
            hop.segments = kept  # the hop is not judged here, and its record has no paths but those that are

    def judge_plain(self, judged: Judged, hop: Hop) -> Judged | None:
        """Where a plain request is led that has come to this upstream; None where the express cannot say."""
        hop.drawn = None
        try:
            course, _ = self.find(hop, hop.target.encode("ascii"))
        except (ProtocolViolation, UnicodeEncodeError):
            return None
        if course is None:
            return judged
        chosen = course.choose_plain(hop)
        return (chosen, course.permit, None) if chosen is not None else None

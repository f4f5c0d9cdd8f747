"""One configuration of a service, as objects: rules, upstreams, and a side for each listener.

The one place that knows constructors. Nothing here opens a socket, so making a generation that is then not used (a port
of it is taken, say) changes nothing. Upstreams whose declaration is the same are carried over, with the connections
that are pooled for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from sidecar.config.sentences import needs_http
from sidecar.config.terms import Address
from sidecar.policy.authz import RuleSet
from sidecar.policy.reading import Reading
from sidecar.proxy.charging import Desk, listener_quotas
from sidecar.proxy.holding import Holding
from sidecar.proxy.inbound import InboundSide
from sidecar.proxy.intake import intake
from sidecar.proxy.outbound import OutboundSide
from sidecar.proxy.upstream import Upstream
from sidecar.runtime.learned import sources_of
from sidecar.runtime.routing import addresses_of, app_routes, steering
from sidecar.traffic.ceilings import CeilingRules
from sidecar.traffic.deadline import DeadlineRules
from sidecar.traffic.destination import DestinationRules
from sidecar.traffic.endpoints import Declared as Listed
from sidecar.traffic.limits import Rates
from sidecar.traffic.marks import Marks
from sidecar.traffic.quota_limits import Quotas
from sidecar.traffic.retry import RetryRules
from sidecar.traffic.shared import Names
from sidecar.traffic.tcp import TcpStates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from ipaddress import IPv4Network, IPv6Network

    from sidecar.config.schema import Service
    from sidecar.config.schema_egress import ClientToken, EgressRule, OutboundTls
    from sidecar.config.schema_inbound import Inbound
    from sidecar.config.schema_outbound import HealthCheck, Outbound
    from sidecar.config.terms import Affinity, HttpVersion
    from sidecar.contract.judge import Contract
    from sidecar.discovery.sources import Source
    from sidecar.net.mtls import Gate
    from sidecar.net.reactor import Reactor
    from sidecar.proxy.asking import Asking
    from sidecar.proxy.bearer import Bearer
    from sidecar.proxy.bearer import Desk as KeyDesk
    from sidecar.proxy.holding import Asker
    from sidecar.proxy.outsiders import Outsider
    from sidecar.proxy.side import Door
    from sidecar.proxy.steering import Steering
    from sidecar.proxy.tcp import Tunnels
    from sidecar.runtime.outside import Outside
    from sidecar.runtime.redirected import Captured
    from sidecar.runtime.wildcards import Many
    from sidecar.telemetry.record import Recorder
    from sidecar.traffic.detectors import Detectors

_LOCALHOST = ("127.0.0.1", "::1")
Place = tuple[str, str]  # ("app", name of the listener in front of it) or ("upstream", its name)


@dataclass(frozen=True, slots=True)
class Declared:
    """An upstream and all that its making depends on."""

    facts: tuple[object, ...]
    upstream: Upstream


@dataclass(frozen=True, slots=True)
class OutsideFacts:
    """What is said of an upstream that is outside the mesh, or of which not everything may be asked."""

    tls: OutboundTls | None = None
    token: ClientToken | None = None
    allow: tuple[EgressRule, ...] = ()
    private: tuple[IPv4Network | IPv6Network, ...] = ()
    judged: bool = False  # where its names lead is
    third_party: bool = False  # and nowhere inside


@dataclass(slots=True)
class Generation:
    """What one configuration came to."""

    service: Service
    recorder: Recorder
    rules: RuleSet
    rates: Rates
    quotas: Quotas
    tcp: TcpStates
    holding: Holding | None  # of requests that their limits hold; None without limits
    upstreams: dict[Place, Declared]
    inbound: list[tuple[Inbound, InboundSide]]
    outbound: list[tuple[str, str, Address, OutboundSide]]  # name, protocol, address, side
    detectors: Detectors | None = None
    many: dict[str, Many] = field(default_factory=dict)  # upstreams with a host `*.`, by what follows that
    captured: Captured | None = None  # of what rules of the kernel bring; None where nobody is redirected

    def put_in_force(self) -> None:
        """From now on what outlives a generation goes by this one."""
        self.tcp.put_in_force()
        self.recorder.watch(self.detectors.observe if self.detectors is not None else None)

    def all_upstreams(self) -> list[Upstream]:
        """Every upstream, the applications behind us included."""
        return [declared.upstream for declared in self.upstreams.values()]

    def left_for(self, after: Generation) -> Iterable[tuple[Upstream, Upstream | None]]:
        """Upstreams that the next generation does not have any more, with those that stand in their place."""
        for place, declared in self.upstreams.items():
            heir = after.upstreams.get(place)
            if heir is None or heir.upstream is not declared.upstream:
                yield declared.upstream, heir.upstream if heir is not None else None


class Maker:
    """Makes the generations of one sidecar."""

    def __init__(
        self, reactor: Reactor, gate: Gate, recorder: Recorder, instance: str, tunnels: Tunnels, asker: Asker,
        desk: Desk, keys: Callable[[], KeyDesk] | None = None, outside: Outside | None = None,
    ) -> None:  # fmt: skip
        self._reactor = reactor
        self._gate = gate
        self._recorder = recorder
        self._instance = instance
        self._tunnels = tunnels
        self._desk = desk
        self._keys = keys  # makes the desk of issuers' keys, once somebody asks for tokens
        self._asker = asker
        self._outside = outside
        self._marks = Marks()
        self.ours: set[Address] = set()  # where our application reaches us, in the generation in force
        self._upstreams: WeakSet[Upstream] = WeakSet()

    def upstreams(self) -> list[Upstream]:
        """Every upstream that was made and is still used, by requests of earlier generations perhaps."""
        return list(self._upstreams)

    def in_force(self, generation: Generation) -> None:
        """This is the generation in force now."""
        listening = {address for _, _, address, _ in generation.outbound}
        named = {Address(host, each.port) for each in listening if each.host == "localhost" for host in _LOCALHOST}
        self.ours.clear()
        self.ours.update(listening | named)
        if generation.captured is not None:
            self.ours.update(generation.captured.listen)
        if self._outside is not None:
            self._outside.in_force(generation.service)

    def generation(self, service: Service, before: Generation | None) -> Generation:
        """The generation of this configuration; `before` is the one in force."""
        rates = Rates(service.rates, before.rates if before is not None else None)
        rules = RuleSet.compile(service.allow, service.deny)
        quotas = Quotas(service.quotas, self._desk, before.quotas if before is not None else None)
        limits = [(listener.name, limit) for listener in service.inbound for limit in listener.tcp_limits]
        tcp = TcpStates(limits, before.tcp if before is not None else None)
        made = Generation(
            service, self._recorder, rates=rates, rules=rules, quotas=quotas, tcp=tcp, holding=self._holding(service),
            upstreams={}, inbound=[], outbound=[],
        )  # fmt: skip
        if service.detectors is not None:
            from sidecar.runtime.detecting import detectors_of  # most have none, and it is memory

            made.detectors = detectors_of(service, before.detectors if before is not None else None, self._recorder)
        for listener in service.inbound:
            addresses = (listener.app, *addresses_of(listener))
            apps = {str(address): self._app(made, before, listener, address) for address in addresses}
            made.inbound.append((listener, self._inbound_side(made, listener, apps)))
        for spec in service.outbound:
            if spec.host.startswith("*."):
                self._many(made, before, spec)
            else:
                self._upstream(made, before, spec)
        for spec in service.outbound:
            if spec.listen is not None:
                side = self._outbound_side(made, spec.name, spec.listen, _called(made, spec.name))
                made.outbound.append((spec.name, spec.protocol, spec.listen, side))
        if service.forward_proxy is not None:
            side = self._outbound_side(made, "forward_proxy", service.forward_proxy, None)
            made.outbound.append(("forward_proxy", "http", service.forward_proxy, side))
        if service.redirect is not None:
            from sidecar.runtime.redirected import captured  # most have none, and it is memory

            called = {name: each.upstream for (kind, name), each in made.upstreams.items()
                      if kind == "upstream" and " " not in name}  # fmt: skip
            made.captured = captured(service, called, partial(self._outbound_said, made))
        return made

    def bring_up_to_date(self, door: Door, current: Generation) -> None:
        """What stands behind a listener that is gone judges by the rules in force too, while it drains."""
        old = door.side
        if isinstance(old, InboundSide):
            apps = old.steering.apps if old.steering is not None else {}
            self._inbound_side(current, old.spec, {**apps, str(old.spec.app): old.app}).take_over(old)
        elif isinstance(old, OutboundSide):
            only = (_called(current, old.only.name) or old.only) if old.only is not None else None
            self._outbound_side(current, old.name, old.listen, only).take_over(old)

    def _holding(self, service: Service) -> Holding | None:
        if not service.rates:
            return None
        redis = service.redis
        names = Names(redis.prefix, service.identity.text) if redis is not None else None
        refuses = redis is not None and redis.when_away == "refuse"
        logs_each = service.access_log.mode == "all"
        return Holding(self._asker, names, self._recorder.metrics, refuses=refuses, logs_each=logs_each)

    # ---- sides -----------------------------------------------------------------------------------------------------

    def _inbound_side(self, made: Generation, spec: Inbound, apps: Mapping[str, Upstream]) -> InboundSide:
        """The side of a listener, with the applications that it and its routes lead to, by address."""
        service = made.service
        reading = Reading.of(service, spec)
        return _side_of(made.detectors)(
            spec,
            identity=service.identity,
            instance=self._instance,
            rules=made.rules,
            gate=self._gate,
            app=apps[str(spec.app)],
            timeouts=service.timeouts,
            limits=service.limits,
            recorder=self._recorder,
            tunnels=self._tunnels,
            marks=self._marks,
            audit_accepts=self._recorder.audit_accepts,
            reading=reading,
            only_http=needs_http(service, spec),
            intake=intake(
                made.rates.limits(spec.name), listener_quotas(made.quotas.limits(spec.name), self._desk, self._reactor),
                made.tcp.limits(spec.name), made.holding,
            ),
            steering=app_routes(spec, reading, apps, self._recorder.split),
            asking=self._asking(service),
            contract=self._contract(made, spec),
            bearer=self._bearer(service, spec),
        )

    def _contract(self, made: Generation, spec: Inbound) -> Contract | None:
        """The contract that the requests of a listener are held to."""
        said = spec.contract
        if said is None or (said.mode == "off" and not made.service.grants):
            return None
        from sidecar.contract.judge import Contract  # most have none, and it is memory

        return Contract(said, made.service.grants)

    def _bearer(self, service: Service, spec: Inbound) -> Bearer | None:
        """What verifies the tokens of a listener; None where it asks for none."""
        if spec.tokens is None:
            return None
        from sidecar.proxy.bearer import bearer_of  # few do, and it is memory

        assert self._keys is not None
        return bearer_of(service, spec.tokens, self._keys(), self._recorder, self._reactor.wall)

    def _asking(self, service: Service) -> Asking | None:
        spec = service.opa
        if spec is None:
            return None
        from sidecar.proxy.asking import Asking  # most have none, and it is memory

        assert self._outside is not None
        return Asking(spec, self._outside.opa(spec), self._recorder.metrics)

    def _outbound_side(self, made: Generation, name: str, listen: Address, only: Upstream | None) -> OutboundSide:
        edge = only is not None and any(each.edge and each.name == only.name for each in made.service.outbound)
        return OutboundSide(only=only, edge=edge, **self._outbound_said(made, name, listen))

    def _outbound_said(self, made: Generation, name: str, listen: Address) -> dict[str, Any]:
        """What every outbound side is told."""
        service = made.service
        by_host = {
            declared.upstream.host: declared.upstream
            for (kind, place), declared in made.upstreams.items()
            if kind == "upstream" and " " not in place  # which is one of many
        }
        return {
            "name": name, "listen": listen, "identity": service.identity, "instance": self._instance,
            "upstreams": by_host, "routes": self._routes(made), "timeouts": service.timeouts,
            "limits": service.limits, "recorder": self._recorder, "tunnels": self._tunnels, "many": made.many or None,
        }  # fmt: skip

    def _routes(self, made: Generation) -> dict[str, Steering]:
        called = {name: each.upstream for (kind, name), each in made.upstreams.items() if kind == "upstream"}
        found = {spec.name: steering(spec, called, self._recorder.split) for spec in made.service.outbound}
        return {name: each for name, each in found.items() if each is not None}

    # ---- upstreams -------------------------------------------------------------------------------------------------

    def _app(self, made: Generation, before: Generation | None, spec: Inbound, address: Address) -> Upstream:
        times = made.service.timeouts
        deadlines = DeadlineRules(times.total, None, times.response_head, f"services.{made.service.name}")
        facts = (
            spec.name, "app", spec.protocol, (Listed(address),), made.service.identity, None, spec.app_http, None,
            deadlines,
        )  # fmt: skip
        return self._declare(made, before, _app_place(spec, address), *facts)

    def _many(self, made: Generation, before: Generation | None, spec: Outbound) -> None:
        """A host `*.`: an upstream for each host of it that was asked for, those of the generation before included."""
        from sidecar.runtime.wildcards import Many  # most have none, and it is memory

        def make(host: str, before: Generation | None = None) -> Upstream:
            return self._upstream(made, before, replace(spec, host=host), f"{spec.name} {host}")

        many = made.many[spec.host.removeprefix("*.")] = Many(spec, make, made.upstreams)
        for kind, name in before.upstreams if before is not None else ():
            entry, _, host = name.partition(" ")
            if kind == "upstream" and entry == spec.name and host.endswith(spec.host[1:]):
                many.keep(host, make(host, before))

    def _upstream(
        self, made: Generation, before: Generation | None, spec: Outbound, place: str = ""
    ) -> Upstream:
        gate = self._gate if spec.unmeshed == "refuse" else None
        http: HttpVersion = "http2" if spec.upgrade == "h2" else "auto"
        rules, times = _rules(spec, made.service), _times(spec, made.service)
        endpoints = tuple(Listed(each.address, each.weight, each.zone) for each in spec.endpoints)
        if place:
            endpoints = (Listed(Address(spec.host, spec.host_port or (443 if spec.tls is not None else 80))),)
        facts = (spec.name, spec.host, spec.protocol, endpoints, spec.identity, gate, http, rules, times)
        return self._declare(
            made, before, ("upstream", place or spec.name), *facts, spec.affinity, spec.health, sources_of(spec),
            outside=_outside(spec, wild=bool(place)),
        )  # fmt: skip

    def _declare(
        self,
        made: Generation,
        before: Generation | None,
        place: Place,
        name: str,
        host: str,
        protocol: str,
        endpoints: tuple[Listed, ...],
        identity: object,
        gate: Gate | None,
        http: HttpVersion,
        rules: DestinationRules | None,
        deadlines: DeadlineRules,
        affinity: Affinity | None = None,
        health: HealthCheck | None = None,
        sources: tuple[Source, ...] = (),
        outside: OutsideFacts | None = None,
    ) -> Upstream:
        """The upstream of this place: the one that is there, where all it depends on is the same, or a new one."""
        service = made.service
        times, limits = service.timeouts, service.limits
        facts = (
            name, host, protocol, endpoints, identity, gate, http, rules, deadlines, affinity, health, sources,
            times.connect, times.handshake, times.pool_idle_app, times.pool_idle_peer, times.idle, times.request_head,
            limits.pool, limits.pending, limits.head_bytes, limits.head_lines, outside,
        )  # fmt: skip
        known = before.upstreams.get(place) if before is not None else None
        if known is not None and known.facts == facts:
            made.upstreams[place] = known
            return known.upstream
        upstream = Upstream(
            self._reactor,
            name=name,
            host=host,
            protocol=protocol,
            endpoints=endpoints,
            identity=identity,  # type: ignore[arg-type]
            gate=gate,
            timeouts=times,
            limits=limits,
            on_handshake=self._recorder.handshake,
            on_retry=self._recorder.retry,
            on_trunk_end=partial(self._recorder.trunk_ended, "inbound" if place[0] == "app" else "outbound", name),
            marks=self._marks,
            http=http,
            rules=rules,
            affinity=affinity,
            health=health,
            sources=sources,
            ours=self.ours,
            on_check=self._recorder.checked,
            times=deadlines,
            outsider=self._outsider(name, host, endpoints, outside) if outside is not None else None,
        )
        self._upstreams.add(upstream)
        made.upstreams[place] = Declared(facts, upstream)
        return upstream

    def _outsider(self, name: str, host: str, endpoints: tuple[Listed, ...], facts: OutsideFacts) -> Outsider:
        from sidecar.runtime.outsiders import outsider  # most have none, and it is memory

        tokens = None
        if facts.token is not None:
            assert self._outside is not None
            tokens = self._outside.credentials(name, facts.token)
        return outsider(name, host, frozenset(each.address for each in endpoints), facts, tokens)


def _outside(spec: Outbound, *, wild: bool) -> OutsideFacts | None:
    """What makes an upstream special, if anything does."""
    if spec.unmeshed == "refuse":
        return OutsideFacts(allow=spec.allow) if spec.allow else None
    third = wild or spec.tls is not None or spec.token is not None or spec.private is not None
    return OutsideFacts(spec.tls, spec.token, spec.allow, spec.private or (), judged=True, third_party=third)


def _side_of(detectors: Detectors | None) -> Callable[..., InboundSide]:
    """What makes an inbound side: one that refuses whom detectors hold, where they may hold anybody."""
    if detectors is None or not detectors.acts:
        return InboundSide
    from sidecar.proxy.guarding import GuardedSide

    return partial(GuardedSide, holds=detectors.holds)


def _times(spec: Outbound, service: Service) -> DeadlineRules:
    """How long a request to an upstream may take, and where that stands if not in the service's `timeouts`."""
    ours, times = spec.timeouts, service.timeouts
    own = (ours.total, ours.per_try, ours.response_head) != (times.total, times.per_try, times.response_head)
    where = f"services.{service.name}.outbound.{spec.name}" if own else f"services.{service.name}"
    return DeadlineRules(ours.total, ours.per_try, ours.response_head, where)


def _rules(spec: Outbound, service: Service) -> DestinationRules:
    """What the configuration says of one upstream, in the words of `sidecar.traffic`."""
    key = service.identity.text.encode() if spec.affinity is not None and spec.affinity.kind == "caller" else b""
    retries = RetryRules(
        tries=1 + spec.retries.resends, statuses=frozenset(spec.retries.statuses),
        grpc=frozenset(spec.retries.grpc_statuses),
    )  # fmt: skip
    ceilings = CeilingRules(requests=service.limits.requests, retries=service.limits.retries)
    return DestinationRules(
        balance=spec.balance, retries=retries, budget_ratio=spec.retries.budget, watch=spec.breaker == "on",
        ceilings=ceilings, zone=service.zone, ramp=spec.slow_start, key=key,
    )  # fmt: skip


def _app_place(spec: Inbound, address: Address) -> Place:
    return "app", spec.name if address == spec.app else f"{spec.name} {address}"


def _called(made: Generation, name: str) -> Upstream | None:
    declared = made.upstreams.get(("upstream", name))
    return declared.upstream if declared is not None else None

"""Drafts → MeshConfig: defaults merged, ports handed out, identities and endpoints taken from the services of the file.

The result is complete: nobody later needs to know that a key was absent. References that lead nowhere are noted here,
where they are followed; what is odd between parts that each stand for themselves is `lint`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final, Generic, TypeVar

from certs.errors import InvalidSpiffeId
from certs.spiffe import SpiffeId, workload_id
from sidecar.config import ports, sources
from sidecar.config.contracts import granted
from sidecar.config.files import Collected
from sidecar.config.mistakes import Book, meant, nearest
from sidecar.config.plain import Scope
from sidecar.config.reader import Draft
from sidecar.config.routes_filled import fill_routes
from sidecar.config.schema import Health, MeshConfig, Service
from sidecar.config.schema_amounts import QuotaLimit
from sidecar.config.schema_inbound import Inbound, RateLimit, Rule
from sidecar.config.schema_outbound import EndpointEntry, Outbound, OutboundTimeouts
from sidecar.config.schema_tokens import Issuer
from sidecar.config.terms import Address, Effect

T = TypeVar("T")

# what `defaults` says for all services
MERGED: Final = ("timeouts", "limits", "access_log", "audit", "tls", "revocation", "redis")


@dataclass(frozen=True, slots=True)
class Placed(Generic[T]):
    """A value with the path under which it was written."""

    value: T
    path: str


@dataclass
class View:
    """One service with its parts and their paths, for the checks. An incomplete one lost a part to a mistake."""

    name: str
    path: str
    draft: Draft
    identity: SpiffeId
    address: str
    incomplete: bool = False
    inbound: list[Placed[Inbound]] = field(default_factory=list)
    outbound: list[Placed[Outbound]] = field(default_factory=list)
    allow: list[Placed[Rule]] = field(default_factory=list)
    deny: list[Placed[Rule]] = field(default_factory=list)
    rates: list[Placed[RateLimit]] = field(default_factory=list)
    quotas: list[Placed[QuotaLimit]] = field(default_factory=list)
    service: Service | None = None

    @property
    def built(self) -> Service:
        """The service; there once `assemble` has returned."""
        assert self.service is not None
        return self.service

    @property
    def host(self) -> str:
        """What services share whose ports can clash: the machine, as far as the address tells."""
        return "loopback" if is_loopback(self.address) else self.address


def is_loopback(host: str) -> bool:
    """Whether this host can only be this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def assemble(collected: Collected, scope: Scope, book: Book) -> tuple[MeshConfig, list[View]]:
    """The whole config, and the views to check it by. Only to be used if the book stays empty. Raises TooMany."""
    main = collected.main
    scope = Scope(main.values.get("trust_domain", scope.trust_domain), main.values.get("namespace", scope.namespace))
    views = {name: _view(name, draft, scope, book) for name, draft in collected.services.items()}
    free = _FreePorts(views.values())
    for view in views.values():
        _add_inbound(view, free)
    issuers = _issuers(main)
    for view in views.values():
        _add_outbound(view, views, main.values.get("defaults"), broken=collected.broken, book=book)
        view.allow = _rules(view, "allow", book) + [Placed(rule, path) for rule, path in granted(view, book)]
        view.deny = _rules(view, "deny", book)
        view.rates = _rates(view, book)
        view.quotas = _quotas(view, book)
        view.service = _service(view, main.values.get("defaults"), free, issuers)
    config = MeshConfig(
        trust_domain=scope.trust_domain,
        namespace=scope.namespace,
        ca=main.values["ca"].build() if "ca" in main.values else main.get("ca"),
        services={name: view.built for name, view in views.items()},
        files=tuple(book.sources),
        defaults=main.values["defaults"].build() if "defaults" in main.values else main.get("defaults"),
        include=main.get("include"),
        issuers=issuers,
    )
    return config, list(views.values())


def _issuers(main: Draft) -> dict[str, Issuer]:
    return {name: draft.build(name=name) for name, draft in main.values.get("issuers", {}).items()}


def _view(name: str, draft: Draft, scope: Scope, book: Book) -> View:
    path = f"services.{name}"
    identity = draft.values.get("identity")
    if identity is None:
        try:
            identity = workload_id(scope.trust_domain, scope.namespace, name)
        except InvalidSpiffeId as error:  # together they may be too long
            book.at(path, str(error))
            identity = scope.trust_domain.id("mesh", "none")
    address = draft.get("address")
    view = View(name, path, draft, identity, "127.0.0.1" if address == "localhost" else address)
    view.incomplete = draft.incomplete
    return view


class _FreePorts:
    """Hands out default ports, counting up past every port that the file names on the same host."""

    def __init__(self, views: Iterable[View]) -> None:
        self.taken: dict[str, set[int]] = {}
        for view in views:
            self.taken.setdefault(view.host, set()).update(_named_ports(view.draft))

    def take(self, host: str, first: int) -> int:
        """The first port from `first` that nobody on this host has."""
        taken = self.taken.setdefault(host, set())
        port = next((port for port in range(first, 65536) if port not in taken), first)
        taken.add(port)
        return port


def _named_ports(draft: Draft) -> set[int]:
    """Every port of its own host that a service's draft names."""
    health = draft.values.get("health")
    addresses = [draft.values.get("forward_proxy"), health.values.get("listen") if health else None]
    addresses += [each.values.get("listen") for each in draft.values.get("outbound", [])]
    addresses += [each.get("app") for each in draft.values.get("inbound", [])]
    routes = [route for each in draft.values.get("inbound", []) for route in each.values.get("routes", [])]
    addresses += [each.values.get("app") for route in routes for each in (route, *route.values.get("split", []))]
    named = {each.values["port"] for each in draft.values.get("inbound", []) if "port" in each.values}
    return named | {address.port for address in addresses if address is not None}


def _add_inbound(view: View, free: _FreePorts) -> None:
    try:
        bind = str(ip_address(view.address))
    except ValueError:
        bind = "0.0.0.0"  # noqa: S104 - peers come from elsewhere, and only mTLS is spoken here
    for index, draft in enumerate(view.draft.values.get("inbound", [])):
        view.incomplete = view.incomplete or draft.incomplete
        if draft.incomplete:
            continue
        filled = {
            "name": draft.values.get("name", draft.get("protocol")),
            "port": draft.values.get("port") or _called_port(view, draft) or free.take(view.host, ports.INBOUND),
            "bind": draft.values.get("bind", bind),
        }
        if "tcp_limits" in draft.values:
            filled["tcp_limits"] = _tcp_limits(draft.values["tcp_limits"])
        view.inbound.append(Placed(draft.build(**filled), f"{view.path}.inbound[{index}]"))


def _called_port(view: View, listener: Draft) -> int:
    """The port that callers of a redirected listener connect to, where it names none: the application's own."""
    app: Address = listener.get("app")
    return app.port if "redirect" in view.draft.values else 0


def _tcp_limits(drafts: Iterable[Draft]) -> tuple[Any, ...]:
    """The limits of a listener, named by their place where they have no name."""
    return tuple(
        each.build(name=each.values.get("name", f"tcp-{number}"))
        for number, each in enumerate(drafts, 1) if not each.incomplete
    )  # fmt: skip


def _service(
    view: View, defaults: Draft | None, free: _FreePorts, issuers: Mapping[str, Issuer]
) -> Service:
    draft = view.draft
    merged = {}
    for name in MERGED:
        own, under = draft.values.get(name), defaults.values.get(name) if defaults else None
        if own is not None:
            merged[name] = own.build(under)
        elif under is not None:
            merged[name] = under.build()
    health = draft.values["health"].build() if "health" in draft.values else None
    if health is None or "listen" not in draft.values["health"].values:
        health = Health(Address("127.0.0.1", free.take(view.host, ports.HEALTH)))
    service: Service = draft.build(
        name=view.name,
        identity=view.identity,
        address=view.address,
        health=health,
        inbound=tuple(each.value for each in view.inbound),
        outbound=tuple(each.value for each in view.outbound),
        allow=tuple(each.value for each in view.allow),
        deny=tuple(each.value for each in view.deny),
        grants={caller: each.build() for caller, each in draft.values.get("grants", {}).items() if not each.incomplete},
        rates=tuple(each.value for each in view.rates),
        quotas=tuple(each.value for each in view.quotas),
        issuers=tuple(each for name, each in issuers.items() if name in _asked(view)),
        **merged,
    )
    return service


def _asked(view: View) -> set[str]:
    """The issuers whose tokens its listeners ask for."""
    return {name for each in view.inbound if each.value.tokens is not None for name in each.value.tokens.issuers}


# ---- upstreams ---------------------------------------------------------------------------------------------------


def _add_outbound(
    view: View, views: Mapping[str, View], defaults: Draft | None, *, broken: bool, book: Book
) -> None:
    drafts = view.draft.values.get("outbound", [])
    targets = [draft.values.get("to") for draft in drafts]
    for index, draft in enumerate(drafts):
        path = f"{view.path}.outbound[{index}]"
        if draft.incomplete:
            view.incomplete = True
            continue
        target = views.get(draft.values["to"])
        if target is not None:
            filled = _within(draft, target, path, book)
        else:
            filled = {}
            _outside(draft, list(views), path, broken, book)
        if sources.settle(draft, filled.get("identity", draft.values.get("identity")), path, book):
            filled["endpoints"] = ()
        if draft.get("unmeshed") != "passthrough" and any(each.unix for each in _addresses(draft)):
            hint = "name host:port, or add unmeshed: passthrough for what is not in the mesh"
            book.at(f"{path}.endpoints", "no peer's sidecar listens on a Unix socket", hint)
        filled.setdefault("host", draft.values["to"])
        filled["balance"] = "maglev" if "affinity" in draft.values else "least_loaded"
        fill_routes(draft.values.get("routes", ()))
        filled["name"] = draft.values["to"]
        if targets.count(draft.values["to"]) > 1 and filled.get("listener"):
            filled["name"] += "." + filled["listener"]
        filled |= {**_said(draft, filled), "timeouts": _times(draft, view.draft, defaults)}
        view.outbound.append(Placed(draft.build(**filled), path))


def _times(draft: Draft, service: Draft, defaults: Draft | None) -> OutboundTimeouts:
    """What holds for an upstream: what is written there, over its service's, over the defaults."""
    said: dict[str, Any] = {}
    for above in (defaults, service, draft):
        block = above.values.get("timeouts") if above is not None else None
        if block is not None:
            said |= {name: value for name, value in block.values.items() if name in OutboundTimeouts.__slots__}
    return OutboundTimeouts(**said)


def _addresses(draft: Draft) -> list[Address]:
    """Of the endpoints that were written, as far as they could be read."""
    return [each.values["address"] for each in draft.values.get("endpoints", ()) if "address" in each.values]


def _said(draft: Draft, filled: Mapping[str, Any]) -> dict[str, Any]:
    """What was written wins over what would be filled in, except for the listener, whose name replaces its port."""
    return {key: draft.values[key] for key in filled if key in draft.values and key != "listener"}


def _within(draft: Draft, target: View, path: str, book: Book) -> dict[str, Any]:
    """What an upstream takes from the service of this file that it names."""
    if draft.get("unmeshed") == "passthrough":
        book.at(f"{path}.unmeshed", f"{target.name} is in this mesh; passthrough would send it plaintext")
    if draft.values.get("identity", target.identity) != target.identity:
        book.at(f"{path}.identity", f"{target.name} in this file is {target.identity}", "remove the key")
    inbound = _chosen(draft, target, path, book)
    if inbound is None:
        return {"identity": target.identity}
    if inbound.protocol not in ("auto", draft.values.get("protocol", inbound.protocol)):
        book.at(
            f"{path}.protocol", f"listener {inbound.name} of {target.name} speaks {inbound.protocol}", "remove the key"
        )
    return {
        "identity": target.identity,
        "endpoints": (EndpointEntry(Address(target.address, inbound.port)),),
        "protocol": inbound.protocol,
        "listener": inbound.name,
    }


def _chosen(draft: Draft, target: View, path: str, book: Book) -> Inbound | None:
    """The listener of the target that is meant."""
    listeners = [placed.value for placed in target.inbound]
    wanted = draft.values.get("listener")
    if wanted is not None:
        chosen = find_listener(wanted, listeners)
        if chosen is None and not target.incomplete and listeners:
            hint = meant(wanted, [each.name for each in listeners], what=f"{target.name} has")
            book.at(f"{path}.port", f'{target.name} has no inbound listener "{wanted}"', hint)
        if chosen is not None or listeners:
            return chosen
    if len(listeners) == 1:
        return listeners[0]
    if not listeners and not target.incomplete:
        book.at(
            f"{path}.to", f"{target.name} has no inbound listener that could be called", f"see {target.draft.where}"
        )
    elif listeners and not book.has(f"{path}.port"):
        names = " or ".join(f"port: {each.name}" for each in listeners)
        book.at(f"{path}.to", f"{target.name} has several listeners", f"say which one with {names}")
    return None


def find_listener(wanted: str, listeners: Sequence[Inbound]) -> Inbound | None:
    """The listener of this name, or on this port."""
    by_name = next((each for each in listeners if each.name == wanted), None)
    return by_name or next((each for each in listeners if str(each.port) == wanted), None)


def _outside(draft: Draft, services: Sequence[str], path: str, broken: bool, book: Book) -> None:
    """An upstream that is no service of this file has to say everything itself."""
    name = draft.values["to"]
    passthrough = draft.get("unmeshed") == "passthrough"
    if not passthrough and not {"identity", "endpoints", "endpoints_from"} & draft.values.keys():
        if not broken:
            near = nearest(name, services)
            hint = f'did you mean "{near}"?' if near else "a service outside this file needs identity: and endpoints:"
            book.at(f"{path}.to", f'no service "{name}" in this file', hint)
        return
    if "listener" in draft.values:
        book.at(f"{path}.port", "only services of this file have listeners by name", "put the port into endpoints:")
    wrong = book.has(f"{path}.endpoints") or book.has(f"{path}.endpoints_from")
    many = draft.values.get("host", "").startswith("*.")  # each host of it is looked up by its own name
    if not {"endpoints", "endpoints_from"} & draft.values.keys() and not wrong and not many:
        book.at(f"{path}.to", f'"{name}" has no endpoints', "add endpoints: [host:port], or endpoints_from:")
    if not passthrough and "identity" not in draft.values:
        hint = "add identity:, or unmeshed: passthrough if it is not in the mesh"
        book.at(f"{path}.to", f'"{name}" has no identity to check', hint)
    if passthrough and "identity" in draft.values:
        book.at(f"{path}.unmeshed", "passthrough proves no identity", "remove identity: or unmeshed:")


# ---- rules -------------------------------------------------------------------------------------------------------


def _rules(view: View, effect: Effect, book: Book) -> list[Placed[Rule]]:
    return [
        Placed(draft.build(name=name, effect=effect, ports=ports), path)
        for path, draft, name, ports in _entries(view, effect, effect, book)
    ]


def _rates(view: View, book: Book) -> list[Placed[RateLimit]]:
    return [
        Placed(draft.build(name=name, burst=draft.values.get("burst", draft.values["limit"].count), ports=ports), path)
        for path, draft, name, ports in _entries(view, "rates", "rate", book)
    ]


def _quotas(view: View, book: Book) -> list[Placed[QuotaLimit]]:
    return [
        Placed(draft.build(name=name, ports=ports), path)
        for path, draft, name, ports in _entries(view, "quotas", "quota", book)
    ]


def _entries(view: View, key: str, noun: str, book: Book) -> Iterator[tuple[str, Draft, str, tuple[str, ...]]]:
    """The entries of a list of a service that are whole: path, draft, name, and the listeners that it is for."""
    for index, draft in enumerate(view.draft.values.get(key, [])):
        path = f"{view.path}.{key}[{index}]"
        if draft.incomplete:
            view.incomplete = True
            continue
        ports = _listener_names(draft.values.get("ports", ()), view, path, book)
        yield path, draft, draft.values.get("name", f"{noun}-{index + 1}"), ports


def _listener_names(wanted: Sequence[str], view: View, path: str, book: Book) -> tuple[str, ...]:
    """Listener names for what the `port` of a rule or a limit says."""
    listeners = [placed.value for placed in view.inbound]
    names = []
    for index, each in enumerate(wanted):
        found = find_listener(each, listeners)
        names.append(found.name if found else each)
        if found is None and not view.incomplete:
            here = f"{path}.port[{index}]" if f"{path}.port[{index}]" in book.places else f"{path}.port"
            hint = meant(each, [listener.name for listener in listeners], what=f"{view.name} has")
            book.at(here, f'{view.name} has no inbound listener "{each}"', hint)
    return tuple(names)

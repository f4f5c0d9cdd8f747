"""Which routes a request would be on that was never sent, and what its own sidecar says of it: for `mesh explain --from
… --to …`.

Two sidecars have their say: the caller's own, whose route may rewrite the path before anybody judges it and whose
`allow` lists what may be asked, and the called one's, whose route says which application gets what was allowed. For an
upstream outside the mesh there is the first alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sidecar.errors import EgressDenied, HopError
from sidecar.hop import Hop
from sidecar.http.canonical import Leniency, canonical_target
from sidecar.policy.egress import EgressRules
from sidecar.policy.reading import Reading
from sidecar.policy.reasons import reason_of
from sidecar.traffic.declared import inbound_route, outbound_route
from sidecar.traffic.routes import Route, Routes

if TYPE_CHECKING:
    from sidecar.config.schema import MeshConfig, Service
    from sidecar.config.schema_outbound import Outbound

_ANY_PATH: Final = Leniency(encoded_slash=True, empty_segments=True, path_parameters=True)


@dataclass(frozen=True, slots=True)
class Steered:
    """A question as the called sidecar gets it, and what the caller's own has done to it."""

    question: dict[str, Any]
    words: tuple[str, ...] = ()  # for people, a line for each route
    note: str = ""
    asked: Outbound | None = None  # the entry by which the caller calls it; None where the config has none
    refused: HopError | None = None  # why the caller's own sidecar does not let it out


def refusal(error: HopError, **facts: str) -> dict[str, Any]:
    """The answer to a question that is refused before any rule of the called service is asked."""
    told = reason_of(error, **facts).to_json()
    hint = {"hint": error.hint} if isinstance(error, EgressDenied) else {}
    return {"verdict": "deny", "error": error.name, "detail": error.detail, "explained": told, **hint}


def let_out(way: Steered) -> dict[str, Any]:
    """The answer to a question about an upstream outside the mesh, which no other sidecar judges."""
    assert way.asked is not None
    spec = way.asked
    if way.refused is not None:
        return refusal(way.refused, upstream=spec.name) | {"routes": list(way.words)}
    why = "its `allow` lists this" if spec.allow else "it has no `allow`, so it may be asked for anything"
    text = f"the request goes out to {spec.name} ({spec.host}), outside the mesh: {why}"
    return {"verdict": "permit", "rule": "", "text": text, "routes": list(way.words)}


def steered(config: MeshConfig, called: str, question: Mapping[str, Any]) -> Steered:
    """Lead a question along the routes of whoever asks it, where that is a service of this config, and judge it as that
    one's own sidecar would. The question is one of `sidecar.policy.question.hop_of`.
    """
    caller = str(question.get("from") or "")
    asking = next((each for each in config.services.values() if caller in (each.name, each.identity.text)), None)
    spec = _asked(asking, called, question) if asking is not None else None
    if asking is None or spec is None:
        return Steered(dict(question))
    way = _routed(asking, spec, called, question)
    return replace(way, asked=spec, refused=_refused(spec, way.question))


def _refused(spec: Outbound, question: Mapping[str, Any]) -> HopError | None:
    """What the proxy's own list says of it, as it would be sent."""
    if not spec.allow:
        return None
    method, path = str(question.get("method") or "GET"), str(question.get("path") or "/")
    try:
        EgressRules(spec.name, spec.allow).check(method, path.encode("ascii", "replace"))
    except HopError as error:
        return error
    return None


def _routed(asking: Service, spec: Outbound, called: str, question: Mapping[str, Any]) -> Steered:
    same = dict(question)
    if not spec.routes:
        return Steered(same)
    hop = Hop("outbound", spec.name, 0, "http", peer=asking.identity, destination=spec.identity)
    hop.method, hop.target = str(question.get("method") or "GET"), str(question.get("path") or "/")
    hop.headers = _headers(question)
    try:
        read = canonical_target(hop.target.encode("ascii", "replace"), hop.method, leniency=_ANY_PATH)
    except HopError:
        return Steered(same)  # the called one says what is wrong with it
    hop.segments = read.segments
    route = Routes([outbound_route(spec, each) for each in spec.routes]).find(hop)
    if route is None:
        return Steered(same, (f"out of {asking.name}: on none of its routes to {spec.name}",))
    if route.rewrite is not None:
        path, mark, query = hop.target.partition("?")
        same["path"] = route.rewrite.apply(path.encode("ascii", "replace")).decode("ascii") + mark + query
    if route.request:
        same["headers"] = _mapping(route.request.apply(hop.headers))
    names = {each.name: each.to for each in asking.outbound}
    others = tuple(name for name, weight in _parts(route) if weight and names.get(name, name) != called)
    where = next(each.where for each in spec.routes if each.name == route.name)
    words = f"out of {asking.name}: {route.name} ({where}), {sentence(route, (spec.name,))}"
    return Steered(same, (words,), _note(route, others, names, called))


def led(service: Service, hop: Hop) -> str:
    """Which route of the called service a request is on that it has read, and where that leads; empty for none."""
    listener = next((each for each in service.inbound if each.name == hop.listener), None)
    if listener is None or hop.protocol != "http":
        return ""
    found = Reading.of(service, listener).route_of(hop)
    if found is None:
        return ""
    return f"at {service.name}: {found.path.text}, {sentence(inbound_route(listener, found), (str(listener.app),))}"


def sentence(route: Route, usual: tuple[str, ...]) -> str:
    """What a route does with a request, in words. `usual` is where it would go without one."""
    parts = _parts(route)
    total = sum(weight for _, weight in parts)
    shares = [f"{name} ({weight / total:.4g})" if len(parts) > 1 else name for name, weight in parts]
    said = [f"to {' or '.join(shares)}"] if route.to.names != usual else ["as usual"]
    if route.rewrite is not None:
        said.append(f"its path gets the front {route.rewrite.front.decode('ascii') or '/'}")
    said += ["request headers are changed"] if route.request else []
    said += ["headers of the answer are changed"] if route.response else []
    said += [f"fault: {route.fault}"] if route.fault is not None else []
    return ", ".join(said)


def _parts(route: Route) -> list[tuple[str, int]]:
    return list(zip(route.to.names, route.to.weights, strict=True))


def _note(route: Route, others: tuple[str, ...], names: Mapping[str, str], called: str) -> str:
    if not others:
        return ""
    here = any(weight and names.get(name, name) == called for name, weight in _parts(route))
    elsewhere = " and ".join(names.get(name, name) for name in others)
    what = f"some of these requests go to {elsewhere}" if here else f"such requests go to {elsewhere}, not to {called}"
    return f"{what}, whose own rules judge them: ask with --to {names.get(others[0], others[0])} too"


def _asked(asking: Service, called: str, question: Mapping[str, Any]) -> Outbound | None:
    """The entry by which this service calls that one; by its listener where several do."""
    wanted = str(question.get("port") or "")
    entries = [each for each in asking.outbound if each.to == called and each.protocol != "tcp"]
    return next((each for each in entries if each.listener == wanted), entries[0] if entries else None)


def _headers(question: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    given = question.get("headers")
    if not isinstance(given, Mapping):
        return []
    return [
        (str(name).lower().encode(), str(line).encode())
        for name, value in given.items() for line in (value if isinstance(value, list) else [value])
    ]  # fmt: skip


def _mapping(headers: list[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.decode(), []).append(value.decode())
    return found

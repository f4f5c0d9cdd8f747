"""A request that was never sent, made into a hop: what `mesh explain --from … --to … --path …` asks about.

It is read as strictly as one from the wire, by the same functions, so that the answer is the one the wire would get.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from certs.errors import InvalidSpiffeId, MeshError
from certs.spiffe import SpiffeId, workload_id
from sidecar.hop import Hop
from sidecar.http.canonical import canonical_target, request_host

if TYPE_CHECKING:
    from sidecar.config.schema import Inbound, Service


class BadQuestion(MeshError):
    """The question names something that is not there, or cannot be read."""

    name = "bad_question"


def hop_of(question: Mapping[str, Any], service: Service) -> Hop:
    """The hop that this request to `service` would be.

    Keys: `from` (a service, `namespace/service` or a SPIFFE ID; absent for a caller without identity), `method`,
    `path`, `host`, `headers` (a mapping), `source` (an IP address), `port` (a listener's name or port). Raises
    BadQuestion, and ProtocolViolation and its kind where the wire would refuse before any rule is asked.
    """
    listener = _listener(question, service)
    hop = Hop("inbound", listener.name, listener.port, listener.protocol, destination=service.identity)
    if question.get("from"):
        hop.peer = _caller(str(question["from"]), service)
    if question.get("source"):
        try:
            hop.source = ip_address(str(question["source"]))
        except ValueError:
            raise BadQuestion(f"{question['source']!r} is not an IP address") from None
    if listener.protocol == "http":
        _read_http(hop, question, service)
    return hop


def _read_http(hop: Hop, question: Mapping[str, Any], service: Service) -> None:
    hop.method = str(question.get("method") or "GET")
    hop.target = str(question.get("path") or "/")
    hop.version = "1.1"
    host = str(question.get("host") or service.name)
    headers = question.get("headers") or {}
    if not isinstance(headers, Mapping):
        raise BadQuestion("headers is a mapping of names to values")
    hop.headers = [(b"host", host.encode()), *((str(k).lower().encode(), str(v).encode()) for k, v in headers.items())]
    target = canonical_target(hop.target.encode(), hop.method)
    hop.host, _ = request_host(target, [host.encode()], hop.version)
    hop.segments = target.segments


def _listener(question: Mapping[str, Any], service: Service) -> Inbound:
    wanted = str(question.get("port") or "")
    for listener in service.inbound:
        if wanted in (listener.name, str(listener.port)) or (
            not wanted and ("path" not in question or listener.protocol == "http")
        ):
            return listener
    known = ", ".join(listener.name for listener in service.inbound) or "none"
    raise BadQuestion(f"{service.name} has no listener {wanted or 'for HTTP'!r}; it has: {known}")


def _caller(text: str, service: Service) -> SpiffeId:
    own = service.identity
    try:
        if text.startswith("spiffe://"):
            return SpiffeId.parse(text)
        namespace, slash, name = text.rpartition("/")
        if not slash:
            namespace = own.segments[1] if own.segments[:1] == ("ns",) and len(own.segments) == 4 else "default"
        return workload_id(own.trust_domain, namespace, name)
    except InvalidSpiffeId as error:
        raise BadQuestion(str(error)) from None

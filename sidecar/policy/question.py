"""A request that was never sent, made into a hop: what `mesh explain --from … --to … --path …` asks about.

It is read as strictly as one from the wire, by the same functions, so that the answer is the one the wire would get.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from certs.errors import InvalidSpiffeId, MeshError
from certs.spiffe import SpiffeId, TrustDomain, workload_id
from sidecar.config.document import Scalar
from sidecar.config.mistakes import nearest
from sidecar.config.plain import NOWHERE, BadValue
from sidecar.config.posture import read_moment
from sidecar.config.terms import Where
from sidecar.errors import IdentityRefused
from sidecar.hop import Hop, Token
from sidecar.http.h1 import H1Server
from sidecar.http.message import RequestHead
from sidecar.policy.reading import Reading

if TYPE_CHECKING:
    from sidecar.config.schema import MeshConfig, Service
    from sidecar.config.schema_inbound import Inbound
    from sidecar.hop import HopProtocol


class BadQuestion(MeshError):
    """The question names something that is not there, or cannot be read."""

    name = "bad_question"


def hop_of(question: Mapping[str, Any], service: Service) -> Hop:
    """The hop that this request to `service` would be.

    Keys: `from` (a service, `namespace/service` or a SPIFFE ID; absent for a caller without identity), `method`,
    `path`, `host`, `headers` (a mapping of names to a value or to a list of them), `source` (an IP address), `port` (a
    listener's name or port), `claims` (a mapping) and `scopes` (a list) of a bearer token that is taken for
    verified, `operation` (an operationId); `time` is `moment_of`'s.
    Raises BadQuestion, and ProtocolViolation and its kind where the wire would
    refuse before any rule is asked.
    """
    listener = _listener(question, service)
    spoken: HopProtocol = "tcp" if listener.protocol == "tcp" else "http"
    hop = Hop("inbound", listener.name, listener.port, spoken, destination=service.identity)
    if question.get("from"):
        hop.peer = _caller(str(question["from"]), service)
    if question.get("source"):
        try:
            hop.source = ip_address(str(question["source"]))
        except ValueError:
            raise BadQuestion(f"{question['source']!r} is not an IP address") from None
    if listener.protocol != "tcp":
        _read_http(hop, question, service, listener)
        hop.operation = str(question.get("operation") or hop.operation)
        hop.token = _token(question.get("claims"), question.get("scopes"))
    return hop


def moment_of(question: Mapping[str, Any], now: float) -> float:
    """Seconds since the epoch: the `time` that the question is about (a date or a moment, ISO 8601), or else now.

    Raises BadQuestion.
    """
    if not question.get("time"):
        return now
    try:
        return read_moment(Scalar(Where("", 0), str(question["time"]), plain=False), NOWHERE)
    except BadValue as bad:
        raise BadQuestion("; ".join(filter(None, (bad.message, bad.hint)))) from None


def _token(claims: object, scopes: object) -> Token | None:
    """The token that would have been verified; None where the question names none."""
    if claims is None and scopes is None:
        return None
    if not isinstance(claims or {}, Mapping) or not isinstance(scopes or [], list):
        raise BadQuestion("claims is a mapping of names to values, scopes a list")
    said: Mapping[str, object] = claims if isinstance(claims, Mapping) else {}
    listed = scopes if isinstance(scopes, list) else []
    return Token(
        str(said.get("iss", "")), str(said.get("sub", "")), said, frozenset(map(str, listed)), float("inf"), "asked"
    )


def check_vouched(hop: Hop, trusted: Collection[TrustDomain]) -> None:
    """Refuse, as the handshake would, a caller of a domain whose roots we do not have. Raises IdentityRefused."""
    if hop.peer is not None and hop.peer.trust_domain not in trusted:
        known = ", ".join(str(domain) for domain in trusted)
        detail = f"{hop.peer} is of {hop.peer.trust_domain}, and we have roots of {known} only"
        raise IdentityRefused("no_bundle", detail)


def unknown_caller(hop: Hop, config: MeshConfig) -> str:
    """What to say of a caller that is no service of this config, and may be a slip; empty where it is one."""
    known = {service.identity: name for name, service in config.services.items()}
    if hop.peer is None or hop.peer in known:
        return ""
    if hop.peer.trust_domain != config.trust_domain:
        return f"{hop.peer} gets as far as the rules only where the sidecar has roots of {hop.peer.trust_domain}"
    near = nearest(hop.peer.short.rpartition("/")[2], list(known.values()))
    return f"{hop.peer.short} is no service of the config{f'; did you mean {near}?' if near else ''}"


def _read_http(hop: Hop, question: Mapping[str, Any], service: Service, listener: Inbound) -> None:
    """Write the request as bytes and read it as the proxy reads what a peer sends."""
    hop.method = str(question.get("method") or "GET")
    hop.target = str(question.get("path") or "/")
    lines = [f"{hop.method} {hop.target} HTTP/1.1", f"host: {question.get('host') or service.name}"]
    lines += [f"{name}: {value}" for name, value in _headers(question.get("headers") or {})]
    if any(character in line for line in lines for character in "\r\n\0"):
        raise BadQuestion("a line break or NUL cannot be part of a method, path, host or header")
    codec = H1Server(service.limits.head_bytes, service.limits.head_lines)
    codec.receive("\r\n".join((*lines, "", "")).encode())
    head = codec.next_event()
    if not isinstance(head, RequestHead):
        raise BadQuestion("that is not one request")
    hop.headers, hop.version = head.headers, head.version.decode("ascii")
    hosts = [value for name, value in head.headers if name == b"host"]
    Reading.of(service, listener).read(hop, head.target, hosts)
    if listener.contract is not None:
        operation = listener.contract.api.find(hop.method, hop.segments)
        hop.operation = operation.id if operation is not None else ""


def _headers(given: object) -> Iterator[tuple[str, object]]:
    """The header lines of a mapping whose values are a text, or a list of texts for several lines of one name."""
    if not isinstance(given, Mapping):
        raise BadQuestion("headers is a mapping of names to values")
    for name, value in given.items():
        for line in value if isinstance(value, list) else [value]:
            yield str(name), line


def _listener(question: Mapping[str, Any], service: Service) -> Inbound:
    """The listener that is named; else the first for HTTP, else the first."""
    wanted = str(question.get("port") or "")
    for listener in service.inbound:
        if wanted in (listener.name, str(listener.port)) or (not wanted and listener.protocol != "tcp"):
            return listener
    if service.inbound and not wanted:
        return service.inbound[0]
    known = ", ".join(listener.name for listener in service.inbound) or "none"
    raise BadQuestion(f"{service.name} has no inbound listener{f' {wanted!r}' if wanted else ''}; it has: {known}")


def _caller(text: str, service: Service) -> SpiffeId:
    own = service.identity
    try:
        if text.startswith("spiffe://"):
            return SpiffeId.parse(text)
        namespace, slash, name = text.rpartition("/")
        if not slash:
            namespace = own.segments[1] if own.segments[:1] == ("ns",) and len(own.segments) == 4 else "default"
        if "/" in namespace:
            raise BadQuestion(f"{text!r} is neither a service nor namespace/service nor spiffe://…")
        return workload_id(own.trust_domain, namespace, name)
    except InvalidSpiffeId as error:
        raise BadQuestion(str(error)) from None

"""Access log lines of plain hops, from templates: the bytes that `AccessLog.line` would come to, for a fraction of it.

A plain hop is a permitted HTTP exchange that nothing befell. What is the same for all of a kind (instance, direction,
listener, identities, route, rule) is encoded once, in a `Template`. What belongs to a connection (addresses, what the
handshake agreed on) is encoded once for each, and found again by the identity of the object it stands in. A request's
own words pass the redactor unless they are made of characters in which it cannot find anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any, TypeVar

from sidecar.telemetry import redact
from sidecar.telemetry.clock import rfc3339
from sidecar.telemetry.lines import encode

if TYPE_CHECKING:
    from sidecar.hop import Hop

_MAX_KNOWN = 1024  # connections, and words of each sort, that are remembered at a time
_K = TypeVar("_K")
_V = TypeVar("_V")
_quote: Callable[[str], str] = encode_basestring_ascii
# A path in which the redactor finds nothing, unless it holds the beginning of a JSON Web Token: every other secret that
# it knows by its looks has a space, a colon or an equals sign in it. No escape either: segments read as the path does.
_CLEAN = re.compile(rf"[A-Za-z0-9/._~-]{{1,{redact.MAX_TEXT}}}+(?=\?|\Z)")
_BEGINS_JWT = "eyJ"


def peer_address(hop: Hop) -> str:
    """Address and port of the caller; empty where it is not known."""
    if hop.source is None:
        return ""
    return f"[{hop.source}]:{hop.source_port}" if hop.source.version == 6 else f"{hop.source}:{hop.source_port}"


class Template:
    """What the lines of one kind of plain hops have in common, encoded, in the pieces between what differs."""

    __slots__ = ("after_endpoint", "after_host", "after_times", "before_address", "before_method")

    def __init__(self, hop: Hop, instance: str) -> None:
        peer, destination = hop.peer, hop.destination
        self.before_address = _pieces(
            instance=instance, direction=hop.direction, listener=hop.listener, protocol=hop.protocol
        )
        self.before_method = _pieces(**{
            "client.id": peer.text if peer is not None else "",
            "server.id": destination.text if destination is not None else "",
        })  # fmt: skip
        self.after_host = _pieces(version=hop.version)
        self.after_times = _pieces(attempt=hop.attempts)
        self.after_endpoint = _pieces(route=hop.route, rule=hop.rule, flags="-", error="", detail="")


class PlainLines:
    """Makes lines, and remembers what repeats."""

    def __init__(self, instance: str, headers: frozenset[bytes]) -> None:
        self._instance = instance
        self._headers = frozenset(name.decode("latin-1") for name in headers)
        self._methods: dict[str, str] = {}  # quoted; only such as the redactor leaves alone
        self._hosts: dict[str, str] = {}  # likewise
        self._endpoints: dict[str, str] = {}  # these are of our own configuration
        self._callers: dict[tuple[int, int], tuple[object, str]] = {}  # by id() of the address, kept alive so, and port
        self._handshakes: dict[int, tuple[object, str]] = {}  # likewise

    def template(self, hop: Hop) -> Template:
        """What this hop has in common with others of its kind."""
        return Template(hop, self._instance)

    def line(
        self, of: Template, hop: Hop, now: float, decision_id: str, headers: dict[str, str] | None
    ) -> tuple[str, bool]:
        """The line of a plain hop of this kind that ended at `now`, with its newline; and whether the path is one in
        which the redactor could find nothing. `headers` are those that may be kept, redacted.
        """
        target = hop.target
        match = _CLEAN.match(target)
        clean = match is not None and _BEGINS_JWT not in target
        uri = f'"{match[0]}"' if match is not None and clean else _quote(redact.target(target))
        method = self._methods.get(hop.method) or self._learn_word(self._methods, hop.method, 32)
        host = self._hosts.get(hop.host) or self._learn_word(self._hosts, hop.host, 256)
        endpoint = self._endpoints.get(hop.endpoint) or self._learn_endpoint(hop.endpoint)
        caller = self._callers.get((id(hop.source), hop.source_port)) or self._learn_caller(hop)
        tls = self._handshakes.get(id(hop.tls)) or self._learn_handshake(hop)
        seconds = hop.ended - hop.started
        waited = round((hop.first_byte - hop.started) * 1e9) if hop.first_byte else 0
        trace = _quote(redact.text(hop.trace_id, 64)) if hop.trace_id else '""'
        tail = self._of_headers(headers) if self._headers else "}\n"
        return (
            f'{{"timestamp":"{rfc3339(now - seconds)}",{of.before_address},"client.addr":{caller[1]},'
            f'{of.before_method},"method":{method},"host":{host},"uri":{uri},{of.after_host},"status":{hop.status},'
            f'"request_bytes":{hop.received_bytes},"response_bytes":{hop.sent_bytes},"processing_ns":{waited},'
            f'"total_ns":{round(seconds * 1e9)},{of.after_times},"endpoint":{endpoint},{of.after_endpoint},'
            f'"decision_id":"{decision_id}","trace_id":{trace},{tls[1]}{tail}'
        ), clean

    def _learn_word(self, known: dict[str, str], value: str, limit: int) -> str:
        """A method or host."""
        redacted = redact.text(value, limit)
        quoted = _quote(redacted)
        if redacted == value:
            _remember(known, value, quoted)
        return quoted

    def _learn_endpoint(self, value: str) -> str:
        quoted = _quote(value)
        _remember(self._endpoints, value, quoted)
        return quoted

    def _learn_caller(self, hop: Hop) -> tuple[object, str]:
        known = (hop.source, _quote(peer_address(hop)))
        _remember(self._callers, (id(hop.source), hop.source_port), known)
        return known

    def _learn_handshake(self, hop: Hop) -> tuple[object, str]:
        tls = hop.tls
        text = _pieces(**{
            "tls.version": tls.version if tls is not None else "",
            "tls.group": tls.group if tls is not None else "",
            "peer.cert_serial": tls.serial if tls is not None else "",
        })  # fmt: skip
        known = (tls, text)
        _remember(self._handshakes, id(tls), known)
        return known

    def _of_headers(self, kept: dict[str, str] | None) -> str:
        """The end of a line with the headers that the operator asked for."""
        shown = {name: value for name, value in (kept or {}).items() if name in self._headers}
        agent = shown.pop("user-agent", None)
        more = {"user_agent": agent, "headers": shown} if agent is not None else {"headers": shown}
        return f",{encode(more)[1:]}\n"


def _remember(known: dict[_K, _V], key: _K, value: _V) -> None:
    if len(known) >= _MAX_KNOWN:
        known.clear()
    known[key] = value


def _pieces(**values: Any) -> str:
    """Members of an object, without its braces."""
    return encode(values)[1:-1]

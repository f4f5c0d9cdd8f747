"""Settings about what is spoken on a listener, and by whom, that can never act or let too many in."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address

from sidecar.config.assemble import Placed, View
from sidecar.config.mistakes import Book
from sidecar.config.schema_inbound import Inbound
from sidecar.config.schema_outbound import Outbound
from sidecar.config.sentences import needs_http


def spoken(view: View, book: Book) -> None:
    """Note what is odd about protocols, versions, PROXY headers and sockets of a service."""
    for inbound in view.inbound:
        _version(inbound, "app_http", book)
        _auto(view, inbound, book)
        _senders(inbound, book)
    for outbound in view.outbound:
        _version(outbound, "upgrade", book)
        _mode(outbound, book)


def _version(placed: Placed[Inbound] | Placed[Outbound], key: str, book: Book) -> None:
    path = f"{placed.path}.{key}"
    if placed.value.protocol == "tcp" and path in book.places:
        message = "never acts: it names a version of HTTP, and what passes here is raw TCP"
        book.warn("MESH065", path, message, "remove it, or declare protocol: http")


def _auto(view: View, placed: Placed[Inbound], book: Book) -> None:
    if placed.value.protocol == "auto" and not view.incomplete and needs_http(view.built, placed.value):
        message = "only HTTP can pass: a rule, a route or a limit looks at HTTP, so what is not recognised is refused"
        hint = "declare it protocol: http; or give other protocols a listener of their own, and name this one by port:"
        book.warn("MESH064", f"{placed.path}.protocol", message, hint)


def _senders(placed: Placed[Inbound], book: Book) -> None:
    listener, path = placed.value, f"{placed.path}.proxy_protocol.from"
    if listener.proxy_protocol is None:
        return
    senders = listener.proxy_protocol.senders
    bound = ip_address(listener.bind)
    if any(network.prefixlen == 0 for network in senders):
        message = "anybody may claim any address: rules with source: and logs believe whoever connects"
        book.warn("MESH066", path, message, "name the addresses of the load balancers")
    elif bound.is_loopback and all(not _touches_loopback(each) for each in senders):
        message = f"never acts: listener {listener.name} is bound to {listener.bind}, which none of these can reach"
        book.warn("MESH068", path, message, "name a loopback address, or bind another one")


def _touches_loopback(network: IPv4Network | IPv6Network) -> bool:
    if isinstance(network, IPv6Network):
        return network.overlaps(IPv6Network("::1/128"))
    return network.overlaps(IPv4Network("127.0.0.0/8"))


def _mode(placed: Placed[Outbound], book: Book) -> None:
    path, listen = f"{placed.path}.listen_mode", placed.value.listen
    if path in book.places and (listen is None or not listen.unix):
        message = "never acts: it is about the file of a Unix socket, and listen: names none"
        book.warn("MESH067", path, message, "remove it, or write listen: unix:/run/mesh/NAME.sock")

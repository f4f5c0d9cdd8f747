"""Upstreams that are no members of a mesh, and OPA: what of them contradicts itself, and what is allowed but odd."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Final

from sidecar.config.assemble import Placed, View, is_loopback
from sidecar.config.mistakes import Book
from sidecar.config.quantities import show_seconds
from sidecar.config.schema import Service
from sidecar.config.schema_egress import ClientToken, Secret
from sidecar.config.schema_outbound import Outbound
from sidecar.config.urls import WebUrl

LONG_TTL: Final = 60.0  # seconds; a policy that takes effect later than that surprises whoever has changed it
HTTPS: Final = 443
CREDENTIALS: Final = ("authorization", "cookie", "proxy-authorization")
_OF_OUTSIDERS: Final = ("tls", "token", "private")
_NOT_WILD: Final = (
    ("listen", "a listener of its own is for one host"), ("endpoints", "each host is looked up by its own name"),
    ("endpoints_from", "each host is looked up by its own name"), ("addresses", "no address stands for all of them"),
    ("health", "nobody knows which hosts there are"), ("routes", "a route leads to one upstream"),
)  # fmt: skip


def wild(host: str) -> bool:
    """Whether a host stands for many."""
    return host.startswith("*.")


def outside_files(service: Service) -> list[str]:
    """The files of roots, keys and secrets that a sidecar reads for those outside the mesh."""
    found = [service.opa.roots] if service.opa is not None else []
    for each in service.outbound:
        if each.tls is not None:
            found += [each.tls.roots, each.tls.certificate, each.tls.key]
        if each.token is not None:
            found += [each.token.roots, each.token.secret.file]
    return [path for path in found if path not in ("", "system")]


def secret_programs(service: Service) -> list[str]:
    """The programs that print secrets."""
    tokens = [each.token for each in service.outbound if each.token is not None]
    return [token.secret.command[0] for token in tokens if token.secret.command]


def contradictions(view: View, book: Book) -> None:
    """Note what cannot be meant."""
    for placed in view.outbound:
        _outside(placed, book)
        _wild(view, placed, book)
        _led_to_many(view, placed, book)
        if placed.value.tls is not None:
            _tls(placed, book)
        if placed.value.token is not None:
            _token(placed, placed.value.token, book)
        if placed.value.allow and placed.value.protocol != "http":
            message = f"{placed.value.protocol} has no methods and paths that could be looked at"
            book.at(f"{placed.path}.allow", message, "declare the upstream protocol: http", "MESH008")
    opa = view.built.opa
    if opa is not None:
        for index, name in enumerate(opa.headers):
            if name.lower().replace("_", "-") in CREDENTIALS:
                path = book.item(f"{view.path}.opa", "headers", index)
                hint = "name claims of its verified token instead: claims: [sub]"
                book.at(path, f"{name} is a credential, and OPA logs what it is asked", hint)


def _led_to_many(view: View, placed: Placed[Outbound], book: Book) -> None:
    many = {each.value.name for each in view.outbound if wild(each.value.host)}
    for index, route in enumerate(placed.value.routes):
        for name in (branch.to for branch in route.split):
            if name in many:
                message = f"{name} stands for many hosts, and a route leads to one"
                book.at(f"{placed.path}.routes[{index}]", message, "declare that host as an upstream", "MESH008")


def _outside(placed: Placed[Outbound], book: Book) -> None:
    if placed.value.unmeshed == "passthrough":
        return
    for key in _OF_OUTSIDERS:
        if getattr(placed.value, key) is not None:
            message = "is for hosts outside the mesh, and this one proves an identity of a mesh"
            book.at(f"{placed.path}.{key}", message, "add unmeshed: passthrough, or remove the key", "MESH008")
    if wild(placed.value.host):
        hint = "add unmeshed: passthrough"
        book.at(f"{placed.path}.host", "many hosts cannot prove one identity", hint, "MESH008")


def _wild(view: View, placed: Placed[Outbound], book: Book) -> None:
    spec, path = placed.value, placed.path
    if not wild(spec.host):
        if f"{path}.host_port" in book.places:
            book.at(f"{path}.host_port", "is for a host *. alone", "put the port into endpoints:", "MESH008")
        return
    for key, why in _NOT_WILD:
        if f"{path}.{key}" in book.places:
            book.at(f"{path}.{key}", f"{spec.host} stands for many hosts: {why}", "remove it", "MESH008")
    if spec.protocol != "http":
        book.at(f"{path}.protocol", "only HTTP says which host is meant", "write protocol: http", "MESH008")
    if spec.tls is not None and spec.tls.name:
        book.at(f"{path}.tls.name", "each host has to show a certificate for its own name", "remove it", "MESH008")
    if view.built.forward_proxy is None:
        hint = f"add forward_proxy: 127.0.0.1:15001 to {view.path}"
        book.at(f"{path}.host", "only the forward proxy tells hosts apart, and there is none", hint, "MESH008")


def _tls(placed: Placed[Outbound], book: Book) -> None:
    spec, path = placed.value, f"{placed.path}.tls"
    assert spec.tls is not None
    if spec.protocol == "auto":
        book.at(f"{placed.path}.protocol", "TLS is begun for one protocol", "write http or tcp", "MESH008")
    if bool(spec.tls.certificate) != bool(spec.tls.key):
        missing = "key" if spec.tls.certificate else "certificate"
        book.at(path, "a certificate needs its key, and a key its certificate", f"add {missing}:", "MESH008")
    if any(each.address.unix for each in spec.endpoints):
        hint = "remove tls:, or name host:port"
        book.at(path, "nobody speaks TLS on a Unix socket of this machine", hint, "MESH008")


def _token(placed: Placed[Outbound], token: ClientToken, book: Book) -> None:
    spec, path = placed.value, f"{placed.path}.token"
    if spec.protocol != "http":
        book.at(path, f"{spec.protocol} has no header to put a token into", "write protocol: http", "MESH008")
    _one_secret(token.secret, f"{path}.secret", book)
    if not token.url.tls and not is_loopback(token.url.address.host):
        book.at(f"{path}.url", f"the secret would go to {token.url} in the clear", "write https://", "MESH012")
    near = all(each.address.unix or is_loopback(each.address.host) for each in spec.endpoints)
    if spec.tls is None and (wild(spec.host) or spec.endpoints_from is not None or not near):
        book.at(path, "the token would travel in the clear", "add tls: {} to the upstream", "MESH012")


def _one_secret(secret: Secret, path: str, book: Book) -> None:
    if bool(secret.file) == bool(secret.command):
        book.at(path, "a secret comes from one place", "name one of the two: file, or command", "MESH008")


# ---- warnings ----------------------------------------------------------------------------------------------------


def advise_egress(view: View, book: Book) -> None:
    """Note what is allowed but odd."""
    _opa(view, book)
    for placed in view.outbound:
        spec, path = placed.value, placed.path
        if spec.token is not None and spec.edge:
            message = "strangers who come in by this door act with our token"
            book.warn("MESH178", f"{path}.token", message, "remove edge:, or put the token where it is needed")
        ports = {each.address.port for each in spec.endpoints}
        if spec.unmeshed == "passthrough" and spec.tls is None and spec.protocol == "http" and HTTPS in ports:
            book.warn("MESH179", f"{path}.endpoints", "plain HTTP is sent to port 443", "add tls: {}")
        for index, network in enumerate(spec.private or ()):
            if _everything(network):
                message = f"{network} lets its names lie anywhere"
                hint = "name the networks in which it really is"
                book.warn("MESH180", book.item(path, "private", index), message, hint)
        if spec.tls is not None and len(spec.tls.pins) == 1:
            message = "one pin: the day its key is replaced nobody is reached any more"
            book.warn("MESH181", f"{path}.tls.pins", message, "add the pin of a spare key, or of the CA above it")


def _everything(network: IPv4Network | IPv6Network) -> bool:
    return network.prefixlen == 0


def _opa(view: View, book: Book) -> None:
    opa, path = view.built.opa, f"{view.path}.opa"
    if opa is None:
        return
    if not opa.url.tls and not is_loopback(opa.url.address.host):
        message = f"{_bare(opa.url)} is asked in the clear: anybody on the way can say yes"
        book.warn("MESH174", f"{path}.url", message, "write https://, or let OPA stand beside the sidecar")
    if opa.silent == "unsafe_permit" and opa.mode == "enforce":
        message = "whoever can silence OPA, or slow it down, is let in"
        book.warn("MESH175", f"{path}.silent", message, "write silent: deny")
    unasked = [each.value.name for each in view.inbound if each.value.protocol != "http"]
    if not view.inbound:
        book.warn("MESH176", path, "is never asked: the service has no inbound listener", "remove opa:")
    elif unasked:
        message = f"is not asked about raw TCP on {', '.join(unasked)}"
        book.warn("MESH176", path, message, "judge those by rules alone, or declare them protocol: http")
    if opa.cache is not None and opa.cache.ttl > LONG_TTL:
        message = f"a policy that says no stays without effect for {show_seconds(opa.cache.ttl)}"
        book.warn("MESH177", f"{path}.cache.ttl", message, f"write {show_seconds(LONG_TTL)} or less")


def _bare(url: WebUrl) -> str:
    return f"http://{url.authority}"

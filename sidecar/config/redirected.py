"""`redirect` of a service: what contradicts itself, and what never acts; the ports that it takes.

Who is meant by a captured connection is found by its original destination (`sidecar.proxy.owners`), so what is looked
for here is where that has no answer, or two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sidecar.config.assemble import Placed, View, is_loopback
from sidecar.config.terms import Address

if TYPE_CHECKING:
    from sidecar.config.mistakes import Book
    from sidecar.config.schema_inbound import Inbound
    from sidecar.config.schema_outbound import Outbound
    from sidecar.config.schema_redirect import Redirect


def capture_ports(redirect: Redirect) -> tuple[tuple[Address, str, str], ...]:
    """The addresses that a redirected sidecar listens on, each with its key and a word for it."""
    return (
        (Address("0.0.0.0", redirect.capture_in), "capture_in", "what comes from outside"),  # noqa: S104 - what for
        (Address("127.0.0.1", redirect.capture_out), "capture_out", "what the application sends out"),
    )


def contradictions(view: View, book: Book) -> None:
    """Note inbound listeners that no original destination could tell apart."""
    redirect = view.built.redirect
    if redirect is None:
        return
    first: dict[int, Placed[Inbound]] = {}
    for placed in view.inbound:
        port = placed.value.port
        path = f"{placed.path}.port" if f"{placed.path}.port" in book.places else placed.path
        other = first.setdefault(port, placed)
        if other is not placed:
            message = f"port {port} is that of the listener {other.value.name} already"
            book.at(path, message, "under redirect: the port that callers connect to says which listener", "MESH013")
        for address, key, what in capture_ports(redirect):
            if port == address.port:
                message = f"port {port} is where the rules of redirect bring {what} ({key})"
                book.at(path, message, "name the port that callers connect to", "MESH013")


def advise_redirected(view: View, book: Book) -> None:
    """Note what is odd about redirection."""
    redirect = view.built.redirect
    if redirect is None:
        for upstream in view.outbound:
            if upstream.value.addresses:
                message = f"never asked: connections of {view.name} are not captured, for it has no redirect:"
                hint = "remove it, or add redirect: {} to the service"
                book.warn("MESH121", f"{upstream.path}.addresses", message, hint)
        return
    _ambiguous(view, book)
    _unreachable(view, book)
    _passthrough(redirect, view, book)
    if view.built.run:
        message = "its connections are not captured: it runs as the sidecar's own user, whom the rules let pass"
        hint = "start the application as another user, or call upstreams by listen: or forward_proxy:"
        book.warn("MESH127", f"{view.path}.run", message, hint)
    for listener in view.inbound:
        if f"{listener.path}.bind" in book.places:
            message = f"never acts: under redirect the listener {listener.value.name} binds no port of its own"
            book.warn("MESH126", f"{listener.path}.bind", message, "remove it")


def held(upstream: Outbound) -> Iterator[Address]:
    """Every address by which a captured connection can mean this upstream, as far as the file says it."""
    yield from (each.address for each in upstream.endpoints if not each.address.unix)
    yield from upstream.addresses


def _ambiguous(view: View, book: Book) -> None:
    first: dict[Address, Placed[Outbound]] = {}
    for placed in view.outbound:
        for address in dict.fromkeys(held(placed.value)):
            other = first.setdefault(address, placed)
            if other is placed:
                continue
            said = next((key for key in ("addresses", "endpoints") if f"{placed.path}.{key}" in book.places), "to")
            message = f"{address} is also held by the upstream {other.value.name}: connections to it are refused"
            hint = f"say of one of the two where else it is, see {book.place(other.path)}"
            book.warn("MESH120", f"{placed.path}.{said}", message, hint)


def _unreachable(view: View, book: Book) -> None:
    """Rules leave loopback alone, so what is there alone is never captured."""
    service = view.built
    led_to = {branch.to for each in service.outbound for route in each.routes for branch in route.split}
    for placed in view.outbound:
        spec = placed.value
        if spec.endpoints_from is not None:
            if spec.endpoints_from.kubernetes is not None and not spec.addresses:
                message = f"{spec.name} is found by its pods' addresses alone, and applications connect to the service"
                hint = f"add addresses: [{_guess(spec)}]; for a headless service this may stand"
                book.warn("MESH125", f"{placed.path}.endpoints_from", message, hint)
            continue
        doors = spec.listen is not None or service.forward_proxy is not None or spec.name in led_to
        if not doors and all(is_loopback(address.host) for address in held(spec)):
            message = f"the application cannot reach {spec.to}: what it sends to loopback is never captured"
            book.warn("MESH122", placed.path, message, "add addresses: [HOST:PORT], or listen: 127.0.0.1:PORT")


def _guess(spec: Outbound) -> str:
    assert spec.endpoints_from is not None
    assert spec.endpoints_from.kubernetes is not None
    return f"{spec.endpoints_from.kubernetes.service}.{spec.endpoints_from.kubernetes.namespace}.svc:PORT"


def _passthrough(redirect: Redirect, view: View, book: Book) -> None:
    path = f"{view.path}.redirect.passthrough"
    for index, entry in enumerate(redirect.passthrough):
        here = f"{path}[{index}]" if f"{path}[{index}]" in book.places else path
        others = [
            each for place, each in enumerate(redirect.passthrough)
            if place != index and (each != entry or place < index)  # of two alike the first acts
        ]  # fmt: skip
        wider = next((each for each in others if each.covers(entry)), None)
        if wider is not None:
            book.warn("MESH123", here, f"never acts: {entry} is within {wider}", "remove one of the two")
        elif entry.network.prefixlen == 0:
            where = f"port {entry.port} of any host" if entry.port else "any host"
            message = f"the application may connect in plaintext to {where} that no upstream holds"
            book.warn("MESH124", here, message, "name the networks that are meant; `mesh migrate status` shows them")

"""Doors into the mesh (`edge: true` of an upstream): those that nobody reaches, and those that are more than a door."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.config.assemble import View, is_loopback

if TYPE_CHECKING:
    from sidecar.config.mistakes import Book


def advise_edges(view: View, book: Book) -> None:
    """Note doors that nobody reaches, and doors of services that are more than doors."""
    service = view.built
    for placed in view.outbound:
        if not placed.value.edge:
            continue
        path, listen = f"{placed.path}.edge", placed.value.listen
        if listen is None:
            book.warn("MESH140", path, "there is no `listen` that anybody could reach", "add listen:, or remove edge:")
        elif listen.unix or is_loopback(listen.host):
            message = f"{listen} is reached by this machine alone, which needs no edge"
            book.warn("MESH140", path, message, f"bind another address, as 0.0.0.0:{listen.port or 8080}, or remove it")
        if service.run or service.inbound:
            message = f"strangers speak as {view.path.rpartition('.')[2]}, which is a service of its own as well"
            book.warn("MESH141", path, message, "give the door a service of its own, and its own line under `allow`")

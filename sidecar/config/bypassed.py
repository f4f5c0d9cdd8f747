"""A setting about ways past the sidecar that can never act."""

from __future__ import annotations

from sidecar.config.assemble import View
from sidecar.config.mistakes import Book


def bypassed(view: View, book: Book) -> None:
    """Note `unsafe_allow_bypass` where the application has no TCP port that neighbours could reach."""
    service = view.built
    if not service.unsafe_allow_bypass:
        return
    apps = [app for spec in service.inbound for app in (spec.app, *(b.app for r in spec.routes for b in r.apps))]
    if any(not app.unix for app in apps):
        return
    path = f"{view.path}.unsafe_allow_bypass"
    if not service.inbound:
        message = "is for applications behind an inbound listener, and there is none"
    else:
        message = "is for applications on TCP; nobody reaches a Unix socket from outside"
    book.warn("MESH130", path, message, "remove it")

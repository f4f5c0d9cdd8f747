"""What is odd about detectors: settings that never act, and detectors that never see or say anything."""

from __future__ import annotations

from sidecar.config.assemble import View
from sidecar.config.cover import identity_covers
from sidecar.config.mistakes import Book
from sidecar.config.schema_detectors import Spikes


def watched(view: View, book: Book) -> None:
    """Note every odd detector of a service."""
    service = view.built
    if service.detectors is None:
        return
    callers = [caller for rule in service.allow for caller in rule.callers]
    http = any(each.protocol != "tcp" for each in service.inbound)
    for name, spec in service.detectors.named:
        path = f"{view.path}.detectors.{name}"
        if not http and not isinstance(spec, Spikes):
            message = f"{name} looks at HTTP, and no listener of {view.name} speaks it"
            book.warn("MESH189", path, message, "remove it")
        elif callers and all(any(identity_covers(each, caller) for each in spec.exempt) for caller in callers):
            book.warn("MESH191", f"{path}.except", f"{name} spares everybody whom a rule allows", "name fewer")
        if f"{path}.rate" in book.places and spec.action != "throttle":
            message = f"rate is for callers that are throttled, and {name} says action: {spec.action}"
            book.warn("MESH188", f"{path}.rate", message, "write action: throttle, or remove it")
    found = service.detectors.enumeration
    if found is not None and found.sequential >= found.ids:
        path = f"{view.path}.detectors.enumeration"
        message = f"sequential ({found.sequential}) is never reached before ids ({found.ids})"
        book.warn("MESH190", path, message, "make it smaller than ids")

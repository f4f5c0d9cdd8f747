"""Where the audit is sent: what contradicts itself, and what is allowed but odd."""

from __future__ import annotations

from typing import Final

from sidecar.config.assemble import View, is_loopback
from sidecar.config.mistakes import Book
from sidecar.config.quantities import show_size
from sidecar.config.schema_audit import AuditExport

SMALL: Final = 16 * 1024 * 1024  # bytes; a busy sidecar with `permits: each` writes that in a minute
_NEEDS: Final = {"syslog": "address", "otlp": "url", "ocsf": "path"}
_ONLY_OF: Final = {"address": ("syslog",), "url": ("otlp",), "path": ("ocsf",), "body": ("syslog",),
                   "roots": ("syslog", "otlp")}  # fmt: skip


def audit_files(exports: tuple[AuditExport, ...]) -> list[str]:
    """The files of roots that a sidecar reads for its exports."""
    return [each.roots for each in exports if each.roots]


def exports_wrong(view: View, book: Book) -> None:
    """Note what cannot be meant."""
    seen: dict[tuple[str, str], int] = {}
    for index, each in enumerate(view.built.audit.export):
        path = book.item(f"{view.path}.audit", "export", index)
        needed = _NEEDS[each.kind]
        if not getattr(each, needed):
            book.at(path, f"kind: {each.kind} goes to {needed}, and there is none", f"add {needed}:", "MESH182")
            continue
        for key, kinds in _ONLY_OF.items():
            if each.kind not in kinds and f"{path}.{key}" in book.places:
                book.at(f"{path}.{key}", f"kind: {each.kind} has no {key}", "remove it", "MESH182")
        if (each.kind, each.target) in seen:
            book.at(path, f"{each.target} gets the audit already", "remove one of the two", "MESH183")
        seen[each.kind, each.target] = index
        if view.built.audit.path == "-":
            hint = "name a file: the file is the queue of what waits"
            book.at(path, "the audit goes to standard output, where nothing can be read again", hint, "MESH184")
        if _in_the_clear(each) and not each.unsafe_plaintext:
            hint = "use TLS, or say unsafe_plaintext: true"
            book.at(path, f"{each.target} would get the audit without TLS", hint, "MESH185")


def exports_odd(view: View, book: Book) -> None:
    """Note what is allowed but odd."""
    for index, each in enumerate(view.built.audit.export):
        path = book.item(f"{view.path}.audit", "export", index)
        if each.unsafe_plaintext and not _loopback(each):
            message = f"anybody on the way to {each.target} reads the audit, and can change or swallow it"
            book.warn("MESH186", f"{path}.unsafe_plaintext", message, "use TLS")
        if each.backlog < SMALL:
            message = f"after {show_size(each.backlog)} of audit the oldest is not sent any more"
            book.warn("MESH187", f"{path}.backlog", message, "the default is 256MiB")


def _in_the_clear(each: AuditExport) -> bool:
    return each.kind == "otlp" and each.url is not None and not each.url.tls and not _loopback(each)


def _loopback(each: AuditExport) -> bool:
    address = each.address or (each.url.address if each.url is not None else None)
    return address is None or is_loopback(address.host)

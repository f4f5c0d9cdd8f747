"""`endpoints_from` of an upstream: checked, and completed with what can be guessed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from sidecar.config.reader import Draft, namespace_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from certs.spiffe import SpiffeId
    from sidecar.config.assemble import Placed, View
    from sidecar.config.mistakes import Book
    from sidecar.config.schema_outbound import Outbound

_KINDS: Final = ("file", "srv", "kubernetes")


def settle(draft: Draft, identity: SpiffeId | None, path: str, book: Book) -> bool:
    """Note what is wrong with the `endpoints_from` of this entry, and fill in its namespace; says whether there is one.
    """
    source = draft.values.get("endpoints_from")
    if source is None:
        return False
    path += ".endpoints_from"
    if "endpoints" in draft.values:
        hint = "remove endpoints:, or endpoints_from:"
        book.at(path, "endpoints are listed here or learned from elsewhere, not both", hint)
    said = [kind for kind in _KINDS if kind in source.values]
    if len(said) != 1 and not book.has(path):
        found = f"names {' and '.join(said)}" if said else "names no source"
        book.at(path, found, f"exactly one of {', '.join(_KINDS)}")
    if source.values.get("file", "x") == "":
        book.at(f"{path}.file", "names no file", "write orders.endpoints.yaml")
    cluster = source.values.get("kubernetes")
    if isinstance(cluster, Draft):
        _cluster(cluster, identity, f"{path}.kubernetes", book)
    return True


def _cluster(draft: Draft, identity: SpiffeId | None, path: str, book: Book) -> None:
    if not draft.values.get("namespace"):
        guessed = namespace_of(identity) if identity is not None else None
        if guessed is None:
            whose = "the upstream's identity has none in it" if identity is not None else "the upstream has no identity"
            book.at(path, f"has no namespace, and {whose}", "add namespace:")
        else:
            draft.values["namespace"] = guessed
    if (api := draft.values.get("api")) and (why := _no_api(api)):
        book.at(f"{path}.api", why, "write https://10.0.0.1:6443")


def _no_api(text: str) -> str:
    """Why this is no URL of an API server; empty where it is one."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises ValueError for one that is none
    except ValueError as error:
        return f"is no URL: {error}"
    if parts.scheme != "https" or not parts.hostname or not text.isascii() or not text.isprintable():
        return "is not an https:// URL; a token must not travel in plaintext"
    return "is a URL with user, query or fragment" if parts.username or parts.query or parts.fragment else ""


def missing_files(view: View, book: Book) -> None:
    """Warn of files that are not there (yet); an upstream without them has no endpoints."""
    for outbound in _learning(view.outbound):
        source = outbound.value.endpoints_from
        if source is None or not source.file:
            continue
        file = path_of(outbound.value)
        if not Path(file).is_file():
            message = f"there is no file {file}: until there is, {outbound.value.name} has no endpoints"
            book.warn("MESH099", f"{outbound.path}.endpoints_from.file", message, "write [] into it if none are meant")


def _learning(outbound: Sequence[Placed[Outbound]]) -> list[Placed[Outbound]]:
    return [each for each in outbound if each.value.endpoints_from is not None]


def path_of(outbound: Outbound) -> str:
    """The file of endpoints of this entry: as `include`, seen from the folder of the file that names it."""
    assert outbound.endpoints_from is not None
    return os.path.normpath(os.path.join(os.path.dirname(outbound.where.file), outbound.endpoints_from.file))  # noqa: PTH118, PTH120

"""The YAML that declares what an application has asked for and no upstream of its service declares (decision D5)."""

from __future__ import annotations

import re
from typing import Final

_SERVICE: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?", re.ASCII)  # what `to` may be
_OTHER: Final = re.compile(r"[^a-z0-9_-]+", re.ASCII)


def declaration(host: str, port: int | None) -> str:
    """An entry of `outbound` for this host, in YAML's flow form.

    A host that could be a service's name is taken for one. Any other, with a dot or an address, lies outside the mesh:
    it gets a name to go by, and the port that was asked for, else 80.
    """
    if _SERVICE.fullmatch(host):
        return f"{{to: {host}}}"
    name = _OTHER.sub("-", host).strip("-_")[:63].rstrip("-_") or "outside"
    bare = host.strip("[]")
    place = f"[{bare}]" if ":" in bare else bare
    return f"{{to: {name}, host: '{place}', unmeshed: passthrough, endpoints: '{place}:{port or 80}'}}"


def raw_declaration(host: str, port: int) -> str:
    """What would allow a captured connection to this address: an upstream of the mesh, one outside, or plaintext."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return (
        f"outbound: [{{to: SERVICE, addresses: ['{place}']}}] where it is a service of the mesh; else "
        f"redirect: {{passthrough: ['{place}']}} for plaintext"
    )

"""An `http://` or `https://` URL of somebody who is asked on behalf of a hop: OPA, a token endpoint.

No user, password, query or fragment stands in it: a URL ends up in logs and in `mesh explain`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final

from sidecar.config.addresses import read_address, read_host
from sidecar.config.document import Scalar
from sidecar.config.plain import BadValue, Scope, quoted, text_of
from sidecar.config.terms import Address

URL_SCHEMA: Final = {"type": "string", "pattern": r"^https?://[^@/?#\s]+(/[^?#\s]*)?$"}
_URL = re.compile(r"(https?)://([^/?#\s]*)(/[!-~]*)?\Z", re.ASCII)
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class WebUrl:
    """Where somebody is asked by HTTP, and whether by TLS."""

    address: Address
    tls: bool = False
    path: str = "/"

    @property
    def authority(self) -> str:
        """What goes into a Host header."""
        text = str(self.address)
        return text.rpartition(":")[0] if self.address.port == _PORTS["https" if self.tls else "http"] else text

    def __str__(self) -> str:
        return f"http{'s' if self.tls else ''}://{self.authority}{self.path}"


Url = Annotated[WebUrl, "url"]


def read_url(scalar: Scalar, _: Scope) -> WebUrl:
    """A URL. Raises BadValue, which never repeats a password."""
    text = text_of(scalar)
    if "@" in text:
        raise BadValue("a user or a password stands in the URL", "secrets have keys of their own")
    if "?" in text or "#" in text:
        raise BadValue("a query or a fragment stands in the URL", "write scheme, host, port and path")
    match = _URL.match(text)
    if match is None or not match[2]:
        raise BadValue(f"{quoted(text)} is no URL", "write https://HOST/PATH or http://127.0.0.1:8181")
    authority = match[2]
    if re.search(r":[0-9]+\Z", authority) and (authority.count(":") == 1 or "]:" in authority):
        address = read_address(authority)
    else:
        address = Address(read_host(authority), _PORTS[match[1]])
    return WebUrl(address, match[1] == "https", match[3] or "/")

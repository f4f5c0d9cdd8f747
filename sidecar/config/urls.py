"""URLs in the config: of somebody who is asked on behalf of a hop (OPA, a token endpoint), and of an issuer's keys.

No user, password or fragment stands in one: a URL ends up in logs and in `mesh explain`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from sidecar.config.addresses import read_host
from sidecar.config.document import Scalar
from sidecar.config.plain import BadValue, Scope, quoted, text_of
from sidecar.config.terms import Address
from sidecar.http.url import PORTS, Parts, take_apart

URL_SCHEMA: Final = {"type": "string", "pattern": r"^https?://[^@/?#\s]+(/[^?#\s]*)?$"}
HTTPS_SCHEMA: Final = {"type": "string", "pattern": r"^https://[^@/?#\s]+(/[^?#\s]*)?(\?[^#\s]*)?$"}


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
        return text.rpartition(":")[0] if self.address.port == PORTS["https" if self.tls else "http"] else text

    def __str__(self) -> str:
        return f"http{'s' if self.tls else ''}://{self.authority}{self.path}"


Url = Annotated[WebUrl, "url"]


def read_url(scalar: Scalar, _: Scope) -> WebUrl:
    """A URL without a query. Raises BadValue, which never repeats a password."""
    parts = _parts(text_of(scalar), "write https://HOST/PATH or http://127.0.0.1:8181")
    if parts.query:
        raise BadValue("a query stands in the URL", "write scheme, host, port and path")
    return WebUrl(Address(read_host(parts.host), parts.port), parts.scheme == "https", parts.path or "/")


def read_https(scalar: Scalar, _: Scope) -> str:
    """An https URL, as it was written. Raises BadValue, which never repeats a password."""
    text = text_of(scalar)
    if why := why_not_https(text):
        bare = text if "@" not in text else ""
        hint = f"write https://{bare.partition('://')[2][:64]}" if bare.startswith("http://") else "write https://HOST/…"
        raise BadValue(f"{quoted(bare) if bare else 'the URL'} {why}", hint)
    return text


def why_not_https(text: str) -> str:
    """Why this is no https URL that can be asked; empty where it is one."""
    try:
        parts = take_apart(text)
        read_host(parts.host)
    except (ValueError, BadValue) as error:
        return "is no URL" if isinstance(error, BadValue) else str(error)
    return "" if parts.scheme == "https" else "is not https://, so anybody on the way could give his own keys"


def _parts(text: str, hint: str) -> Parts:
    try:
        return take_apart(text)
    except ValueError as error:
        raise BadValue(f"{quoted(text) if '@' not in text else 'the URL'} {error}", hint) from None

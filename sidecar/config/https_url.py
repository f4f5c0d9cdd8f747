"""An `https://` URL in the config: a host, perhaps a port, a path; and names of audiences, which are any text."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from sidecar.config.document import Scalar
from sidecar.config.plain import BadValue, Scope, quoted, text_of

HTTPS_SCHEMA: Final = {"type": "string", "pattern": "^https://[^@?#\\s]+$"}
AUDIENCE_SCHEMA: Final = {"type": "string", "pattern": "^[!-~]{1,512}$"}
_LONGEST: Final = 512


def read_https(scalar: Scalar, _: Scope) -> str:
    """An https URL without user, query or fragment. Raises BadValue, which never repeats a password."""
    text = text_of(scalar)
    if "@" in text:
        raise BadValue("a user or a password stands in the URL", "key sets are public; remove it")
    if why := why_not_https(text):
        hint = f"write https://{text.partition('://')[2][:64]}" if text.startswith("http://") else "write https://HOST/…"
        raise BadValue(f"{quoted(text)} {why}", hint)
    return text


def why_not_https(text: str) -> str:
    """Why this is no https URL that can be asked; empty where it is one."""
    try:
        parts = urlsplit(text)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return "is no URL"
    if parts.scheme != "https":
        return "is not https://, so anybody on the way could give his own keys"
    if not named or not text.isascii() or not text.isprintable() or " " in text or len(text) > _LONGEST:
        return "is no URL"
    return "has a query or a fragment, which is not sent" if parts.query or parts.fragment else ""


def read_audience(scalar: Scalar, _: Scope) -> str:
    """A name as tokens have it: visible ASCII, compared letter by letter. Raises BadValue."""
    text = text_of(scalar)
    if not text or len(text) > _LONGEST or not all("!" <= letter <= "~" for letter in text):
        raise BadValue(f"{quoted(text)} is no name of an issuer or an audience", "write it as it stands in the token")
    return text

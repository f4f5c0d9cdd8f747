"""What requests stick to and what a health check is answered with: `cookie session` and `200-399`, from text."""

from __future__ import annotations

import re
from typing import Final

from sidecar.config.document import Scalar
from sidecar.config.plain import BadValue, Scope, quoted, text_of
from sidecar.config.terms import Affinity, StatusRange

_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}"  # RFC 9110 section 5.6.2; RFC 6265 section 4.1.1 for cookies
AFFINITY_SCHEMA: Final = {"type": "string", "pattern": f"^(caller|(header|cookie) {_NAME})$"}
STATUSES_SCHEMA: Final = {"type": ["string", "integer"], "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$"}
_AFFINITY = re.compile(rf"(header|cookie) +({_NAME})\Z")
_STATUSES = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?\Z")
_PATH = re.compile(r"/[!\"$-~]*\Z")  # visible ASCII without "#", which never travels
_MEANT: Final = {
    "client": "caller", "identity": "caller", "peer": "caller", "self": "caller", "us": "caller", "ip": "caller",
}  # fmt: skip


def read_affinity(scalar: Scalar, _: Scope) -> Affinity:
    """`caller`, `header x-user` or `cookie session`. Raises BadValue."""
    text = text_of(scalar)
    if text == "caller":
        return Affinity("caller")
    match = _AFFINITY.match(text)
    if match is not None and match[1] == "header":
        name = match[2].lower()
        if name == "cookie":
            raise BadValue("a cookie header holds many cookies", "name the one that counts: cookie session")
        if name == "host":
            raise BadValue("the host is the same for all requests of an upstream", "name another header")
        return Affinity("header", name)
    if match is not None:
        return Affinity("cookie", match[2])
    hint = "write caller, header x-user or cookie session"
    if text.lower() in _MEANT:
        hint = f"did you mean {_MEANT[text.lower()]}?"
    elif re.match(r"x-[a-z0-9-]{1,60}\Z", text, re.IGNORECASE):
        hint = f"did you mean header {text}?"
    raise BadValue(f"{quoted(text)} is nothing that requests can stick to", hint)


def read_statuses(scalar: Scalar, _: Scope) -> StatusRange:
    """`204`, or `200-399`. Raises BadValue."""
    text = text_of(scalar)
    match = _STATUSES.match(text)
    if match is None:
        wild = re.match(r"([1-5])xx\Z", text, re.IGNORECASE)
        hint = f"did you mean {wild[1]}00-{wild[1]}99?" if wild else "write 204, or 200-399"
        raise BadValue(f"{quoted(text)} is no range of HTTP statuses", hint)
    least, most = int(match[1]), int(match[2] or match[1])
    if least > most:
        raise BadValue(f"no status is in {text}", f"did you mean {most}-{least}?")
    if least < 200:
        raise BadValue(f"{least} is no final answer", "statuses below 200 come before one")
    return StatusRange(least, most)


def read_checked_path(scalar: Scalar, _: Scope) -> str:
    """`/healthz`, perhaps with a query. Raises BadValue."""
    text = text_of(scalar)
    if not _PATH.match(text) or len(text) > 1024:
        near = f"did you mean /{text}?" if re.match(r"[a-z0-9_-]{1,64}\Z", text, re.IGNORECASE) else ""
        raise BadValue(f"{quoted(text)} is no path to ask for", near or "write /healthz")
    return text

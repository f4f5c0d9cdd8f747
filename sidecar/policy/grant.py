"""Client credentials (RFC 6749 section 4.4): the request for a token, what its answer means, and when to ask again."""

from __future__ import annotations

import base64
import math
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote_plus, urlencode

from certs.strict_json import read

if TYPE_CHECKING:
    from sidecar.config.schema_egress import ClientToken

MOST_ANSWER_BYTES: Final = 64 * 1024
MOST_TOKEN_BYTES: Final = 16 * 1024  # half a head; servers refuse far shorter ones
UNSAID_SECONDS: Final = 300.0  # where the answer does not say how long it is good (RFC 6749 section 5.1 recommends it)
LONGEST: Final = 86_400.0  # seconds: nothing stands for longer without being asked for again
REFRESH, SPREAD = 0.8, 0.1  # of its life, after which another is asked for, less up to this share by chance
MARGIN, MARGIN_SHARE = 5.0, 0.1  # before its end it is not used any more: a request takes its time to arrive
_B64TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*\Z")  # RFC 6750 section 2.1
_ERROR: Final = re.compile(r"[!#-\[\]-~ ]{1,64}\Z")  # RFC 6749 section 5.2
FORM: Final = (b"content-type", b"application/x-www-form-urlencoded")
ACCEPT: Final = (b"accept", b"application/json")


class NoGrant(Exception):
    """The token endpoint has given no token. The text is for the operator; no secret stands in it."""


class Grant(NamedTuple):
    """A token, and for how many seconds it was given."""

    token: bytes
    seconds: float

    def refresh_after(self, dice: float) -> float:
        """Seconds after which another is asked for; `dice` from 0 to 1."""
        return self.seconds * (REFRESH - SPREAD * dice)

    @property
    def usable(self) -> float:
        """Seconds for which it is put on requests."""
        return self.seconds - min(MARGIN, MARGIN_SHARE * self.seconds)


def request(spec: ClientToken, secret: str) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    """Body and header fields of the POST. Of `basic`, id and secret are form-encoded first (RFC 6749 section 2.3.1)."""
    form = {"grant_type": "client_credentials"}
    if spec.scopes:
        form["scope"] = " ".join(spec.scopes)
    form |= {name: value for name, value in (("audience", spec.audience), ("resource", spec.resource)) if value}
    headers: tuple[tuple[bytes, bytes], ...] = (FORM, ACCEPT)
    if spec.auth == "post":
        form |= {"client_id": spec.client_id, "client_secret": secret}
    else:
        proof = f"{quote_plus(spec.client_id)}:{quote_plus(secret)}".encode("ascii")
        headers += ((b"authorization", b"Basic " + base64.b64encode(proof)),)
    return urlencode(form).encode("ascii"), headers


def read_answer(status: int, content_type: bytes | None, body: bytes) -> Grant:
    """What the token endpoint has given. Raises NoGrant."""
    document = _document(content_type, body)
    if status != 200:
        error = document.get("error") if isinstance(document, dict) else None
        known = isinstance(error, str) and _ERROR.match(error)
        raise NoGrant(f"it answers {status}{f' ({error})' if known else ''}")
    if not isinstance(document, dict):
        raise NoGrant("its answer is no JSON object")
    token, kind = document.get("access_token"), document.get("token_type")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise NoGrant("its token is of another type than Bearer")
    if not isinstance(token, str) or not _B64TOKEN.match(token) or len(token) > MOST_TOKEN_BYTES:
        raise NoGrant("what it gives is no bearer token (RFC 6750 section 2.1)")
    return Grant(token.encode("ascii"), _seconds(document.get("expires_in", UNSAID_SECONDS)))


def _document(content_type: bytes | None, body: bytes) -> Any:
    """The JSON of an answer; None where it is none."""
    if (content_type or b"").partition(b";")[0].strip().lower() != b"application/json":
        return None
    try:
        return read(body)
    except ValueError:
        return None


def _seconds(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < math.inf:
        raise NoGrant("its expires_in is no number of seconds")
    return float(min(given, LONGEST))

"""x-forwarded-client-cert: who called, told to the application (semantics S10). Pure: values in, bytes out.

The value is a list of elements, one for each proxy on the way, the last of them ours; an element is `Key=value` pairs
joined by `;`, a value may stand in double quotes, and a `\\"` inside is a quote. It is read by applications that decide
by it. So an element of ours holds nothing that could end it early, and what a listed forwarder sends is kept only if it
has one reading: a stray quote in it would swallow the element that follows, which is the one that counts.
"""

from __future__ import annotations

import re

from certs.spiffe import SpiffeId
from sidecar.errors import ProtocolViolation
from sidecar.hop import Headers
from sidecar.http.headers import XFCC

# No possessive quantifier on a group: CPython before 3.11.5, Debian's among them, matches too much there (gh-106052).
_QUOTED = rb'"(?:[^"\\\x00-\x1f\x7f]|\\["\\])*"'
_PLAIN = rb'[^",;\\\x00-\x20\x7f]*+'
_PAIR = rb"(?:By|Hash|Cert|Chain|Subject|URI|DNS)=(?:" + _QUOTED + rb"|" + _PLAIN + rb")"
_ELEMENT = _PAIR + rb"(?:;" + _PAIR + rb")*"
_VALUE = re.compile(_ELEMENT + rb"(?:[ \t]*,[ \t]*" + _ELEMENT + rb")*\Z", re.IGNORECASE)


def element(by: SpiffeId, fingerprint: str, uri: SpiffeId) -> bytes:
    """What we know of a caller from the handshake; neither SPIFFE IDs nor hex can hold a separator."""
    return f'By={by.text};Hash={fingerprint};Subject="";URI={uri.text}'.encode()


def appended(ours: bytes, headers: Headers) -> bytes:
    """What a listed forwarder has sent, with our element behind it. Raises ProtocolViolation where it is malformed."""
    theirs = [value for name, value in headers if name == XFCC and value]
    for value in theirs:
        if not _VALUE.match(value):
            raise ProtocolViolation("x-forwarded-client-cert of a forwarder cannot be read without doubt")
    return b",".join((*theirs, ours))

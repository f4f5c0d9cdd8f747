"""What a connection speaks, judged by its first bytes: HTTP/2, HTTP/1, or something that is none of our business.

This is for listeners with `protocol: auto` alone. Where the two readings differ in what they let pass, this one errs
towards HTTP: whatever begins like a request is read as one, strictly, and refused there if it is none. Only what no
HTTP server would take for a request is opaque.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from sidecar.http.h2.codes import PREFACE

Spoken = Literal["http2", "http1", "opaque"]

DETECT_BYTES: Final = 1024  # semantics S9: what Linkerd reads before it decides
# RFC 9112 section 3: method SP request-target SP HTTP-version. A method has at most as many letters as one in a rule.
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_TARGET: Final = rb"[^\x00-\x20\x7f]"
_REQUEST: Final = re.compile(rb"%b{1,32} +%b+ +HTTP/" % (_TOKEN, _TARGET))
_MAY_BECOME_ONE: Final = re.compile(
    rb"(?:%b{1,32}(?: +(?:%b+(?: +(?:H(?:T(?:TP?)?)?)?)?)?)?)?" % (_TOKEN, _TARGET)
)
_HAS_BEGUN: Final = re.compile(rb"%b{1,32} +(?:/|\*|https?://)" % _TOKEN, re.IGNORECASE)


def detect(data: bytes) -> Spoken | None:
    """What speaks whoever begins with these bytes; None where more bytes are needed to tell."""
    if data.startswith(PREFACE):
        return "http2"
    if PREFACE.startswith(data):
        return None
    if _REQUEST.match(data):
        return "http1"
    if not _MAY_BECOME_ONE.fullmatch(data):
        return "opaque"
    return conclude(data) if len(data) >= DETECT_BYTES else None


def conclude(data: bytes) -> Spoken:
    """The same where nothing more will be waited for. What has a method and the beginning of a path is a request that
    is not whole; what has less (nothing, where the server is to speak first) is opaque.
    """
    if data.startswith(PREFACE):
        return "http2"
    if _REQUEST.match(data) or (_HAS_BEGUN.match(data) and _MAY_BECOME_ONE.fullmatch(data)):
        return "http1"
    return "opaque"

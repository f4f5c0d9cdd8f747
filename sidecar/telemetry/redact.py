"""The one redactor: every text that goes into a log, the audit or a decision passes here (decision D9).

Two rules. What is known to be a secret by its place is replaced whole: the value of a credential header, everything
after the `?` of a target, the userinfo of a URL. What looks like a secret inside free text is replaced where it
stands: bearer and basic credentials, JSON Web Tokens, PEM blocks (cut ones too), `password=…` and the like. Control
characters are escaped and lengths bounded, so a caller can neither forge a log line nor fill a disk with one request.
"""

from __future__ import annotations

import re

from sidecar.hop import Headers

REDACTED = "[redacted]"
MAX_TEXT = 1024  # characters of a path, a message or any other single value
MAX_HEADER = 256  # characters of a header value

_CREDENTIAL_HEADERS = frozenset(
    {
        b"authorization",
        b"proxy-authorization",
        b"www-authenticate",
        b"proxy-authenticate",
        b"authentication-info",
        b"proxy-authentication-info",
        b"cookie",
        b"cookie2",
        b"set-cookie",
        b"set-cookie2",
        b"dpop",
    }
)
_CREDENTIAL_WORDS = re.compile(
    rb"token|secret|passw|api-?_?key|session|credential|csrf|xsrf|jwt|signature|-auth\b|^auth"
)

_PARAMETER = (
    r"(?:pass(?:word|wd|phrase)?|secret|token|api[_-]?key|access[_-]?key|session(?:id)?|jsessionid|sid|signature|sig)"
)
_KEY = r"(?:enrolment|private|signing)[_-]?key"
_PEM_BODY = r"[A-Za-z0-9+/=\s\\]"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL), REDACTED),
    # a PEM block whose beginning was cut off; linear, for it begins at one place only and never gives back
    (re.compile(rf"(?<!{_PEM_BODY}){_PEM_BODY}{{4,}}+-----END [A-Z0-9 ]+-----"), REDACTED),
    (re.compile(rf"((?:\b|_){_KEY}[\"']?\s*[=:]\s*[\"']?)[A-Za-z0-9+/=_-]{{16,}}", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)*"), REDACTED),
    (re.compile(r"\b(bearer\s+)(?!\[redacted\])\S+", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(r"\b((?i:basic|digest|negotiate|dpop)\s+)(?=\S*[0-9A-Z=+/])\S{6,}"), rf"\1{REDACTED}"),
    (re.compile(r"\b([a-z][a-z0-9+.-]*://)[^/\s@?#]*@", re.IGNORECASE), rf"\1{REDACTED}@"),
    (re.compile(r"\b((?:https?|wss?)://[^\s?#\"']*)[?#][^\s\"']*", re.IGNORECASE), rf"\1?{REDACTED}"),
    (
        re.compile(rf"((?:\b|_){_PARAMETER}[\"']?\s*[=:]\s*[\"']?)(?!\[redacted\])[^\s&;,\"'/]+", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
)
_SUSPICIOUS = re.compile(r"-----|eyJ|://|[=:]|bearer|basic|digest|negotiate|dpop", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def is_credential(name: bytes) -> bool:
    """Whether a header of this lower-case name may carry a secret; its value is then never written."""
    return name in _CREDENTIAL_HEADERS or _CREDENTIAL_WORDS.search(name) is not None


def text(value: str, limit: int = MAX_TEXT) -> str:
    """Free text without secrets, control characters escaped, at most `limit` characters (and `…` where it was cut)."""
    if len(value) > 4 * limit:
        value = value[: 4 * limit]  # bounds the work of what follows; only the first `limit` survive anyway
    if _SUSPICIOUS.search(value):
        for pattern, replacement in _PATTERNS:
            value = pattern.sub(replacement, value)
    if not value.isprintable():
        value = _CONTROL.sub(_escape, value)
    return value if len(value) <= limit else value[:limit] + "…"


def target(value: str, limit: int = MAX_TEXT) -> str:
    """A request target without query, fragment and userinfo."""
    end = len(value)
    for mark in "?#":
        at = value.find(mark, 0, end)
        if at >= 0:
            end = at
    return text(value[:end], limit)


def header(name: bytes, value: bytes) -> str:
    """The value of a header, `[redacted]` where the header may carry a secret."""
    if is_credential(name):
        return REDACTED
    if name in (b"referer", b"location", b"content-location", b"origin"):
        return target(value.decode("latin-1"), MAX_HEADER)
    return text(value.decode("latin-1"), MAX_HEADER)


def chosen_headers(headers: Headers, wanted: frozenset[bytes]) -> dict[str, str]:
    """The wanted headers that are there, redacted; repeated ones joined by a comma and a space."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name in wanted:
            key = name.decode("latin-1")
            found[key] = f"{found[key]}, {header(name, value)}" if key in found else header(name, value)
    return {key: value[: 4 * MAX_HEADER] for key, value in found.items()}


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match.group()):04x}"

"""Where we differ from the publishers of test vectors, and why: one sentence a vector, checked in both directions.

What the codec alone decides about gunicorn's vectors is written beside its own test; here stands what the whole hop
(paths, rules, limits) adds, and llhttp's vectors.
"""

from __future__ import annotations

from tests.sidecar.http.test_h1_vectors import MILDER, STRICTER

_NOT_WHOLE = "the message is not whole: we wait for the rest, and nothing of it counts as a request"
_CODING = "a transfer coding that we do not undo (501), or Transfer-Encoding on two lines (400)"
_AFTER_CLOSE = "what follows `Connection: close` or a plain HTTP/1.0 request is never read; the first request passes"
_CONNECT = "CONNECT is for the forward proxy, not for peers"

_HOP_STRICTER = {
    "031.http": "a method that no rule lists (403); a rule may list it",
    "031compat.http": "a method that no rule lists (403); a rule may list it",
    "031compat2.http": "a method that no rule lists (403); a rule may list it",
    "100.http": "empty segments: two servers read two paths (decision D4)",
    "rfc9112_target_authority_connect_01.http": _CONNECT,
    "rfc9112_target_authority_ipv6_01.http": _CONNECT,
}
# Taken by the codec, not by the hop; or made of two requests, whose Host lines are put in here.
_NOT_AT_THE_HOP = {"003c.http", "018.http", "023.http"}


def _gunicorn() -> dict[str, str]:
    found = {}
    for kind, table in (("valid", {**STRICTER, **_HOP_STRICTER}), ("invalid", MILDER)):
        for name, why in table.items():
            if name not in _NOT_AT_THE_HOP:
                found[f"gunicorn/{kind}/{name.removesuffix('.http')}"] = why
    return found


_LLHTTP = {
    "connection#3": _AFTER_CLOSE,
    "connection#5": "two empty lines between requests: one is forgiven (RFC 9112 2.2); the first request passes",
    "connection#9": _AFTER_CLOSE,
    "connection#10": _AFTER_CLOSE,
    "content-length#10": _NOT_WHOLE,
    "content-length#11": _NOT_WHOLE,
    "content-length#16": _NOT_WHOLE,
    "finish#2": _NOT_WHOLE,
    "finish#3": _NOT_WHOLE,
    "method#1": "REPORT: a method that no rule lists (403); a rule may list it",
    "method#2": _CONNECT,
    "method#3": _CONNECT,
    "method#4": _CONNECT,
    "method#5": "`M-SEARCH *`: only OPTIONS may ask for `*` (RFC 9112 section 3.2.4)",
    "method#12": "ICE is another protocol",
    "method#13": "RTSP is another protocol",
    "method#14": "RTSP is another protocol",
    "method#15": "`PRI *`: HTTP/2's preface is no HTTP/1 request",
    "pipelining#1": "the second request has no Host; the first one passes",
    "sample#3": "`Host: 0.0.0.0=5000` is no host",
    "sample#4": "`Host: 0.0.0.0=5000` is no host",
    "sample#10": "HTTP/0.9: no version in the request line",
    "transfer-encoding#1": _NOT_WHOLE,
    "transfer-encoding#6": "Content-Type as a trailer (RFC 9110 section 6.5.1)",
    "transfer-encoding#7": _NOT_WHOLE,
    "transfer-encoding#10": _NOT_WHOLE,
    "transfer-encoding#20": _CODING,
    "transfer-encoding#21": _CODING,
    "uri#8": "a fragment in a request target (RFC 9112 section 3.2 has none)",
    "uri#9": _CONNECT,
    "uri#10": "user information in a target: a known trick (RFC 9110 section 4.2.4)",
}
_RESPONSE = {
    "connection#6": "204 with `Connection: close`: the answer is taken, the bytes after it and the connection are not",
    "connection#8": "as its length says; the bytes after it are dropped with the connection",
    "connection#17": "an empty line in the place of a status line: `HTTP/1.1 100`, then nothing that we can read",
    "connection#18": _NOT_WHOLE,
    "content-length#3": _NOT_WHOLE,
    "content-length#4": _NOT_WHOLE,
    "sample#2": "RTSP is another protocol",
    "sample#3": "ICE is another protocol",
    "sample#6": _NOT_WHOLE,
    "sample#18": "HTTP/0.9 has no status line",
    "sample#20": "an empty line before a status line: clients need not forgive it, and nobody sends it",
    "transfer-encoding#2": "chunked is not the last coding: only a close would end it, and who knows what follows",
    "transfer-encoding#3": "Transfer-Encoding on two lines that disagree",
    "transfer-encoding#4": "an unknown transfer coding",
    "transfer-encoding#8": _NOT_WHOLE,
}

DECISIONS: dict[str, str] = {
    **_gunicorn(),
    **{f"llhttp/{name}": why for name, why in _LLHTTP.items()},
    **{f"llhttp/response/{name}": why for name, why in _RESPONSE.items()},
}
# What one server does with one message, although it reads it as we do.
ODD: dict[tuple[str, str], str] = {
    ("apache", "gunicorn/valid/rfc9112_target_asterisk_options_01"): "answers `OPTIONS *` itself and proxies nothing",
}


def key(name: str) -> str:
    """The name of a decision for a vector: without its title, and without the note that a Host was put in."""
    return name.partition(" ")[0]


def decisions_table() -> str:
    """The decisions in Markdown."""
    rows = [f"| `{name}` | {why} |" for name, why in DECISIONS.items()]
    return "\n".join(("| vector | our decision |", "| --- | --- |", *rows))

"""Path spellings: where a proxy matches one path and the origin opens another (decision D4, RFC 3986 section 6).

Acceptable is a refusal, or a target that was rewritten to its one plain spelling; not the bytes as they came.
"""

from __future__ import annotations

from sidecar.conformance.case import NOTHING, Case, Reading, Wanted, head, one

_B = one(Wanted(target=b"/b"))
_A = one(Wanted(target=b"/a"))
_AB = one(Wanted(target=b"/a/b"))

PATHS: tuple[tuple[str, bytes, tuple[Reading, ...], str], ...] = (
    ("dot-dot", b"/a/../b", _B, "A dot segment: /b to some."),
    ("dot-dot-end", b"/b/..", one(Wanted(target=b"/")), "A dot segment at the end."),
    ("dot-dot-top", b"/../b", _B, "Above the root."),
    ("dot", b"/a/./b", _AB, "A segment of one dot."),
    ("dot-end", b"/a/.", one(Wanted(target=b"/a/")), "The same at the end."),
    ("encoded-dot-dot", b"/a/%2e%2e/b", _B, "Encoded dots."),
    ("encoded-dot-dot-upper", b"/a/%2E%2E/b", _B, "The same in upper case."),
    ("half-encoded-dot-dot", b"/a/.%2e/b", _B, "Half encoded."),
    ("encoded-dot", b"/a/%2e/b", _AB, "One encoded dot."),
    ("double-encoded-dot-dot", b"/a/%252e%252e/b", NOTHING, "Encoded twice: who decodes twice sees dots."),
    ("double-encoded-slash", b"/a%252fb", NOTHING, "Encoded twice: who decodes twice sees a slash."),
    ("triple-encoded", b"/a/%25252e%25252e/b", NOTHING, "Encoded three times."),
    ("double-slash", b"/a//b", _AB, "An empty segment: merged by some."),
    ("double-slash-first", b"//a", _A, "Two slashes first: a host to some."),
    ("double-slash-host", b"//evil.example/a", one(Wanted(target=b"/evil.example/a")), "A host without a scheme."),
    ("triple-slash", b"///a", _A, "Three slashes."),
    ("encoded-slash", b"/a%2fb", NOTHING, "An encoded slash: one segment or two."),
    ("encoded-slash-upper", b"/a%2Fb", NOTHING, "The same in upper case."),
    ("encoded-slash-dots", b"/a%2f..%2fb", NOTHING, "Dots between encoded slashes."),
    ("backslash", b"/a\\b", NOTHING, "A backslash: a slash to some."),
    ("backslash-dots", b"/a\\..\\b", NOTHING, "Dots between backslashes."),
    ("encoded-backslash", b"/a%5cb", NOTHING, "An encoded backslash."),
    ("encoded-backslash-dots", b"/a/..%5cb", NOTHING, "Dots before an encoded backslash."),
    ("encoded-nul", b"/a%00", NOTHING, "An encoded NUL ends the path for C code."),
    ("encoded-nul-suffix", b"/a%00.html", NOTHING, "The same, before a harmless suffix."),
    ("encoded-newline", b"/a%0ab", NOTHING, "An encoded newline: into logs, and into whoever decodes it too early."),
    ("encoded-crlf", b"/a%0d%0aX-A:%20spoofed", NOTHING, "An encoded CRLF."),
    ("encoded-tab", b"/a%09b", NOTHING, "An encoded control character."),
    ("encoded-del", b"/a%7fb", NOTHING, "The same with DEL."),
    ("semicolon", b"/a;x=1/b", NOTHING, "A path parameter: cut off by some (Tomcat)."),
    ("semicolon-dots", b"/a/..;/b", NOTHING, "Dots before a semicolon: dots to some (Tomcat)."),
    ("semicolon-end", b"/a;.css", NOTHING, "A suffix that is no suffix."),
    ("encoded-semicolon", b"/a%3bx=1", NOTHING, "The same encoded."),
    ("overlong-dot", b"/a/%c0%ae%c0%ae/b", NOTHING, "Overlong UTF-8 for dots."),
    ("overlong-slash", b"/a%c0%afb", NOTHING, "Overlong UTF-8 for a slash."),
    ("overlong-slash-3", b"/a%e0%80%afb", NOTHING, "The same in three bytes."),
    ("invalid-utf8", b"/a%ff", NOTHING, "No UTF-8 at all: another path in Latin-1."),
    ("surrogate", b"/a%ed%a0%80", NOTHING, "Half of a surrogate pair."),
    ("utf16-escape", b"/a%u002e%u002e/b", NOTHING, "Microsoft's escapes."),
    ("bad-escape", b"/a%zz", NOTHING, "Not hexadecimal."),
    ("short-escape", b"/a%2", NOTHING, "Half an escape."),
    ("lone-percent", b"/a%", NOTHING, "A percent sign alone."),
    ("percent-percent", b"/a%%32f", NOTHING, "Who decodes twice sees a slash."),
    ("fragment", b"/a#b", _A, "A fragment never travels: /a to some, all of it to others."),
    ("fragment-dots", b"/a#/../b", _A, "The same, hiding dots."),
    ("raw-utf8", "/ä".encode(), NOTHING, "Bytes outside ASCII in a target."),
    ("raw-high", b"/a\xff", NOTHING, "The same without being UTF-8."),
    ("full-width-dots", "/a/．．/b".encode(), NOTHING, "Dots to who folds Unicode."),
    ("nul", b"/a\x00b", NOTHING, "A raw NUL."),
    ("del", b"/a\x7fb", NOTHING, "A raw DEL."),
    ("tab", b"/a\tb", NOTHING, "A raw tab."),
    ("vt", b"/a\x0bb", NOTHING, "A raw vertical tab."),
    ("esc", b"/a\x1bb", NOTHING, "An escape sequence for whoever reads the log."),
    ("query-fragment", b"/a?b#c", one(Wanted(target=b"/a?b")), "A fragment after a query."),
    ("query-nul", b"/a?b\x00", NOTHING, "A raw NUL in a query."),
    ("query-space", b"/a?b c", NOTHING, "A space in a query."),
)

CASES = tuple(
    Case(f"paths/{name}", "D4, RFC 3986 6", why, head(target=target), accept) for name, target, accept, why in PATHS
)

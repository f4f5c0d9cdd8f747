"""A target has one reading or is refused (decision D4); a host has one spelling or is refused."""

from __future__ import annotations

import pytest

from sidecar.errors import AmbiguousPath, HostMismatch, ProtocolViolation
from sidecar.http.canonical import (
    STRICT,
    Leniency,
    canonical_host,
    canonical_target,
    opaque_target,
    request_host,
)

SLASH = Leniency(encoded_slash=True)
EMPTY = Leniency(empty_segments=True)
PARAMS = Leniency(path_parameters=True)
ALL = SLASH | EMPTY | PARAMS

READ = [
    (b"/", ("",)),
    (b"/orders", ("orders",)),
    (b"/orders/", ("orders", "")),
    (b"/orders/7/items", ("orders", "7", "items")),
    (b"/.well-known/acme", (".well-known", "acme")),
    (b"/a/...", ("a", "...")),
    (b"/a/..b", ("a", "..b")),
    (b"/a.b-c_d~e!$&'()*+,=:@", ("a.b-c_d~e!$&'()*+,=:@",)),
    (b'/a[0]|{b}^`"<>', ('a[0]|{b}^`"<>',)),
    (b"/caf%C3%A9/%20", ("caf\u00e9", " ")),
    (b"/%61%2eb", ("a.b",)),
    (b"/100%25", ("100%",)),
    (b"/100%25/41", ("100%", "41")),
    (b"/%25zz", ("%zz",)),
    (b"/%3F%23", ("?#",)),
    (b"/%F0%9F%98%80", ("\U0001f600",)),
    (b"/a:b@c", ("a:b@c",)),
]


@pytest.mark.parametrize(("target", "segments"), READ)
@pytest.mark.parametrize("query", [None, b"", b"x=1&y=%zz", b"/../?;//\\"])
def test_segments_are_split_first_and_decoded_once(
    target: bytes, segments: tuple[str, ...], query: bytes | None
) -> None:
    whole = target if query is None else target + b"?" + query
    read = canonical_target(whole, "GET")
    assert (read.form, read.path, read.segments, read.query) == ("origin", target, segments, query)
    assert read.origin_form == whole  # forwarded byte for byte
    assert read.needs == STRICT
    assert canonical_target(whole, "GET", leniency=ALL) == read


REFUSED = [
    b"/.", b"/..", b"/a/./b", b"/a/../b", b"/a/..", b"/../a", b"/%2e", b"/%2E%2e/a", b"/a/.%2e", b"/%2e./a",
    b"//", b"//a", b"/a//", b"/a//b",
    b"/a\\b", b"/..\\a", b"/a%5Cb", b"/a%5cb",
    b"/a%2Fb", b"/a%2fb", b"/%2f", b"/%2e%2e%2fa",
    b"/a%00", b"/a%0d%0aX", b"/%7F", b"/%1b",
    b"/%2541", b"/%252e", b"/%252F", b"/%25%34%31", b"/%254%31", b"/a%25ff",
    b"/%", b"/a%", b"/%2", b"/%zz", b"/%2g", b"/%u002f", b"/%-1", b"/% 1", b"/%%41",
    b"/a\x00", b"/a\tb", b"/a\r\n", b"/a\x7f", b"/a\x80", b"/caf\xc3\xa9", b"/a b", b"/a#b", b"/#",
    b"/;a", b"/a;b=1", b"/..;/a", b"/a/.;x/b", b"/a%3Bb",
    b"/%c0%af", b"/%c0%ae", b"/%e0%80%af", b"/%ff", b"/%C3", b"/%ed%a0%80", b"/%f4%90%80%80",
    b"/a?b c", b"/a?b#c", b"/a?\x00", b"/a?\xc3\xa9", b"/a?\r\n", b"/a?\x7f",
]  # fmt: skip


@pytest.mark.parametrize("target", REFUSED)
def test_what_has_two_readings_is_refused(target: bytes) -> None:
    with pytest.raises(AmbiguousPath) as refusal:
        canonical_target(target, "GET")
    assert refusal.value.detail.isprintable()


@pytest.mark.parametrize("target", [b"http://h" + target for target in REFUSED])
def test_an_absolute_url_is_no_way_around_it(target: bytes) -> None:
    with pytest.raises(AmbiguousPath):
        canonical_target(target, "GET")


LENIENT = [
    # target; what it needs; segments
    (b"/a%2Fb", SLASH, ("a/b",)),
    (b"/projects/group%2fname/x", SLASH, ("projects", "group/name", "x")),
    (b"//a", EMPTY, ("", "a")),
    (b"/a//b/", EMPTY, ("a", "", "b", "")),
    (b"//", EMPTY, ("", "")),
    (b"/a;x=1/b", PARAMS, ("a;x=1", "b")),
    (b"/a%3Bx", PARAMS, ("a;x",)),
    (b"/a%2F/;//", ALL, ("a/", ";", "", "")),
]


@pytest.mark.parametrize(("target", "needs", "segments"), LENIENT)
def test_each_unsafe_option_opens_one_thing_and_says_that_it_was_used(
    target: bytes, needs: Leniency, segments: tuple[str, ...]
) -> None:
    read = canonical_target(target, "GET", leniency=needs)
    assert (read.segments, read.needs) == (segments, needs)
    assert read.origin_form == target
    assert canonical_target(target, "GET", leniency=ALL) == read
    for less in (SLASH, EMPTY, PARAMS, STRICT):
        if not less.covers(needs):
            with pytest.raises(AmbiguousPath):
                canonical_target(target, "GET", leniency=less)


@pytest.mark.parametrize(
    "target",
    [
        b"/..", b"/..;x/a", b"/.;/a", b"/a%2F..", b"/a%2f..%2fb", b"/..%2Fa", b"/a%2F..;x", b"/a%2F.%2fb", b"/%2541",
        b"/a%00", b"/a\\b", b"/a%5cb", b"/a#", b"/%ff", b"/%2f\x80", b"/a%",
    ],
)  # fmt: skip
def test_no_unsafe_option_opens_dot_segments_backslashes_or_double_encoding(target: bytes) -> None:
    with pytest.raises(AmbiguousPath):
        canonical_target(target, "GET", leniency=ALL)


@pytest.mark.parametrize("target", [b"/a%2F%2Fb", b"/%2Fa", b"/a%2f"])
def test_an_encoded_slash_may_not_make_an_empty_segment(target: bytes) -> None:
    with pytest.raises(AmbiguousPath, match="empty segment"):
        canonical_target(target, "GET", leniency=SLASH)
    assert canonical_target(target, "GET", leniency=ALL).needs == SLASH | EMPTY


def test_leniency_is_a_small_set() -> None:
    assert STRICT | SLASH == SLASH
    assert ALL.covers(SLASH)
    assert ALL.covers(ALL)
    assert not SLASH.covers(EMPTY)
    assert not STRICT.covers(PARAMS)


# ---- forms -----------------------------------------------------------------------------------------------------


def test_absolute_form_names_its_host_and_keeps_its_bytes() -> None:
    read = canonical_target(b"HTTP://Orders.Example:8080/a%20b?q=//", "POST")
    assert (read.form, read.scheme, read.host, read.port) == ("absolute", "http", "orders.example", 8080)
    assert (read.path, read.segments, read.query) == (b"/a%20b", ("a b",), b"q=//")
    assert read.origin_form == b"/a%20b?q=//"


@pytest.mark.parametrize(("target", "origin"), [(b"http://h", b"/"), (b"https://h?x", b"/?x")])
def test_an_absolute_url_without_path_means_the_root(target: bytes, origin: bytes) -> None:
    read = canonical_target(target, "GET")
    assert (read.path, read.segments, read.origin_form) == (b"", ("",), origin)


def test_authority_form_is_for_connect_alone() -> None:
    read = canonical_target(b"Orders:443", "CONNECT")
    assert (read.form, read.host, read.port, read.segments) == ("authority", "orders", 443, ())
    for target, method in ((b"orders:443", "GET"), (b"orders", "CONNECT")):
        with pytest.raises(ProtocolViolation):
            canonical_target(target, method)
    for target in (b"/", b"http://h:1/", b"*", b"u@h:1", b"h:99999"):
        with pytest.raises(HostMismatch):
            canonical_target(target, "CONNECT")


def test_asterisk_form_is_for_options_alone() -> None:
    read = canonical_target(b"*", "OPTIONS")
    assert (read.form, read.segments, read.origin_form) == ("asterisk", (), b"*")
    with pytest.raises(ProtocolViolation):
        canonical_target(b"*", "GET")
    with pytest.raises(AmbiguousPath, match="can mean"):
        canonical_target(b"http://h", "OPTIONS")


@pytest.mark.parametrize(
    "target", [b"", b"a", b"a/b", b"?x", b"ftp://h/", b"http:/h", b"http:h", b"javascript://h/", b"\xff://h"]
)
def test_what_is_no_target_at_all_is_refused(target: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        canonical_target(target, "GET")


@pytest.mark.parametrize(
    "target", [b"http:///a", b"http://u@h/", b"http://u:p@h/", b"http://h:/", b"http://%68/", b"http://h\\@x/"]
)
def test_a_malformed_authority_is_refused(target: bytes) -> None:
    with pytest.raises((HostMismatch, AmbiguousPath)):
        canonical_target(target, "GET")


@pytest.mark.parametrize("target", [b"/a//b/../%2f;x", b"http://h/a//..%2F?q", b"/%zz", b"http://h"])
def test_toward_third_parties_the_path_is_untouched_and_unread(target: bytes) -> None:
    read = opaque_target(target, "GET")
    assert read.segments == ()
    assert target.endswith(read.origin_form) or read.path == b""


@pytest.mark.parametrize("target", [b"/a b", b"/a\r\nX: y", b"/\xff", b"/a#b", b"/a?\x00", b"http://h/\x7f"])
def test_toward_third_parties_framing_hygiene_remains(target: bytes) -> None:
    with pytest.raises(AmbiguousPath):
        opaque_target(target, "GET")


def test_toward_third_parties_connect_and_asterisk_keep_their_rules() -> None:
    assert opaque_target(b"h:443", "CONNECT").port == 443
    assert opaque_target(b"*", "OPTIONS").form == "asterisk"
    with pytest.raises(ProtocolViolation):
        opaque_target(b"*", "GET")


# ---- hosts -----------------------------------------------------------------------------------------------------

HOSTS = [
    (b"orders", "orders", None),
    (b"Orders.Example.COM:8080", "orders.example.com", 8080),
    (b"my_service:1", "my_service", 1),
    (b"xn--caf-dma.example", "xn--caf-dma.example", None),
    (b"a-b.c", "a-b.c", None),
    (b"127.0.0.1:65535", "127.0.0.1", 65535),
    (b"1a.2b", "1a.2b", None),
    (b"0xcafe.example", "0xcafe.example", None),
    (b"0xorders", "0xorders", None),
    (b"[::1]", "::1", None),
    (b"[2001:DB8:0:0::1]:443", "2001:db8::1", 443),
    (b"[::ffff:10.0.0.1]", "::ffff:a00:1", None),
    (b"a" * 63 + b".b", "a" * 63 + ".b", None),
]


@pytest.mark.parametrize(("value", "host", "port"), HOSTS)
def test_a_host_is_read_in_lower_case_with_its_port(value: bytes, host: str, port: int | None) -> None:
    read = canonical_host(value)
    assert (read[0].replace("::ffff:10.0.0.1", "::ffff:a00:1"), read[1]) == (host, port)
    again = f"[{read[0]}]" if ":" in read[0] else read[0]
    assert canonical_host(again.encode()) == (read[0], None)


@pytest.mark.parametrize(
    "value",
    [
        b"", b":80", b".", b"a.", b"a..b", b".a", b"a:", b"a:0", b"a:080", b"a:65536", b"a:99999", b"a:123456", b"a:x",
        b"a:+1", b"a:1:2", b"a: 1", b"a b", b" a", b"a\t", b"a\x00", b"a/b", b"a?b", b"a#b", b"u@a", b"a%41",
        b"caf\xc3\xa9", b"a,b", b"a;b", b"-a", b"a-", b"a-.b", b"a" * 64, b".".join([b"a" * 62] * 5), b"*", b"*.a",
        b"127.1", b"0x7f.1", b"0x7f000001", b"0x", b"2130706433", b"0177.0.0.1", b"1.2.3.4.5", b"1.2.3.256",
        b"01.2.3.4", b"a.1",
        b"[", b"[::1", b"[]", b"[::1]x", b"[::1]80", b"[::1]:", b"[::1%25eth0]", b"[::1%eth0]", b"[1.2.3.4]", b"[v1.a]",
        b"[\xff]", b"::1", b"[::1]:x", b"[[::1]]",
    ],
)  # fmt: skip
def test_a_host_with_any_doubt_is_refused(value: bytes) -> None:
    with pytest.raises(HostMismatch) as refusal:
        canonical_host(value)
    assert refusal.value.detail.isprintable()


AGREE: list[tuple[bytes, str, list[bytes], str, tuple[str, int | None] | None]] = [
    # target, method, Host lines, version, answer or None for refusal
    (b"/", "GET", [b"Orders:80"], "1.1", ("orders", 80)),
    (b"/", "GET", [], "1.1", None),
    (b"/", "GET", [], "1.0", ("", None)),
    (b"/", "GET", [], "2", None),
    (b"/", "GET", [b"a", b"a"], "1.1", None),
    (b"/", "GET", [b"a", b"b"], "1.0", None),
    (b"/", "GET", [b""], "1.1", None),
    (b"/", "GET", [b"a, b"], "1.1", None),
    (b"http://a/", "GET", [b"A"], "1.1", ("a", None)),
    (b"http://a:80/", "GET", [b"a"], "1.1", ("a", 80)),
    (b"http://a/", "GET", [b"a:80"], "1.1", ("a", None)),
    (b"https://a/", "GET", [b"a:443"], "1.1", ("a", None)),
    (b"https://a/", "GET", [b"a:80"], "1.1", None),
    (b"http://a:8080/", "GET", [b"a"], "1.1", None),
    (b"http://a/", "GET", [b"b"], "1.1", None),
    (b"http://a/", "GET", [], "1.1", None),
    (b"http://a:81/", "GET", [], "1.0", ("a", 81)),
    (b"http://a/", "GET", [b"b"], "1.0", None),
    (b"a:443", "CONNECT", [b"a:443"], "1.1", ("a", 443)),
    (b"a:443", "CONNECT", [b"a"], "1.1", ("a", 443)),
    (b"a:443", "CONNECT", [b"a:80"], "1.1", None),
    (b"a:443", "CONNECT", [b"b:443"], "1.1", None),
    (b"a:443", "CONNECT", [], "1.0", ("a", 443)),
    (b"*", "OPTIONS", [b"a"], "1.1", ("a", None)),
]


@pytest.mark.parametrize(("target", "method", "hosts", "version", "answer"), AGREE)
def test_a_request_is_for_one_host_or_refused(
    target: bytes, method: str, hosts: list[bytes], version: str, answer: tuple[str, int | None] | None
) -> None:
    read = canonical_target(target, method)
    if answer is None:
        with pytest.raises(HostMismatch):
            request_host(read, hosts, version)
    else:
        assert request_host(read, hosts, version) == answer

"""URLs are read in one way, by the grammar of RFC 3986, or not at all."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.url import MAX_LENGTH, Parts, take_apart

GOOD = [
    ("https://a", Parts("https", "a", 443, "", "")),
    ("http://a:8080/", Parts("http", "a", 8080, "/", "")),
    ("HTTPS://Login.Example.ORG/T/keys/", Parts("https", "login.example.org", 443, "/T/keys/", "")),
    ("https://a?b=c", Parts("https", "a", 443, "", "?b=c")),
    ("https://a/b?", Parts("https", "a", 443, "/b", "?")),
    ("https://a/k?p=B2C_1&x=%2f/?", Parts("https", "a", 443, "/k", "?p=B2C_1&x=%2f/?")),
    ("https://[::1]:6443/a@b;c", Parts("https", "::1", 6443, "/a@b;c", "")),
    ("https://127.0.0.1//a/../b", Parts("https", "127.0.0.1", 443, "//a/../b", "")),
]
BAD = [
    ("https://user@a/", "user"), ("https://u:p@a/", "user"), ("https://a@b?c", "user"), ("https://a/#x", "fragment"),
    *((text, "no URL") for text in (
        "", "a", "a:1", "//a", "ftp://a", "file:///etc/passwd", "https://", "https:///k", "https://:443/", "https://a:/",
        "https://a:0/", "https://a:65536/", "https://a:+1/", "https://a:1:2/", "https://a/ b", "https://a/\tb",
        "https://a/b\r\nhost: c", "https://a\n", "https://a/%2", "https://a/%zz", "https://a/ü", "https://ä/",
        "https://a\\b/", "https://a/\\b", "https://a/<b>", "https://a/{b}", 'https://a/"', "https://[::1", "https://[::g]/",
        "https://[1.2.3.4]/", "https://[fe80::1%eth0]/", "https://a/" + "b" * MAX_LENGTH, " https://a",
    )),
]  # fmt: skip


@pytest.mark.parametrize(("text", "parts"), GOOD)
def test_what_is_one(text: str, parts: Parts) -> None:
    assert take_apart(text) == parts


@pytest.mark.parametrize(("text", "why"), BAD)
def test_what_is_none(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        take_apart(text)
    assert not text or text not in str(refused.value)


@given(st.from_regex(r"https?://[a-zA-Z0-9.:@/?#%\[\]_&=\\ -]{0,30}", fullmatch=True))
def test_what_is_read_reads_the_same_for_everybody_else(text: str) -> None:
    try:
        parts = take_apart(text)
    except ValueError:
        return
    other = urlsplit(text)
    assert (parts.scheme, parts.path) == (other.scheme, other.path)
    assert parts.query.removeprefix("?") == other.query
    assert other.username is None
    assert (other.port or {"http": 80, "https": 443}[parts.scheme]) == parts.port
    if "[" not in text:
        assert parts.host == other.hostname

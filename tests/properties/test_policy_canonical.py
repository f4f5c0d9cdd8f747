"""Any bytes at all: a target is read or refused with an error of ours, and what is read has one reading."""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.errors import HopError
from sidecar.http.canonical import (
    STRICT,
    Leniency,
    Target,
    canonical_host,
    canonical_target,
    opaque_target,
    request_host,
)
from sidecar.patterns import PathTemplate

PIECES = [
    b"/", b"//", b"a", b"orders", b".", b"..", b"%2e", b"%2E", b"%2f", b"%5c", b"%00", b"%25", b"%41", b"%", b"41",
    b"%c0%af", b"%C3%A9", b";", b"?", b"#", b"\\", b" ", b"\xc3\xa9", b"\x00", b"http://", b"h", b":80", b"@", b"*",
    b"[::1]", b"%3B",
]  # fmt: skip
BYTES = st.one_of(
    st.binary(max_size=40),
    st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join),
    st.lists(st.sampled_from(PIECES), max_size=8).map(lambda pieces: b"/" + b"".join(pieces)),
)
METHODS = st.sampled_from(["GET", "POST", "OPTIONS", "CONNECT", "get"])
LENIENCIES = st.builds(Leniency, st.booleans(), st.booleans(), st.booleans())


def read(target: bytes, method: str, leniency: Leniency) -> Target | None:
    """The target, or None where it is refused."""
    try:
        return canonical_target(target, method, leniency=leniency)
    except HopError:
        return None


def one_reading(target: bytes, method: str, leniency: Leniency) -> None:
    """Whatever is accepted holds all that D4 promises of it."""
    found = read(target, method, leniency)
    if found is None:
        return
    assert leniency.covers(found.needs)
    assert read(target, method, found.needs) == found  # no more leniency than it says it needs
    if found.form == "origin":
        assert found.origin_form == target  # what was judged is what is forwarded
        assert b"/".join([b"", *(quote(s, "").encode() for s in found.segments)]) == b"".join(
            [b"/" + quote(unquote_to_bytes(raw), "").encode() for raw in found.path.split(b"/")[1:]]
        )
        anew = b"".join(b"/" + quote(segment, "").encode() for segment in found.segments)
        again = canonical_target(anew, method, leniency=leniency)
        assert again.segments == found.segments  # segments, encoded anew, are read the same
        assert PathTemplate.naming(found.segments).matches(found.segments)
    if found.form == "absolute":
        assert target.endswith(found.path + (b"" if found.query is None else b"?" + found.query))
        assert read(found.origin_form, method, leniency) == Target(
            "origin", found.path or b"/", found.segments, found.query, needs=found.needs
        )
    for segment in found.segments:
        for part in segment.split("/"):  # an encoded slash hides no dot segment either
            assert part.partition(";")[0] not in (".", "..")
        assert "\\" not in segment
        assert all(character >= " " and character != "\x7f" for character in segment)
    if found.needs == STRICT:
        assert not any("/" in segment or ";" in segment for segment in found.segments)
        assert all(found.segments[:-1])


@settings(max_examples=1500, deadline=None)
@given(BYTES, METHODS, LENIENCIES)
@example(b"/a%2f..;/b", "GET", Leniency(True, True, True))
def test_any_target_is_refused_or_has_one_reading(target: bytes, method: str, leniency: Leniency) -> None:
    one_reading(target, method, leniency)


@pytest.mark.deep
@settings(max_examples=100_000, deadline=None)
@given(BYTES, METHODS, LENIENCIES)
def test_any_target_is_refused_or_has_one_reading_at_length(target: bytes, method: str, leniency: Leniency) -> None:
    one_reading(target, method, leniency)


@settings(max_examples=500, deadline=None)
@given(BYTES, METHODS)
def test_a_target_for_third_parties_is_refused_or_untouched(target: bytes, method: str) -> None:
    try:
        found = opaque_target(target, method)
    except HopError:
        return
    assert found.segments == ()
    assert all(0x20 < byte < 0x7F for byte in target)
    if found.form == "origin":
        assert found.origin_form == target


@settings(max_examples=1000, deadline=None)
@given(st.one_of(st.binary(max_size=20), st.text("aZ09.-_:[]%@1", max_size=20).map(str.encode)))
def test_any_host_is_refused_or_has_one_spelling(value: bytes) -> None:
    try:
        host, port = canonical_host(value)
    except HopError:
        return
    assert host == host.lower()
    assert port is None or 1 <= port <= 65535
    spelled = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    assert canonical_host(spelled.encode()) == (host, port)
    assert request_host(canonical_target(b"/", "GET"), [value], "1.1") == (host, port)

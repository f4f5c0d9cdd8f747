"""Fuzzers of names and of what is decided by them: SPIFFE IDs, patterns, rules, x-forwarded-client-cert."""
# ruff: noqa: PT017 - acceptance and refusal are both right here, and each has assertions of its own

from __future__ import annotations

import re
from random import Random
from urllib.parse import urlsplit

from hypothesis import example
from hypothesis import strategies as st

from certs.errors import InvalidSpiffeId
from certs.spiffe import SpiffeId, TrustDomain
from sidecar.errors import HopError
from sidecar.hop import Permit
from sidecar.http.headers import XFCC
from sidecar.http.xfcc import appended, element
from sidecar.patterns import HeaderPattern, HostPattern, IdentityPattern, PathTemplate, PatternError
from sidecar.policy.authz import RuleSet
from tests.fuzz.depth import fuzz
from tests.properties.test_policy import a_hop, a_policy, a_rule

TD = TrustDomain.parse("demo.mesh")
WEB = SpiffeId.parse("spiffe://demo.mesh/ns/default/sa/web")
EVE = SpiffeId.parse("spiffe://demo.mesh/ns/default/sa/eve")
PARTS = [
    "spiffe://", "SPIFFE://", "spiffe:", "//", "/", "demo.mesh", "Demo.mesh", "ns", "default", "sa", "web", "*", "**",
    ".", "..", "%2f", "%41", "?", "#", "@", ":80", " ", "\t", "\n", "\0", "é", "ａ", "\u200b", "\ud800", "a" * 300,
    "{id}", "",
]  # fmt: skip
TEXTS = st.one_of(st.lists(st.sampled_from(PARTS), max_size=9).map("".join), st.text(max_size=40))
IDS = st.lists(st.sampled_from(["ns", "sa", "web", "a.b", "-", "_"]), max_size=5).map(lambda parts: TD.id(*parts))


@fuzz(TEXTS, brief=1500, long=100_000)
@example("spiffe://demo.mesh/a\n")
@example("spiffe://demo.mesh/٣")
def test_a_spiffe_id_has_one_spelling(text: str) -> None:
    """A text is refused, or is a SPIFFE ID that prints as exactly that text, in plain ASCII, and that any URI library
    splits into the same trust domain and path.
    """
    try:
        found = SpiffeId.parse(text)
    except InvalidSpiffeId as error:
        assert len(str(error)) < 5000
        return
    assert found.text == str(found) == text
    assert re.fullmatch(r"spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)*", text)
    assert SpiffeId.parse(found.text) == found
    split = urlsplit(text)
    assert (split.scheme, split.netloc, split.path) == ("spiffe", found.trust_domain.name, found.path)
    assert not {".", ".."} & set(found.segments)


@fuzz(TEXTS, IDS, brief=1500, long=100_000)
@example("spiffe://demo.mesh/**", TD.id())
def test_an_identity_pattern_means_no_more_than_it_says(text: str, caller: SpiffeId) -> None:
    """A pattern is refused with a PatternError, or matches exactly the callers of its own trust domain that a regular
    expression made of its words matches.
    """
    try:
        pattern = IdentityPattern.parse(text, TD, "default")
    except PatternError:
        return
    assert IdentityPattern.parse(str(pattern), TD, "default") == pattern
    whole = text
    if text == "**":
        whole = "spiffe://demo.mesh/**"
    elif "://" not in text:
        namespace, _, service = text.rpartition("/")
        whole = f"spiffe://demo.mesh/ns/{namespace or 'default'}/sa/{service}"
    words = [{"**": ".+", "*": "[^/]+"}.get(part, re.escape(part)) for part in whole.split("/")]
    assert pattern.matches(caller) == bool(re.fullmatch("/".join(words), caller.text))


SEGMENTS = st.lists(st.sampled_from(["a", "", "web", "{id}", "**", "é"]), max_size=4).map(tuple)
KINDS = st.dictionaries(st.sampled_from(["prefix", "present", "x"]), TEXTS | st.booleans(), max_size=2)


@fuzz(TEXTS, SEGMENTS, brief=800, long=50_000)
def test_a_path_template_means_no_more_than_it_says(text: str, segments: tuple[str, ...]) -> None:
    """A template is refused with a PatternError, or its own text is read the same again, placeholders stand for one
    non-empty segment each, and whatever it names literally it matches.
    """
    try:
        template = PathTemplate.parse(text)
    except PatternError:
        return
    assert PathTemplate.parse(str(template)) == template
    if template.literal is not None:
        assert template.matches(template.literal)
        assert template.matches(segments) == (segments == template.literal)
    elif not template.rest:
        assert not template.matches(("",) * len(template.segments))
    if segments and "/" not in "".join(segments):
        assert PathTemplate.naming(segments).matches(segments)


@fuzz(TEXTS, st.one_of(TEXTS, KINDS, st.none(), st.integers()), brief=800, long=50_000)
def test_host_and_header_patterns_refuse_or_mean_themselves(text: str, spec: object) -> None:
    """A host or header pattern is refused with a PatternError or survives being written and read again; an absent
    header satisfies none.
    """
    try:
        host = HostPattern.parse(text)
        assert HostPattern.parse(str(host)) == host
        assert not host.matches("")
        assert not host.matches("a." + text.replace("*", "b"))
    except PatternError:
        pass
    try:
        header = HeaderPattern.parse(text, spec)
    except PatternError:
        return
    assert HeaderPattern.parse(header.name.decode("ascii"), header.spec()) == header
    assert not header.matches([])
    assert not header.matches([(b"another", b"value")])


@fuzz(st.integers(0, 2**63), brief=400, long=33_000)
def test_more_allow_never_refuses_and_more_deny_never_admits(seed: int) -> None:
    """To add an allow rule anywhere turns no permit into a refusal, to add a deny rule turns no refusal into a permit,
    a shadow rule turns nothing at all, and without an allow rule nobody is let in.
    """
    dice = Random(seed)
    allow, deny = a_policy(dice)
    before = RuleSet.compile(allow, deny)
    at = dice.randrange(len(allow) + 1)
    more = RuleSet.compile([*allow[:at], a_rule(dice, "a77", "allow"), *allow[at:]], deny)
    stricter = RuleSet.compile(allow, [*deny, a_rule(dice, "d77", "deny")])
    nobody = RuleSet.compile([], deny)
    for _ in range(12):
        hop = a_hop(dice)
        permitted = isinstance(before.check(hop, 0.0), Permit)
        assert isinstance(more.check(hop, 0.0), Permit) or not permitted
        assert permitted or not isinstance(stricter.check(hop, 0.0), Permit)
        assert not isinstance(nobody.check(hop, 0.0), Permit)
        bare = RuleSet.compile([r for r in allow if not r.shadow], [r for r in deny if not r.shadow])
        assert isinstance(bare.check(hop, 0.0), Permit) == permitted


XFCC_PARTS = [
    b"By=", b"Hash=", b"URI=", b"Subject=", b'""', b'"', b"\\", b'\\"', b",", b";", b"=", b" ", b"x", EVE.text.encode(),
    b'Subject="CN=a,O=b"', b"\x00", b"\xff", b"DNS=a", b"Unknown=1",
]  # fmt: skip


def elements(value: bytes) -> list[dict[bytes, bytes]]:
    """A reader of the value of the kind that applications have: quotes first, then commas, then semicolons."""
    parts: list[list[bytearray]] = [[bytearray()]]
    quoted = escaped = False
    for byte in value:
        if escaped:
            escaped = False
        elif quoted and byte == 0x5C:
            escaped = True
            continue
        elif byte == 0x22:
            quoted = not quoted
            continue
        elif not quoted and byte in b",;":
            if byte == 0x2C:
                parts.append([])
            parts[-1].append(bytearray())
            continue
        parts[-1][-1].append(byte)
    found = []
    for part in parts:
        pairs = [bytes(pair).strip().partition(b"=") for pair in part]
        found.append({name.lower(): text for name, _, text in pairs})
    return found


@fuzz(st.lists(st.lists(st.sampled_from(XFCC_PARTS), max_size=8).map(b"".join), max_size=3), brief=1500, long=100_000)
@example([b'By="'])
@example([b'By="a\\'])
@example([b"By=a;URI=" + EVE.text.encode() + b','])
def test_the_last_client_certificate_is_the_one_that_we_saw(theirs: list[bytes]) -> None:
    """Whatever a listed forwarder writes is refused, or the last element that an application reads is ours, whole, and
    is the same for readers that know quotes and for those that do not.
    """
    ours = element(WEB, "ab" * 32, EVE)
    try:
        value = appended(ours, [(XFCC, each) for each in theirs])
    except HopError:
        return
    wanted = {b"by": WEB.text.encode(), b"hash": b"ab" * 32, b"subject": b"", b"uri": EVE.text.encode()}
    read = elements(value)
    assert read[-1] == wanted
    assert value.endswith(b"," + ours) or value == ours
    careless = value.rpartition(b",")[2]
    assert elements(careless) == [wanted]
    assert all(set(one) <= {b"by", b"hash", b"cert", b"chain", b"subject", b"uri", b"dns"} for one in read)

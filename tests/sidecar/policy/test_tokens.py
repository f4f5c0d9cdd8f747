"""What a listener does with tokens: where they may be, that a known one costs a look-up, and until when it is known."""

from __future__ import annotations

import pytest

from certs.spiffe import TrustDomain
from sidecar.config.schema_tokens import Issuer, Tokens
from sidecar.hop import Headers
from sidecar.policy import tokens as policy
from sidecar.policy.jwk import KeySet
from sidecar.policy.jwt import BadToken
from sidecar.policy.tokens import KeysWanted, ListenerTokens, NoToken
from tests.kit.tokens import NOW, Shelf, Signer, fingerprint_claim, key_set, listener

SIGNER = Signer()
TOKEN = SIGNER.token(scope="a b")
OPTIONAL = Tokens(("login",), required=False)


def bearing(*values: bytes) -> Headers:
    return [(b"host", b"orders"), *((b"authorization", value) for value in values)]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(login=key_set(SIGNER))


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER ", b"bEaReR  "])
def test_the_scheme_has_no_case(shelf: Shelf, scheme: bytes) -> None:
    token = listener(shelf).judge(bearing(scheme + TOKEN), "", NOW)
    assert token is not None
    assert (token.issuer, token.subject, token.scopes, token.expires) == ("login", "user-1", {"a", "b"}, NOW + 300)


@pytest.mark.parametrize("value", [b"Basic dTpw", b"Bearertoken", b"", b"Token x", b"DPoP " + TOKEN, TOKEN])
def test_another_scheme_is_no_token(shelf: Shelf, value: bytes) -> None:
    assert listener(shelf, OPTIONAL).judge(bearing(value), "", NOW) is None
    with pytest.raises(NoToken):
        listener(shelf).judge(bearing(value), "", NOW)


def test_no_token_is_none_where_none_is_needed(shelf: Shelf) -> None:
    assert listener(shelf, OPTIONAL).judge(bearing(), "", NOW) is None
    with pytest.raises(NoToken):
        listener(shelf).judge(bearing(), "", NOW)


@pytest.mark.parametrize(
    "values",
    [
        (b"Bearer", ), (b"Bearer ",), (b"Bearer x",), (b"Bearer " + TOKEN + b", Bearer " + TOKEN,),
        (b"Bearer " + TOKEN, b"Bearer " + TOKEN), (b"Basic dTpw", b"Bearer " + TOKEN), (b"Bearer " + TOKEN + b" x",),
        (b"Bearer\t" + TOKEN, b"Bearer x"),
    ],
)  # fmt: skip
def test_a_token_that_is_there_must_be_good_where_none_is_needed_too(shelf: Shelf, values: tuple[bytes, ...]) -> None:
    with pytest.raises(BadToken):
        listener(shelf, OPTIONAL).judge(bearing(*values), "", NOW)


def test_a_token_seen_before_is_not_verified_again(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = listener(shelf)
    first = ours.judge(bearing(b"Bearer " + TOKEN), "", NOW)
    monkeypatch.setattr(policy, "check_signature", lambda *_: pytest.fail("it was verified again"))
    assert ours.judge(bearing(b"bearer " + TOKEN), "", NOW + 359) is first


def test_it_is_known_no_longer_than_it_is_valid(shelf: Shelf) -> None:
    ours = listener(shelf)
    ours.judge(bearing(b"Bearer " + TOKEN), "", NOW)
    with pytest.raises(BadToken, match="expired"):
        ours.judge(bearing(b"Bearer " + TOKEN), "", NOW + 360)


def test_it_is_known_no_longer_than_its_key(shelf: Shelf) -> None:
    ours = listener(shelf)
    ours.judge(bearing(b"Bearer " + TOKEN), "", NOW)
    shelf.sets["login"] = KeySet.parse(key_set(Signer(kid="b")))
    with pytest.raises(KeysWanted) as wanted:
        ours.judge(bearing(b"Bearer " + TOKEN), "", NOW)
    assert wanted.value.known
    del shelf.sets["login"]
    with pytest.raises(KeysWanted) as wanted:
        ours.judge(bearing(b"Bearer " + TOKEN), "", NOW)
    assert not wanted.value.known


def test_a_bound_token_is_known_to_its_holder_alone(shelf: Shelf) -> None:
    ours, theirs = "ab" * 32, "cd" * 32
    bound = SIGNER.token(cnf=fingerprint_claim(ours))
    for spec in (None, Tokens(("login",), bound=True)):
        judged = listener(shelf, spec)
        for _ in range(2):
            assert judged.judge(bearing(b"Bearer " + bound), ours, NOW) is not None
            for other in (theirs, ""):
                with pytest.raises(BadToken, match="bound"):
                    judged.judge(bearing(b"Bearer " + bound), other, NOW)
    with pytest.raises(BadToken, match="not bound"):
        listener(shelf, Tokens(("login",), bound=True)).judge(bearing(b"Bearer " + TOKEN), ours, NOW)


def test_only_so_many_are_known_and_only_good_ones(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "MOST_KNOWN", 3)
    ours = listener(shelf)
    for number in range(5):
        ours.judge(bearing(b"Bearer " + SIGNER.token(jti=str(number))), "", NOW)
        with pytest.raises(BadToken):
            ours.judge(bearing(b"Bearer " + SIGNER.token(aud=str(number))), "", NOW)
    assert len(ours._known) == 3
    ours.judge(bearing(b"Bearer " + SIGNER.token(more="x" * 4000)), "", NOW)
    assert all(len(raw) < policy.MOST_KNOWN_BYTES for raw in ours._known)


def test_each_issuer_has_its_own_keys_and_no_other() -> None:
    """One issuer cannot speak for another, although both sign well."""
    one, two = Signer(kid="k"), Signer(kid="k")
    shelf = Shelf(one=key_set(one), two=key_set(two), svids=key_set(one))
    issuers = {
        "one": Issuer("one", "https://one", audience=("x",)),
        "two": Issuer("two", "https://two", audience=("x",)),
        "svids": Issuer("svids", trust_domain=TrustDomain("demo.mesh"), audience=("x",)),
    }
    ours = ListenerTokens(Tokens(("one", "two", "svids")), issuers, "spiffe://demo.mesh/a", shelf)

    def whose(signer: Signer, **claims: str | None) -> str:
        try:
            token = ours.judge(bearing(b"Bearer " + signer.token(aud="x", **claims)), "", NOW)
        except BadToken as bad:
            return bad.reason
        assert token is not None
        return token.issuer

    assert (whose(one, iss="https://one"), whose(two, iss="https://two")) == ("one", "two")
    assert (whose(one, iss="https://two"), whose(two, iss="https://one")) == ("signature", "signature")
    assert whose(one, iss=None, sub="spiffe://demo.mesh/ns/a/sa/b") == "svids"
    assert whose(two, iss=None, sub="spiffe://demo.mesh/ns/a/sa/b") == "signature"
    assert whose(two, iss="https://three") == "issuer"
    assert whose(one, iss=None, sub="spiffe://far.mesh/ns/a/sa/b") == "issuer"


def test_of_a_listener_that_is_left_over_an_issuer_may_have_gone(shelf: Shelf) -> None:
    """A reload takes both away, and connections to the listener drain."""
    ours = ListenerTokens(Tokens(("login",)), {}, "spiffe://demo.mesh/a", shelf)
    with pytest.raises(BadToken, match="of none of these: login"):
        ours.judge(bearing(b"Bearer " + TOKEN), "", NOW)

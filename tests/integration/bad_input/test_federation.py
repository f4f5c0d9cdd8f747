"""Two bundles in one store: OpenSSL then takes either root for anybody, so the path is found again in the peer's own
trust domain (decision D18). A root vouches only for its own.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from certs.svid import X509Svid
from tests.integration.bad_input.conftest import assert_explained, assert_still_serving
from tests.integration.bad_input.test_callers import FOREIGN, FOREIGN_ISSUER
from tests.integration.bad_input.test_upstreams import APP, ask, assert_told
from tests.kit.identities import Authority, a_bundle_set, a_root, an_issuer, an_svid
from tests.kit.sidecars import World
from tests.kit.tls_peers import Stranger, call, context_of

ALLOW = "[{name: web-may, from: web}, {name: friends, from: 'spiffe://other.mesh/ns/default/sa/web'}]"
WEB = "spiffe://demo.mesh/ns/default/sa/web"
FRIEND = "spiffe://other.mesh/ns/default/sa/web"


def by_a_root(root: Authority, spiffe_id: str) -> X509Svid:
    """A leaf that the root itself signed, without an issuer in between."""
    return an_svid(root, spiffe_id, chain=())


BORROWED = [
    # the name, who shows what, the reason
    ("their_root_signs_our_id", lambda world: by_a_root(FOREIGN, WEB), "wrong_trust_domain"),
    ("their_issuer_signs_our_id", lambda world: an_svid(FOREIGN_ISSUER, WEB), "signer_trust_domain"),
    ("our_root_signs_their_id", lambda world: by_a_root(world.root, FRIEND), "wrong_trust_domain"),
    (
        "their_nameless_issuer_signs_our_id",
        lambda world: an_svid(an_issuer(FOREIGN, uris=[]), WEB),
        "wrong_trust_domain",
    ),
]


@pytest.mark.parametrize(("name", "shows", "reason"), BORROWED, ids=[name for name, _, _ in BORROWED])
def test_a_root_of_one_domain_vouches_for_nobody_of_the_other(
    a_world: Callable[..., World], name: str, shows: Callable[[World], X509Svid], reason: str
) -> None:
    world = a_world(allow=ALLOW)
    both = a_bundle_set(world.root, FOREIGN)
    with world.sidecar("app", bundles=both) as app, world.sidecar("web") as web:
        seen = call(world.ports.app_in, shows(world))
        assert (seen.end, seen.answer) == ("close_notify", b"")
        audited = app.handshake_failure()
        assert audited["reason"] == reason
        assert_explained(f"federation_{name}", world.explain(audited["decision_id"]))
        assert_still_serving(world, app, web)


def test_each_root_does_vouch_for_its_own_and_rules_decide(a_world: Callable[..., World]) -> None:
    world = a_world(allow=ALLOW)
    both = a_bundle_set(world.root, FOREIGN)
    with world.sidecar("app", bundles=both) as app, world.sidecar("web") as web:
        assert call(world.ports.app_in, an_svid(FOREIGN_ISSUER, "web")).status == 200
        assert call(world.ports.app_in, an_svid(FOREIGN_ISSUER, "mallory")).status == 403
        assert call(world.ports.app_in, an_svid(an_issuer(a_root("third.mesh")), "web")).alert == "unknown ca"
        assert_still_serving(world, app, web)


def test_an_upstream_cannot_borrow_a_root_either(world: World) -> None:
    both = a_bundle_set(world.root, FOREIGN)
    with world.sidecar("web", bundles=both) as web:
        with Stranger(world.ports.app_in, context_of(by_a_root(FOREIGN, APP))):
            answer = ask(world)
        assert_told(web, answer, flag="ID", error="peer_identity", proxy_error="tls_certificate_error")
        assert web.handshake_failure()["reason"] == "wrong_trust_domain"
        with world.sidecar("app") as app:
            assert_still_serving(world, web, app)

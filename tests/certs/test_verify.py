"""One chain, some bundles and a time: whose identity is it, or why is it nobody's?"""

from __future__ import annotations

from certs.verify import verify_chain
from tests.kit.identities import NOW, a_bundle_set, a_root, an_issuer, an_svid


def test_a_chain_to_a_root_of_its_own_trust_domain_is_whose_it_says():
    root = a_root()
    web = an_svid(an_issuer(root), "web")
    assert verify_chain(web.chain, a_bundle_set(root), NOW) == web.spiffe_id

"""What a sidecar tells of edges: signed by its certificate, verifiable long after, and not to be changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from certs.bundle import root_hash
from certs.signed import InvalidStatement
from certs.told_edges import open_edges, sign_edges
from tests.kit.identities import NOW, a_bundle, a_root, an_issuer, an_svid

ROOT, OTHER = a_root(), a_root()
ISSUER = an_issuer(ROOT)
SVID = an_svid(ISSUER, "orders")
SAID = {"service": "orders", "since": 1.5e9, "left_out": 0, "edges": [{"rule": "web-reads", "count": 3, "first": 1.25}]}
TOLD = json.loads(json.dumps(sign_edges(SAID, SVID, a_bundle(ROOT), NOW)))


def test_who_told_it_is_known_long_after_its_certificate_has_ended() -> None:
    found = open_edges(TOLD)
    assert (found.service, found.at, found.edges) == (SVID.spiffe_id, NOW, 1)
    assert found.roots == (root_hash(ROOT.certificate),)
    assert open_edges(TOLD, {root_hash(ROOT.certificate), "0a"}).roots == found.roots


def test_only_roots_of_the_readers_own_vouch() -> None:
    both = json.loads(json.dumps(sign_edges(SAID, SVID, a_bundle(ROOT, OTHER), NOW)))
    assert len(open_edges(both).roots) == 2
    assert open_edges(both, {root_hash(ROOT.certificate)}).roots == (root_hash(ROOT.certificate),)
    for pins in ({root_hash(OTHER.certificate)}, {"0a"}):
        with pytest.raises(InvalidStatement):
            open_edges(both, pins)


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    made = copy.deepcopy(TOLD)
    change(made)
    return made


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (changed(lambda it: it["edges"].clear()), "bad_signature"),
        (changed(lambda it: it["edges"][0].update(count=4)), "bad_signature"),
        (changed(lambda it: it.update(since=1.0)), "bad_signature"),
        (changed(lambda it: it.update(more=1)), "bad_signature"),
        (changed(lambda it: it.update(at=NOW + 60)), "bad_signature"),
        (changed(lambda it: it.update(at=NOW + 9e8)), "untrusted"),
        (changed(lambda it: it.update(at="never")), "malformed"),
        (changed(lambda it: it.update(spiffe_id="spiffe://demo.mesh/ns/default/sa/web")), "wrong_identity"),
        (changed(lambda it: it["signed"].update(roots=[])), "untrusted"),
        (changed(lambda it: it["signed"].update(signer=[])), "malformed"),
        (changed(lambda it: it["signed"].update(signer=it["signed"]["signer"] * 9)), "malformed"),
        (changed(lambda it: it["signed"].update(signature="AAAA")), "bad_signature"),
        (changed(lambda it: it.pop("signed")), "malformed"),
        (sign_edges(SAID, SVID, a_bundle(OTHER), NOW), "untrusted"),
        (None, "malformed"), ([], "malformed"), ({"signed": 7, "spiffe_id": 7}, "malformed"),
    ],
)  # fmt: skip
def test_what_was_changed_or_is_of_somebody_else_is_refused(document: Any, reason: str) -> None:
    with pytest.raises(InvalidStatement) as caught:
        open_edges(document)
    assert caught.value.reason == reason

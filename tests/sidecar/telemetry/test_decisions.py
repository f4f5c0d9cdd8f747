"""The ring: ids, eviction, what is kept of a hop and what never is."""

from __future__ import annotations

import json
import re

import pytest

from sidecar.errors import IdentityRefused, PolicyDenied, RateLimited, TokenInvalid
from sidecar.hop import ShadowVerdict, Token
from sidecar.telemetry.decisions import HANDSHAKE_RING, LIMITED_RING, Decision, Decisions, base36, is_decision_id
from tests.kit.hops import WEB, a_hop

NOW = 1_700_000_000.0


def decided(decision_id: str = "0a1b2c3d-1", wanted: frozenset[bytes] = frozenset(), **changes) -> Decision:
    return Decision.of_hop(a_hop(decision_id=decision_id, **changes), NOW, wanted)


def test_ids_name_the_instance_and_never_repeat():
    ring = Decisions("0a1b2c3d")
    ids = [ring.new_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert ids[:2] == ["0a1b2c3d-1", "0a1b2c3d-2"]
    assert ids[35] == "0a1b2c3d-10"
    assert all(is_decision_id(each) for each in ids)


@pytest.mark.parametrize("number", [0, 1, 35, 36, 10**9])
def test_base36(number):
    assert int(base36(number), 36) == number


@pytest.mark.parametrize(
    "text", ["", "x", "0a1b2c3d", "0a1b2c3d-", "0A1B2C3D-1", "0a1b2c3d-1\n", "../etc", "0a1b2c3d-" + "1" * 14]
)
def test_what_is_no_id(text):
    assert not is_decision_id(text)


def test_an_instance_is_eight_hex_digits():
    with pytest.raises(ValueError, match="eight hex"):
        Decisions("nonsense")


def test_the_oldest_makes_room():
    ring = Decisions("0a1b2c3d", size=3)
    for number in range(5):
        ring.keep(decided(f"0a1b2c3d-{number}"))
    assert len(ring) == 3
    assert [ring.find(f"0a1b2c3d-{number}") is not None for number in range(5)] == [False, False, True, True, True]
    assert ring.lookup("0a1b2c3d-0") is None


def test_a_snapshot_tells_what_was_decided_and_why():
    decision = decided(
        error=PolicyDenied("no rule allows it"), rule="", status=403, shadow=(ShadowVerdict("new", "permit"),)
    )
    shown = decision.to_json()
    json.dumps(shown)
    assert shown["at"] == "2023-11-14T22:13:20.000000Z"
    for name, value in {
        "id": "0a1b2c3d-1", "kind": "hop", "verdict": "deny", "caller": WEB.text, "method": "GET", "path": "/orders/17",
        "error": "policy_denied", "flag": "PD", "detail": "no rule allows it", "status": 403, "shadow": ["new=permit"],
    }.items():  # fmt: skip
        assert shown[name] == value, name


def test_an_identity_refusal_keeps_its_reason():
    assert decided(error=IdentityRefused("expired", "2 d ago")).reason == "expired"


def test_no_secret_is_kept():
    decision = decided(
        wanted=frozenset({b"authorization", b"x-env"}),
        target="/orders/17?token=SECRET",
        headers=[(b"authorization", b"Bearer SECRET"), (b"cookie", b"SECRET"), (b"x-env", b"prod")],
        error=PolicyDenied("Bearer SECRET was not enough"),
    )
    assert "SECRET" not in json.dumps(decision.to_json())
    assert decision.headers == {"authorization": "[redacted]", "x-env": "prod"}


def test_a_snapshot_is_small_whatever_the_request():
    path = "/" + "/".join(["x" * 200] * 150)
    decision = decided(
        target=path, segments=tuple(path.split("/")[1:]), host="h" * 30000, method="M" * 30000,
        headers=[(b"x-env", b"v" * 30000)] * 10, wanted=frozenset({b"x-env"}),
    )  # fmt: skip
    assert len(json.dumps(decision.to_json())) < 6000


def test_the_hop_can_be_explained_again():
    hop = a_hop(headers=[(b"x-env", b"prod")], decision_id="0a1b2c3d-1", error=PolicyDenied())
    again = Decision.of_hop(hop, NOW, frozenset({b"x-env"})).to_hop()
    for name in (
        "direction",
        "listener",
        "port",
        "protocol",
        "peer",
        "destination",
        "source",
        "method",
        "host",
        "segments",
        "headers",
    ):
        assert getattr(again, name) == getattr(hop, name), name


def test_a_hop_of_nobody_survives_the_round():
    again = decided(peer=None, destination=None, source=None).to_hop()
    assert (again.peer, again.destination, again.source) == (None, None, None)


def test_ids_look_random_enough_to_be_opaque():
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-z]+", Decisions("deadbeef").new_id())


def test_a_flood_of_failed_handshakes_pushes_out_no_hop():
    decisions = Decisions("0123abcd", size=10)
    for number in range(3):
        decisions.keep(Decision(f"0123abcd-{number}", "hop", 0.0, "inbound", "http"))
    for number in range(5000):
        decisions.keep(Decision(f"0123abcd-h{number}", "handshake", 0.0, "inbound", "http"))
    assert decisions.find("0123abcd-0") is not None
    assert decisions.find("0123abcd-h0") is None
    assert len(decisions) == 3 + HANDSHAKE_RING


def test_who_asks_too_often_pushes_out_nobody_elses_refusal():
    decisions = Decisions("0a1b2c3d", size=5)
    denied = a_hop(error=PolicyDenied(), decision_id=decisions.new_id())
    decisions.keep(Decision.of_hop(denied, 0.0, frozenset()))
    for error in (RateLimited(), None):  # refused by us, and by a peer whose answer was passed on
        for _ in range(LIMITED_RING):
            last = a_hop(error=error, status=429, decision_id=decisions.new_id())
            decisions.keep(Decision.of_hop(last, 0.0, frozenset()))
    assert decisions.find(denied.decision_id) is not None
    assert decisions.find(last.decision_id) is not None
    assert len(decisions) == LIMITED_RING + 1


def test_a_token_is_kept_by_its_issuer_a_hash_and_its_end():
    token = Token("login", "anna", {"sub": "anna"}, frozenset({"orders:read"}), NOW + 60, "ab" * 8)
    kept = decided(token=token).to_json()
    assert kept["token"] == {"issuer": "login", "id": "ab" * 8, "expires": "2023-11-14T22:14:20.000000Z"}
    assert "anna" not in json.dumps(kept)
    assert decided().token is None


def test_a_bad_token_has_a_reason():
    kept = decided(error=TokenInvalid("the token expired 5 s ago [expired]", reason="expired"), status=401)
    assert (kept.verdict, kept.error, kept.reason, kept.flag) == ("deny", "token_invalid", "expired", "PD")

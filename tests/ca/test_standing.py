"""What the CA's health, its metrics and `mesh ca status` tell of rotation, federation, token keys, denylist, log."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from ca.cli import ca
from ca.federation import Partner
from ca.metrics import CaMetrics
from ca.revocation import find_target
from ca.roots import load_bundle
from ca.rotating import RootRotation
from ca.standing import TokenKey, standing, token_key_lines, token_key_warnings
from ca.store.base import Ack
from certs.spiffe import TrustDomain
from tests.ca.desk import PASS, Desk, at_the_desk
from tests.ca.office import DAY, DEMO
from tests.kit.identities import a_bundle, a_root

DOCS = (Path(__file__).parents[2] / "docs/ca.md").read_text()
PARTNER = TrustDomain.parse("partner.example")


async def gauges(desk: Desk) -> dict[str, float]:
    text = (await desk.get("/v1/metrics")).body.decode()
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name.removeprefix("mesh_ca_"): float(value) for name, value in lines}


@at_the_desk
async def test_a_quiet_ca_stands_well(desk: Desk) -> None:
    await desk.svid(desk.entry())
    await desk.server.keep_schedule_once()
    desk.server.checkpoint()
    found = await gauges(desk)
    assert (found["entries"], found["log_unsigned_lines"], found["rotation_laggards"]) == (1, 0, 0)
    assert found["log_lines"] == desk.server.store.store.head().number
    assert (found["denylist_entries"], found["watches"], found["handshakes_waiting"]) == (0, 0, 0)
    assert {name for name, value in found.items() if name.startswith("rotation_phase{") and value} == set()
    assert found['certificate_expires_at_seconds{kind="jwt_key"}'] > desk.clock.now + 10 * DAY
    assert found["store_bytes"] > 10_000
    assert found["connections"] == 1, "the one that asks"
    health = (await desk.get("/v1/health")).json()
    assert health["warnings"] == []
    assert [key["state"] for key in health["standing"]["jwt_keys"]] == ["active"]


@at_the_desk
async def test_what_is_under_way_is_told(desk: Desk) -> None:
    svid, store = await desk.svid(desk.entry()), desk.server.store.store
    await desk.svid(desk.entry("web"))
    store.revoke(find_target(store, DEMO, "web", desk.clock.now, "stolen"))
    store.acknowledge([Ack(svid.spiffe_id.text, svid.serial, "watch", 1, desk.clock.now)])
    RootRotation(desk.folder / "ca", store, DEMO, PASS).begin(desk.clock.now)
    found = await gauges(desk)
    assert (found['rotation_phase{phase="announced"}'], found['rotation_phase{phase="switched"}']) == (1, 0)
    assert found["rotation_phase_since_seconds"] == pytest.approx(desk.clock.now)
    assert (found["rotation_laggards"], found["watches"], found["denylist_entries"]) == (1, 1, 1)
    assert found["log_unsigned_lines"] > 0
    known = (await desk.get("/v1/health")).json()["standing"]
    assert (known["phase"], known["laggards"]) == ("announced", 1)
    assert "orders" not in json.dumps(known), "whoever may ask is told numbers, not names"


@at_the_desk
async def test_other_trust_domains_are_fresh_or_not(desk: Desk) -> None:
    async def never(url: str, web_roots: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    desk.server.federator.fetch = never
    store = desk.server.store.store
    store.add_partner(Partner(PARTNER, "https://spiffe.partner.example/", b"", desk.clock.now))
    assert (await gauges(desk))['federation_fresh{trust_domain="partner.example"}'] == 0, "no bundle yet"
    (partner,) = store.partners()
    bundle = a_bundle(a_root(PARTNER.name, now=desk.clock.now))
    store.accept_bundle(partner, bundle, desk.clock.now)
    found = await gauges(desk)
    assert found['federation_fresh{trust_domain="partner.example"}'] == 1
    assert found['federation_accepted_at_seconds{trust_domain="partner.example"}'] == pytest.approx(desk.clock.now)
    assert found["federation_sequence"] == store.federation_sequence()
    desk.server.federator.problems[PARTNER] = "it is away"
    assert (await gauges(desk))['federation_fresh{trust_domain="partner.example"}'] == 0
    assert (await desk.get("/v1/health")).json()["standing"]["partners"][0]["problem"] == "it is away"
    desk.server.federator.problems.clear()
    store.remove_partner(PARTNER, desk.clock.now)
    assert not any("partner" in name for name in await gauges(desk))


@at_the_desk
async def test_status_draws_all_of_it(desk: Desk) -> None:
    svid, store = await desk.svid(desk.entry()), desk.server.store.store
    await desk.server.keep_schedule_once()
    store.add_partner(Partner(PARTNER, "https://spiffe.partner.example/", b"", desk.clock.now))
    (partner,) = store.partners()
    store.accept_bundle(partner, a_bundle(a_root(PARTNER.name, now=desk.clock.now)), desk.clock.now - 300)
    RootRotation(desk.folder / "ca", store, DEMO, PASS).begin(desk.clock.now)
    words = ["status", "--dir", str(desk.folder / "ca")]
    said = CliRunner().invoke(ca, words).output
    assert re.search(r"keys of JWT-SVIDs: \w{12} active, 29d", said), said
    assert re.search(r"trusts partner.example for its own: bundle \d+, 1 root, found good 5m", said), said
    assert f"waits for {svid.spiffe_id} (not connected): " in said
    document = json.loads(CliRunner().invoke(ca, [*words, "-o", "json"]).output)
    assert [key["state"] for key in document["jwt_keys"]] == ["active"]
    assert document["log"]["lines"] == store.head().number
    assert load_bundle(store, DEMO).sequence == document["bundle_sequence"]
    assert [one["spiffe_id"] for one in document["rotation"]["laggards"]] == [svid.spiffe_id.text]


@at_the_desk
async def test_a_store_that_cannot_be_read_costs_the_figures_not_the_answer(desk: Desk) -> None:
    desk.server.store.store.close()
    health = (await desk.get("/v1/health")).json()
    assert (health["ready"], health["standing"]) == (False, None)
    assert (await gauges(desk))["ready"] == 0


def test_keys_of_tokens_that_are_about_to_end() -> None:
    key = TokenKey("ab" * 32, "active", 100 * DAY)
    assert list(token_key_warnings([key], 90 * DAY)) == []
    assert "none has taken over" in next(token_key_warnings([key], 99 * DAY))
    assert "NO KEY" in next(token_key_warnings([key], 100 * DAY))
    assert "NO KEY" in next(token_key_warnings([replace(key, state="prepared")], 1.0))
    assert list(token_key_lines([], 0.0)) == ["keys of JWT-SVIDs: none yet; `mesh ca serve` makes the first"]
    assert "ENDED" in next(token_key_lines([key], 101 * DAY))


@at_the_desk
async def test_each_metric_is_in_the_docs_and_no_other(desk: Desk) -> None:
    described = {f"{family.name}_total" if family.type == "counter" else family.name
                 for family in CaMetrics()._registry.collect()}  # fmt: skip
    table = DOCS[DOCS.index("### What to watch") : DOCS.index("## Proofs without a secret")]
    assert set(re.findall(r"mesh_ca_\w+", table)) == described
    assert standing(desk.server.store.store, desk.clock.now).partners == ()

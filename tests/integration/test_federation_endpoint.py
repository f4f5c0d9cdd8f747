"""Another trust domain, from its bundle endpoint to a verdict: real processes, and a partner that knocks.

The partner's root reaches the CA by HTTPS, the sidecars by the watch; a rule that names its identity lets it in. It
changes its root, and is removed, while everything runs.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.ca.test_federation import NEXT, THEIRS, Endpoint, http, jwks
from tests.kit.fleet import Fleet
from tests.kit.free_ports import Ports
from tests.kit.identities import an_issuer, an_svid
from tests.kit.meshes import pair_yaml
from tests.kit.processes import eventually
from tests.kit.programs import echo_app
from tests.kit.tls_peers import call

ALLOW = "[{name: friends, from: 'spiffe://partner.example/ns/default/sa/billing'}]"


def test_a_partner_is_let_in_by_its_own_roots_and_a_rule_that_names_it(tmp_path: Path) -> None:
    ports = Ports()
    endpoint = Endpoint(tmp_path, answer=http(jwks(THEIRS)))
    billing, other, later = (
        an_svid(an_issuer(THEIRS), "billing"), an_svid(an_issuer(THEIRS), "other"), an_svid(an_issuer(NEXT), "billing"),
    )  # fmt: skip

    def federation(mesh: Fleet, *words: str) -> dict[str, Any]:
        done = mesh.mesh("ca", "federation", *words, "--dir", str(tmp_path / "ca"), "-o", "json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def knock(svid: Any) -> int | str:
        seen = call(ports.app_in, svid)
        return seen.status or seen.alert

    def story(mesh: Fleet) -> None:
        mesh.start_all()
        assert knock(billing) == "unknown ca"
        web_roots = tmp_path / "web-roots.pem"
        web_roots.write_bytes(endpoint.roots)
        federation(mesh, "add", "partner.example", "--url", endpoint.url(), "--web-roots", str(web_roots))
        eventually("billing is let in", lambda: knock(billing) == 200)
        assert (knock(other), knock(later)) == (403, "unknown ca")
        endpoint.answer = http(jwks(THEIRS, NEXT, sequence=4))
        assert mesh.ca is not None
        mesh.ca.stop()
        mesh.start_ca()  # asks at once, confined as it is
        eventually("the next root is taken", lambda: knock(later) == 200)
        endpoint.answer = http(jwks(NEXT, sequence=1))
        mesh.ca.stop()
        mesh.start_ca()
        eventually("it has asked", lambda: len(endpoint.asked) >= 4)
        assert (knock(billing), knock(later)) == (200, 200)
        federation(mesh, "remove", "partner.example")
        eventually("billing is a stranger again", lambda: knock(billing) == "unknown ca")
        mesh.assert_well()

    async def whole() -> None:
        text = pair_yaml(ports, tmp_path, allow=ALLOW)
        async with endpoint.open():
            with echo_app(tmp_path, ports.app), Fleet(tmp_path, text) as mesh:
                await trio.to_thread.run_sync(partial(story, mesh))

    trio.run(whole)

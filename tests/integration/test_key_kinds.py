"""Keys of every kind, on the wire: each kind calls each, and real sidecars get what their configuration asks for."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest

from certs.keys import KEY_KINDS, make_key
from tests.kit.fleet import Fleet
from tests.kit.free_ports import Ports
from tests.kit.identities import an_svid
from tests.kit.meshes import pair_yaml
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app
from tests.kit.sidecars import World


@pytest.mark.parametrize("tls", ["", ", tls: {unsafe_tls12: true}"])
def test_each_kind_calls_each(tmp_path: Path, tls: str) -> None:
    keys = {kind: make_key(kind) for kind in KEY_KINDS}
    world = World(tmp_path, tls=tls)
    try:
        with echo_app(tmp_path, world.ports.app), world.sidecar("app") as app, world.sidecar("web") as web:
            for caller, called in product(KEY_KINDS, repeat=2):
                web.publish(an_svid(world.issuer, "web", key=keys[caller]))
                app.publish(an_svid(world.issuer, "app", key=keys[called]))
                answer = curl(f"{world.url}/echo/{caller}-{called}")
                assert answer.code == 0, (caller, called, answer.err)
                assert f"{caller}-{called}" in answer.text
            pairs = len(KEY_KINDS) ** 2
            eventually("each handshake", lambda: len({line["serial"] for line in app.audit("handshake")}) == pairs)
            web.assert_well()
            app.assert_well()
    finally:
        world.close()


def test_real_sidecars_get_the_keys_that_they_are_told_to_make(tmp_path: Path) -> None:
    ports = Ports()
    text = pair_yaml(ports, tmp_path, defaults="{tls: {key: ed25519}}")
    text = text.replace("  app:\n", "  app:\n    tls: {key: rsa3072}\n")

    def shown(name: str) -> str:
        return str(json.loads(mesh.mesh("certs", "show", name, "-o", "json").stdout)["certificates"][0]["key"])

    with echo_app(tmp_path, ports.app), Fleet(tmp_path, text) as mesh:
        mesh.start_all()
        assert (shown("web"), shown("app")) == ("Ed25519", "RSA 3072")
        assert curl(f"http://127.0.0.1:{ports.door}/echo/here").code == 0
        mesh.file.write_text(text.replace("rsa3072", "p384"))
        eventually("the reload", lambda: mesh["app"].status()["config"]["generation"] == 2)
        assert mesh.mesh("certs", "rotate", "app").returncode == 0
        assert shown("app") == "EC secp384r1"
        assert curl(f"http://127.0.0.1:{ports.door}/echo/again").code == 0
        mesh.assert_well()

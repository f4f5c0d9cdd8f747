"""Detectors, inventory and the OWASP pages in real sidecars: attacks are refused, recorded and told of, edges outlive
a restart, and the inventory is signed, verified, and a page that a browser shows.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs.bundle import root_hash
from certs.keys import key_to_pem, make_key
from sidecar.config.load import load_text
from tests.kit.chromium import chromium, need_chromium
from tests.kit.identities import an_svid
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app
from tests.kit.sidecars import LocalSidecar, World
from tests.kit.tokens import AUDIENCE, ISSUER, Signer, key_set

RULES = """[{name: web-may, from: web}, {name: nobody-does, from: cart, path: /old}]
    owner: team-orders
    detectors: {stuffing: {refusals: 10, action: block, for: 10m}}"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, allow=RULES)
    (tmp_path / "mesh.yaml").write_text(world.text)
    with echo_app(tmp_path, world.ports.app):
        yield world
    world.close()


def ask(world: World, path: str) -> int:
    return int(curl("-i", f"{world.url}{path}").text.split()[1])


def held_lines(sidecar: LocalSidecar) -> list[dict[str, Any]]:
    return [each for each in sidecar.access_log() if each["flags"] == "TH"]


def found(world: World, *arguments: str) -> Any:
    code, out, err = world.mesh(*arguments, "-o", "json")
    assert code == 0, (code, out, err)
    return json.loads(out)


def test_who_tries_passwords_is_blocked_told_of_and_let_go_by_an_operator(world: World) -> None:
    with world.sidecar("app") as app, world.sidecar("web"):
        tried = [ask(world, "/status/401") for _ in range(14)]
        assert tried[:10] == [401] * 10
        refused = tried.count(429)
        assert tried == [401] * (14 - refused) + [429] * refused
        assert refused
        (sidecar,) = [each for each in found(world, "detections")["sidecars"] if each["service"] == "app"]
        (held,), (detection,) = sidecar["held"], sidecar["found"]
        assert (held["detector"], held["action"], held["refused"]) == ("stuffing", "block", refused)
        assert re.match(r"\d+ answers 401 or 403 within a minute, of \d+ requests where 0 are", detection["what"])
        (row,) = found(world, "top", "--every", "50ms")["detections"]
        assert (row["action"], row["refused"], row["route"]) == ("block", refused, "/**")
        code, out, _ = world.mesh("detections")
        assert code == 0
        assert re.search(r"^app +web +- +stuffing +block", out, re.MULTILINE)
        assert "1 caller held by detectors: mesh detections" in world.mesh("status")[1]
        eventually("the audit has it", lambda: [line["detector"] for line in app.audit("detection")] == ["stuffing"])
        eventually("the log has it", lambda: "a caller is conspicuous" in app.log_text())
        eventually("both are in the access log", lambda: len(held_lines(app)) == refused)
        line = held_lines(app)[0]
        told = world.explain(line["decision_id"])
        assert "a detector holds it for a time: blocked by the detector stuffing" in told
        assert app.total("mesh_callers_held") == 1
        assert app.total("mesh_detections_total", detector="stuffing", action="block") == 1

        assert world.mesh("detections", "unblock", "cart")[0] == 1
        code, out, _ = world.mesh("detections", "unblock", "web")
        assert (code, out) == (0, "app: web is not held any more (stuffing).\n")
        assert ask(world, "/status/401") == 401
        eventually("the audit has it", lambda: len(app.audit("detection_lifted")) == 1)
        assert app.audit("detection_lifted")[0]["caller"] == "spiffe://demo.mesh/ns/default/sa/web"
        app.assert_well()


THROTTLE = "[{from: web}]\n    detectors: {stuffing: {refusals: 10, action: throttle, rate: 1/m, for: 10m}}"
RECORD = "[{from: web}]\n    detectors: {stuffing: {refusals: 10}}"
SHORT = "[{from: web}]\n    detectors: {stuffing: {refusals: 10, action: block, for: 2s}}"


@contextmanager
def conspicuous(folder: Path, allow: str, count: int = 16) -> Iterator[tuple[World, LocalSidecar, list[int]]]:
    """A mesh with these rules, in which web has tried so many passwords, and what it got."""
    world = World(folder, allow=allow)
    try:
        with echo_app(folder, world.ports.app), world.sidecar("app") as app, world.sidecar("web"):
            yield world, app, [ask(world, "/status/401") for _ in range(count)]
            app.assert_well()
    finally:
        world.close()


def test_who_is_throttled_has_its_rate_and_is_told_of(tmp_path: Path) -> None:
    with conspicuous(tmp_path, THROTTLE) as (world, app, got):
        assert set(got[-3:]) == {429}
        (sidecar,) = [each for each in found(world, "detections")["sidecars"] if each["service"] == "app"]
        assert [(held["action"], held["caller"][-3:]) for held in sidecar["held"]] == [("throttle", "web")]
        assert app.total("mesh_detections_total", detector="stuffing", action="throttle") == 1
        eventually("it is in the log", lambda: any("held to 1/m" in line["detail"] for line in held_lines(app)))
        eventually("the audit has it", lambda: [each["action"] for each in app.audit("detection")] == ["throttle"])


def test_record_refuses_nobody_and_is_told_of_everywhere(tmp_path: Path) -> None:
    with conspicuous(tmp_path, RECORD) as (world, app, got):
        assert set(got) == {401}
        (sidecar,) = [each for each in found(world, "detections")["sidecars"] if each["service"] == "app"]
        assert (len(sidecar["found"]), sidecar["held"]) == (1, [])
        assert app.total("mesh_detections_total", detector="stuffing", action="record") == 1
        assert app.total("mesh_callers_held") == 0
        eventually("the audit has it", lambda: [each["action"] for each in app.audit("detection")] == ["record"])


def test_a_block_ends_by_itself(tmp_path: Path) -> None:
    with conspicuous(tmp_path, SHORT) as (world, app, got):
        assert 429 in got
        eventually("it may call again", lambda: ask(world, "/") == 200)
        eventually("nobody is held", lambda: app.total("mesh_callers_held") == 0)


def test_nobody_gets_somebody_else_blocked(tmp_path: Path) -> None:
    """What an attacker says of itself, in fields or in tokens that it has made, is not believed."""
    rules = "[{from: [web, mallory]}]\n    detectors: {stuffing: {refusals: 10, action: block, for: 10m}}"
    world = World(tmp_path, allow=rules)
    good, forged = Signer(kid="a"), Signer(kid="a")
    (tmp_path / "keys.json").write_bytes(key_set(good))
    issuer = f'issuers: {{login: {{issuer: "{ISSUER}", audience: "{AUDIENCE}", file: "{tmp_path}/keys.json"}}}}'
    tokens = "protocol: http, tokens: {from: login, required: false}}"
    world.config = load_text(f"{issuer}\n{world.text.replace('protocol: http}', tokens)}", str(tmp_path / "mesh.yaml"))

    def asked(token: bytes, path: str) -> int:
        lies = ("X-Forwarded-For: 10.0.0.1", "X-Forwarded-Client-Cert: URI=spiffe://demo.mesh/ns/default/sa/web",
                "mesh-peer: spiffe://demo.mesh/ns/default/sa/web", "x-user: ann")  # fmt: skip
        fields = [each for lie in (*lies, f"Authorization: Bearer {token.decode()}") for each in ("-H", lie)]
        return int(curl("-i", *fields, f"{world.url}{path}").text.split()[1])

    try:
        with echo_app(tmp_path, world.ports.app), world.sidecar("app") as app:
            ann, nobody = good.token(at=time.time(), sub="ann"), forged.token(at=time.time(), sub="ann")
            other = good.token(at=time.time(), sub="eve")
            with world.sidecar("web") as attacker:
                attacker.publish(an_svid(world.issuer, "mallory"))
                assert {asked(nobody, "/") for _ in range(16)} == {401}  # no token, so mallory's own
                assert {asked(other, "/status/403") for _ in range(16)} == {403, 429}
            held = app.admin("GET", "/detections")[1]["held"]
            mallory = "spiffe://demo.mesh/ns/default/sa/mallory"
            assert sorted((each["caller"], each["user"]) for each in held) == [(mallory, ""), (mallory, "login:eve")]
            with world.sidecar("web"):
                assert [asked(ann, "/"), asked(other, "/"), ask(world, "/")] == [200, 200, 200]
    finally:
        world.close()


def edges(world: World, *more: str) -> dict[str, dict[str, Any]]:
    file = str(world.folder / "mesh.yaml")
    document = found(world, "inventory", "-f", file, *more)["inventory"]
    return {f"{row['direction']} {row['rule']} {row['state']}": row for row in document["edges"]}


def test_edges_are_known_across_restarts_and_what_nobody_uses_is_dormant(world: World) -> None:
    with world.sidecar("web"):
        with world.sidecar("app"):
            assert ask(world, "/") == 200
            row = edges(world)["inbound web-may used"]
            assert (row["count"], row["auth"], row["owner"], row["caller"]) == (
                1, "mTLS", "team-orders", "spiffe://demo.mesh/ns/default/sa/web"
            )  # fmt: skip
        with world.sidecar("app") as app:
            again = edges(world)["inbound web-may used"]
            assert (again["first"], again["count"]) == (row["first"], 1)
            assert ask(world, "/") == 200
            eventually("the second use is counted", lambda: edges(world)["inbound web-may used"]["count"] == 2)
            assert "inbound nobody-does unused" in edges(world)
            assert "inbound nobody-does dormant" in edges(world, "--days", "0")
            app.assert_well()
            code, out, _ = world.mesh("inventory", "-f", str(world.folder / "mesh.yaml"), "--days", "0", "--diff")
            assert code == 0
            assert "-    allow: [{name: web-may, from: web}, {name: nobody-does, from: cart, path: /old}]\n" in out
    code, out, _ = world.mesh("inventory", "-f", str(world.folder / "mesh.yaml"))
    assert (code, "unknown: no sidecar of it was asked" in out) == (0, True)


def test_a_broken_record_of_edges_keeps_nobody_from_starting(world: World) -> None:
    state = world.folder / "app.state"
    state.mkdir(mode=0o700)
    (state / "edges.json").write_text("{")
    with world.sidecar("app") as app:
        eventually("it says so", lambda: "edges.json cannot be read" in app.log_text())


def test_an_inventory_is_signed_and_a_changed_one_is_found_out(world: World, tmp_path: Path) -> None:
    key = make_key("p256")
    private, public, file = tmp_path / "key.pem", tmp_path / "pub.pem", tmp_path / "inventory.json"
    private.write_bytes(key_to_pem(key, None))
    private.chmod(0o600)
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    mesh = str(tmp_path / "mesh.yaml")
    code, out, err = world.mesh("inventory", "-f", mesh, "-o", "json", "--key", str(private))
    assert code == 0, err
    file.write_text(out)
    assert world.mesh("inventory", "verify", str(file), "--key", str(public))[0] == 0
    file.write_text(out.replace("team-orders", "team-other"))
    code, _, err = world.mesh("inventory", "verify", str(file), "--key", str(public))
    assert (code, "not to be believed" in err) == (1, True)
    file.write_text(json.dumps(json.loads(out) | {"jws": None}))
    assert world.mesh("inventory", "verify", str(file), "--key", str(public))[0] == 1
    assert world.mesh("inventory", "-f", mesh, "--key", str(private))[0] == 2


def test_what_sidecars_tell_is_signed_by_themselves(world: World, tmp_path: Path) -> None:
    mesh, file = str(tmp_path / "mesh.yaml"), tmp_path / "inventory.json"
    with world.sidecar("app") as app, world.sidecar("web"):
        assert ask(world, "/") == 200
        roots = [root_hash(one) for one in app.worker.bundles.current.roots()]
        code, out, err = world.mesh("inventory", "-f", mesh, "-o", "json")
    assert code == 0, err
    told = {each["service"]: each["edges"] for each in json.loads(out)["inventory"]["told"]}
    assert {row["rule"] for row in told["app"]} == {"web-may"}
    file.write_text(out)
    pinned = [part for root in roots for part in ("--root", root)]
    code, said, err = world.mesh("inventory", "verify", str(file), *pinned)
    assert (code, said.count(" edges, told ")) == (0, 2), err
    assert world.mesh("inventory", "verify", str(file))[0] == 2
    assert world.mesh("inventory", "verify", str(file), "--root", "0a" * 32)[0] == 1
    document = json.loads(out)
    document["inventory"]["told"][0]["edges"][0]["count"] += 1
    file.write_text(json.dumps(document))
    code, _, err = world.mesh("inventory", "verify", str(file), *pinned)
    assert (code, "changed after they were told" in err) == (1, True)
    document["inventory"]["told"] = []
    file.write_text(json.dumps(document))
    assert world.mesh("inventory", "verify", str(file), *pinned)[0] == 1


CONTRAST = """(() => {
  const light = c => { const p = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * p[0] + .7152 * p[1] + .0722 * p[2] };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  return Math.min(...[...document.querySelectorAll('th, td, p, h1, h2, caption')].map(each => {
    const ink = light(getComputedStyle(each).color);
    return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05) })) })()"""


def test_a_browser_shows_the_page_by_day_and_by_night_and_prints_it(world: World, tmp_path: Path) -> None:
    need_chromium()
    with world.sidecar("app"), world.sidecar("web"):
        assert ask(world, "/") == 200
        code, out, err = world.mesh("inventory", "-f", str(tmp_path / "mesh.yaml"), "--days", "0", "-o", "html")
    assert code == 0, err
    page_file = tmp_path / "inventory.html"
    page_file.write_text(out)
    assert "http://" not in out.replace("http://www.w3.org", "")
    with chromium(tmp_path) as page:
        page.visit(page_file.as_uri())
        assert page.run("document.title") == "Inventory of demo.mesh"
        assert page.run("performance.getEntriesByType('resource').length") == 0
        assert page.run("document.querySelectorAll('tbody tr').length") >= 3
        assert page.run("[...document.querySelectorAll('th')].every(each => each.scope)")
        assert page.run("document.documentElement.lang") == "en"
        papers = set()
        for scheme in ("light", "dark"):
            page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            papers.add(page.run("getComputedStyle(document.body).backgroundColor"))
            assert page.run(CONTRAST) >= 4.5  # WCAG 2.2, 1.4.3
        assert len(papers) == 2
        page.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=False)
        wide = "[...document.querySelectorAll('*')].filter(each => each.getBoundingClientRect().right > innerWidth)"
        outside = "!each.parentElement?.closest('.scroll, pre')"
        assert page.run(f"{wide}.filter(each => {outside}).map(each => each.outerHTML)") == []
        assert len(page.call("Page.printToPDF")["data"]) > 1000


def test_the_ten_risks_are_read_from_the_config(world: World, tmp_path: Path) -> None:
    lines = found(world, "owasp", "app", "-f", str(tmp_path / "mesh.yaml"))["measures"]
    assert {line["risk"] for line in lines} >= {f"API{number}" for number in (1, 2, 3, 4, 5, 6, 8, 9)}
    assert {line["state"] for line in lines if line["measure"] in ("stuffing detector", "an owner")} == {"on"}
    code, out, _ = world.mesh("owasp", "app", "-f", str(tmp_path / "mesh.yaml"), "--missing")
    assert code == 0
    assert "API6   Unrestricted Access to Sensitive Business Flows: off" in out
    assert world.mesh("owasp", "nobody", "-f", str(tmp_path / "mesh.yaml"))[0] == 1

"""A compose file with the mesh in it: what it says, what it leaves alone, and that the way back is exact."""

from __future__ import annotations

import difflib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.deploy.compose.document import made as nodes
from sidecar.deploy.compose.document import render
from sidecar.deploy.compose.sealed import DamagedSeal, unseal
from tests.kit.compose_files import SHOP, calls, document, injected, mesh, services


def test_what_is_not_ours_to_change_stays_letter_by_letter() -> None:
    before, after = SHOP.splitlines(), injected(SHOP).compose.decode().splitlines()
    changes = list(difflib.ndiff(before, after))
    assert [line[2:] for line in changes if line.startswith("- ")] == [
        "    <<: *common", "    ports:", '      - "8080:8000"  # http', "      - orders", "    networks:",
        "      - front", "      - back", "      replicas: 2", "    networks: [back]",
    ]  # fmt: skip


def test_each_service_joins_its_holder_and_waits_for_its_sidecar() -> None:
    found = services(injected(SHOP))
    for name in ("web", "orders", "orders-2", "db"):
        assert found[name]["network_mode"] == f"service:{name}-holder"
        assert found[name]["depends_on"][f"{name}-sidecar"] == {"condition": "service_healthy"}
        assert found[f"{name}-sidecar"]["network_mode"] == f"service:{name}-holder"
        assert found[f"{name}-sidecar"]["depends_on"]["mesh-ca"] == {"condition": "service_healthy"}
        assert not {"ports", "networks", "expose", "links", "hostname"} & found[name].keys()
    assert found["web"]["depends_on"]["orders"] == {"condition": "service_started"}
    assert found["orders"]["depends_on"]["db"] == {"condition": "service_healthy"}
    assert found["web"]["restart"] == "always"  # what it had by a merge key, it has still


def test_the_holder_owns_networks_and_names_and_replicas_share_theirs() -> None:
    found = services(injected(SHOP))
    both = {"front": {"aliases": ["orders"]}, "back": {"aliases": ["orders"]}}
    assert found["orders-holder"]["networks"] == found["orders-2-holder"]["networks"] == both
    assert found["orders"]["deploy"] == {"replicas": 1}
    assert found["mesh-ca"]["networks"] == ["front", "back"]
    assert found["orders-2-sidecar"]["command"][3:5] == ["--service", "orders"]  # one identity


def test_a_published_port_is_a_door_with_an_identity_of_its_own() -> None:
    made = injected(SHOP)
    assert services(made)["web-edge"]["ports"] == ["127.0.0.1:8080:8000"]
    door = mesh(made).services["web-edge"]
    assert [(each.to, each.edge, str(each.listen)) for each in door.outbound] == [("web", True, "0.0.0.0:8000")]
    published = [name for name, spec in services(made).items() if spec.get("ports")]
    assert published == ["web-edge"]


def test_who_may_call_whom() -> None:
    made = injected(SHOP)
    assert calls(made) == {"web-edge → web:8000", "web → orders:8000", "orders → db:5432"}
    found = mesh(made)
    assert str(found.services["orders"].identity) == "spiffe://shop.mesh/ns/shop/sa/orders"
    assert found.services["db"].inbound[0].protocol == "tcp"
    assert all(service.redirect is not None for name, service in found.services.items() if name != "web-edge")


def test_containers_of_ours_have_no_more_rights_than_they_need() -> None:
    grown = {}
    for name, spec in services(injected(SHOP)).items():
        if "sidecar.mesh/part" not in spec.get("labels", {}):
            continue
        assert spec["read_only"] is True
        assert spec["cap_drop"] == ["ALL"]
        assert spec["security_opt"] == ["no-new-privileges:true"]
        if "cap_add" in spec:
            grown[name] = spec["cap_add"]
        else:
            assert spec["user"] == "17000:17000"
    assert grown.pop("mesh-keys") == ["CHOWN", "SETUID", "SETGID"]
    assert set(grown) == {"web-holder", "orders-holder", "orders-2-holder", "db-holder"}
    assert all(rights == ["NET_ADMIN", "SETUID", "SETGID"] for rights in grown.values())


def test_key_and_state_of_a_sidecar_are_mounted_by_nobody_else_but_who_makes_the_key() -> None:
    made = injected(SHOP)
    holders: dict[str, list[str]] = {}
    for name, spec in services(made).items():
        for volume in spec.get("volumes", []):
            if volume.startswith(("mesh-key-", "mesh-state-")):
                holders.setdefault(volume.partition(":")[0], []).append(name)
    assert holders["mesh-key-orders"] == ["mesh-keys", "orders-sidecar", "orders-2-sidecar"]
    assert holders["mesh-key-db"] == ["mesh-keys", "db-sidecar"]
    assert holders["mesh-state-orders"] == ["orders-sidecar"]
    assert holders["mesh-state-orders-2"] == ["orders-2-sidecar"]
    ours = {name for name, volume in document(made)["volumes"].items() if volume}
    assert ours == {"mesh-ca", "mesh-passphrase", *holders}


@pytest.mark.parametrize("text", [SHOP, SHOP.replace("\n", "\r\n"), SHOP.rstrip("\n"), "\ufeff" + SHOP])
def test_the_original_comes_back_byte_for_byte(text: str) -> None:
    sealed = unseal(injected(text).compose)
    assert sealed is not None
    assert sealed.original == text.encode()
    assert not sealed.edited


def test_the_same_comes_of_it_again() -> None:
    once = injected(SHOP, scale={"db": 2}).compose
    sealed = unseal(once)
    assert sealed is not None
    options = {key: value for key, value in sealed.options.items() if key != "project"}
    assert injected(sealed.original.decode(), **options).compose == once


def test_an_edit_above_the_seal_is_seen_and_damage_in_it_too() -> None:
    made = injected(SHOP).compose
    sealed = unseal(made.replace(b"shop/orders:1", b"shop/orders:2"))
    assert sealed is not None
    assert sealed.edited
    with pytest.raises(DamagedSeal):
        unseal(made.replace(b"# mesh-original: ", b"# mesh-original: !", 1))
    assert unseal(SHOP.encode()) is None


def test_line_ends_and_indents_are_the_users() -> None:
    wide = "services:\n    web:\n        image: nginx\n        ports:\n        - 80:80\n"
    text = injected(wide).compose.decode()
    assert '        network_mode: "service:web-holder"\n' in text
    assert "\n    mesh-ca:\n        image:" in text
    assert "\r\n" in injected(wide.replace("\n", "\r\n")).compose.decode().partition("# ---- made")[0]


def test_services_that_are_not_written_line_by_line_are_written_anew() -> None:
    found = services(injected("services: \n  web: {image: nginx, ports: ['80:80'], hostname: w}\n  db: &db\n"
                              "    image: postgres\n  other: *db\n"))  # fmt: skip
    assert found["web"] == {
        "image": "nginx", "network_mode": "service:web-holder",
        "depends_on": {"web-sidecar": {"condition": "service_healthy"}},
    }  # fmt: skip
    assert found["web-holder"]["hostname"] == "w"
    assert found["other"]["network_mode"] == "service:other-holder"
    assert found["db"]["network_mode"] == "service:db-holder"


def test_what_inherits_from_a_service_inherits_nothing_of_ours() -> None:
    text = ("services:\n  web: &web\n    image: nginx\n    ports: ['80:80']\n    depends_on: [jobs]\n"
            "  copy:\n    <<: *web\n    ports: ['81:80']\n"
            "  jobs:\n    image: redis\n  raw:\n    <<: *web\n    ports: []\n"
            "    labels: {sidecar.mesh/inject: 'false'}\n")  # fmt: skip
    found = services(injected(text))
    assert set(found["copy"]["depends_on"]) == {"jobs", "copy-sidecar"}
    assert found["copy"]["network_mode"] == "service:copy-holder"
    assert found["copy-edge"]["ports"] == ["127.0.0.1:81:80"]
    assert "network_mode" not in found["raw"]
    assert found["raw"]["depends_on"] == ["jobs"]


def test_what_belongs_to_the_namespace_goes_to_the_holder() -> None:
    text = ("services:\n  web:\n    image: nginx\n    hostname: w\n    extra_hosts: ['a:10.0.0.1']\n    dns: 9.9.9.9\n"
            "    container_name: the-web\n    links: ['db:database']\n    networks:\n      front: {"
            "ipv4_address: 10.1.0.5, "
            "aliases: [www]}\n  db: {image: postgres, networks: [front]}\nnetworks: {front: }\n")  # fmt: skip
    made = injected(text)
    holder = services(made)["web-holder"]
    assert holder["hostname"] == "w"
    assert holder["extra_hosts"] == ["a:10.0.0.1"]
    assert holder["dns"] == "9.9.9.9"
    assert holder["networks"]["front"] == {"aliases": ["web", "the-web", "www"], "ipv4_address": "10.1.0.5"}
    assert services(made)["db-holder"]["networks"]["front"]["aliases"] == ["db", "database"]
    assert services(made)["web"]["container_name"] == "the-web"
    assert "web → db:5432" in calls(made)


def test_a_service_in_the_namespace_of_another_speaks_as_that_one() -> None:
    made = injected("services:\n  web: {image: nginx}\n  log: {image: x, network_mode: 'service:web', "
                    "environment: {DB: 'postgres://db/x'}}\n  db: {image: postgres}\n")  # fmt: skip
    assert services(made)["log"]["network_mode"] == "service:web-holder"
    assert calls(made) == {"web → db:5432"}
    assert any("log lives in the namespace of web" in note for note in made.project.notes)


def test_volumes_are_added_to_whatever_there_is() -> None:
    data = ("volumes: {data: }\n", "volumes:\n  data:\n", "volumes:\n  data: {external: true}\n")
    for volumes in ("", "volumes:\n", *data):
        made = document(injected("services:\n  web: {image: nginx}\n" + volumes + "networks:\n  default:\n"))
        assert {"mesh-ca", "mesh-passphrase", "mesh-key-web"} <= made["volumes"].keys()
        assert ("data" in made["volumes"]) == ("data" in volumes)


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=20))
def test_text_that_we_write_is_read_as_text(text: str) -> None:
    from ruamel.yaml import YAML

    lines = "\n".join(render(nodes({"key": {"value": text, "list": [text]}}), ""))
    assert YAML(typ="safe").load(lines)["key"] == {"value": text, "list": [text]}


def test_the_options_stand_in_the_file() -> None:
    text = injected(SHOP, trust_domain="corp.example", image="registry/mesh:2", host="0.0.0.0").compose.decode()
    facts = json.loads(next(line for line in text.splitlines() if line.startswith("# mesh-facts: "))[14:])
    assert facts["options"]["trust_domain"] == "corp.example"
    assert "image: \"registry/mesh:2\"" in text
    assert '"0.0.0.0:8080:8000"' in text

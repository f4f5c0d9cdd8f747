"""A config that cannot be meant: `mesh check` shows each place and what was meant, and neither `mesh run` nor `mesh up`
starts anything; they say the same words. What a sidecar already runs is not touched.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tests.integration.bad_input.conftest import assert_explained, assert_still_serving
from tests.kit.sidecars import World

CONFIGS = {
    "config_broken_yaml": """\
        trust_domain: demo.mesh
        services:
          orders:
            inbound: [{name: http, port: 17443, app: "127.0.0.1:8080"}
            allow:
              - {name: web-reads, from: web}
        """,
    "config_unknown_keys": """\
        trust_domain: demo.mesh
        service_mesh: true
        services:
          orders:
            inbund: [{name: http, port: 17443, app: "127.0.0.1:8080"}]
            allow:
              - {name: web-reads, form: web, methods: GET, path: "/orders/{id}"}
          web:
            outbound:
              - {to: orders, listen: "127.0.0.1:17101", retrys: 3}
        """,
    "config_tabs_duplicates_and_merge_keys": """\
        trust_domain: demo.mesh
        services:
          orders:
            inbound: [{app: "127.0.0.1:8080"}]
            allow: [{name: a, from: web}]
            allow: [{name: b, from: admin}]
        \tweb: {}
        """,
    "config_words_that_yaml_reads_as_something_else": """\
        trust_domain: demo.mesh
        services:
          orders:
            inbound: [{name: no, port: 17443, app: 127.0.0.1:8080}]
            allow:
              - {name: on, from: web, headers: {x-debug: yes, x-time: 12:30}}
          web: {}
        """,
    "config_names_that_lead_nowhere": """\
        trust_domain: demo.mesh
        services:
          orders:
            inbound: [{name: http, port: 17443, app: "192.0.2.1:8080"}]
            allow:
              - {name: web-reads, from: wbe, port: htpp, path: orders/*}
              - {name: web-reads, from: "spiffe://demo.mesh/ns/*x/sa/web", method: get}
          web:
            outbound: [{to: oders, listen: "0.0.0.0:17101"}]
        """,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_check_says_what_was_meant_and_nothing_starts(
    world: World, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "user"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MESH_STATE_DIR", str(folder / "state"))
    (folder / "mesh.yaml").write_text(textwrap.dedent(CONFIGS[name]))
    (folder / "enrolment.json").write_text("{}")

    with world.sidecar("app") as app, world.sidecar("web") as web:
        code, out, err = world.mesh("check")
        assert (code, err) == (1, "")
        assert_explained(name, out)
        places = re.findall(r"^mesh\.yaml:\d+:\d+: .*$", out, re.MULTILINE)
        assert places
        assert out.splitlines()[-1] == f"{len(places)} mistake{'s' if len(places) > 1 else ''}"

        before = sorted(world.run_dir.iterdir())
        for command in (
            ("run", "-f", "mesh.yaml", "--service", "orders", "--enrolment", "enrolment.json"),
            ("up", "-f", "mesh.yaml", "--for", "1s"),
            ("explain", "-f", "mesh.yaml", "--from", "web", "--to", "orders"),
        ):
            code, out, err = world.mesh(*command)
            assert (code, out) == (2, ""), command
            assert [line for line in err.splitlines() if line.startswith("mesh.yaml:")] == places
            assert "nothing was done" in err
        assert sorted(world.run_dir.iterdir()) == before
        assert sorted(path.name for path in folder.iterdir()) == ["enrolment.json", "mesh.yaml"]
        assert_still_serving(world, app, web)


def test_a_file_that_is_not_there_and_one_that_is_no_text(world: World, tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\x7fELF\x02\x01\x01\x00\xff\xfe")
    for name, says in (("missing.yaml", "no such file"), ("binary.yaml", "UTF-8")):
        code, out, _ = world.mesh("check", "-f", str(tmp_path / name))
        assert code == 1
        assert says.lower() in out.lower()
        code, _, err = world.mesh("up", "-f", str(tmp_path / name), "--for", "1s")
        assert code == 2
        assert says.lower() in err.lower()

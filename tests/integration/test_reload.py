"""A changed mesh.yaml under running sidecars: HUP, a swapped ConfigMap, broken ones, and fifty at random under load."""

from __future__ import annotations

import json
import random
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.books import balance_live
from tests.kit.fleet import Sidecar
from tests.kit.meshes import Pair, pair_yaml
from tests.kit.nonce import NonceLoad
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app

RELOADS = 50
NOBODY = "[{name: nobody, from: batch}]"
BATCH = "  batch: {health: {listen: off}}\n"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    second = tmp_path / "second"
    second.mkdir()
    with echo_app(tmp_path, pair.ports.app), echo_app(second, pair.ports.app_2), pair:
        pair.file = mounted(tmp_path, pair.file.read_text())
        pair.start_all()
        yield pair
        pair.assert_well()


def mounted(folder: Path, text: str) -> Path:
    """A ConfigMap as the kubelet mounts it."""
    mount = folder / "mounted"
    (mount / "..0").mkdir(parents=True)
    (mount / "..0" / "mesh.yaml").write_text(text)
    (mount / "..data").symlink_to("..0")
    (mount / "mesh.yaml").symlink_to("..data/mesh.yaml")
    return mount / "mesh.yaml"


def swap(pair: Pair, text: str) -> None:
    """The next generation of the ConfigMap: a new folder, and a rename over the symlink."""
    mount = pair.file.parent
    name = f"..{len(list(mount.iterdir()))}"
    (mount / name).mkdir()
    (mount / name / "mesh.yaml").write_text(text)
    (mount / "..data_tmp").symlink_to(name)
    (mount / "..data_tmp").rename(mount / "..data")


def reload_state(sidecar: Sidecar) -> tuple[int, str]:
    config = sidecar.status()["config"]
    return config["generation"], (config["last_reload"] or {}).get("result", "")


def ask(pair: Pair) -> str:
    return curl("-o", "/dev/null", "-w", "%{http_code}", pair.url + "/x").text


def test_a_swapped_config_map_is_noticed_and_the_change_is_in_force_and_told(pair: Pair) -> None:
    assert ask(pair) == "200"
    swap(pair, pair_yaml(pair.ports, pair.folder, allow=NOBODY) + BATCH)
    eventually("the change is in force", lambda: reload_state(pair["app"]) == (2, "ok"))
    assert ask(pair) == "403"
    (line,) = [
        json.loads(line) for line in pair["app"].process.text().splitlines() if "configuration was reloaded" in line
    ]
    assert [line[f"change_{number}"] for number in range(1, line["changes"] + 1)] == [
        "app.allow: - rule web-may",
        "app.allow: + rule nobody {from: [batch]}",
    ]
    metrics = pair["app"].metrics()
    assert metrics.total("mesh_config_reloads_total", result="ok") == 1
    assert metrics.total("mesh_config_generation") == 2
    explained = pair.mesh("status")
    assert "failed" not in explained.stdout


def test_a_broken_reload_keeps_serving_and_says_so(pair: Pair) -> None:
    good = pair_yaml(pair.ports, pair.folder)
    swap(pair, good.replace("trust_domain: demo.mesh", "trust_domain: Demo!").replace("protocol:", "protocl:"))
    eventually("the mistake is told", lambda: reload_state(pair["app"]) == (1, "failed"))
    assert ask(pair) == "200"
    status = pair.mesh("status").stdout
    assert "failed, the config before stands:" in status
    assert "trust_domain" in status
    assert "(and 1 more: mesh check)" in status
    assert pair["app"].metrics().total("mesh_config_last_reload_success") == 0
    text = pair["app"].process.text()
    assert "mistake_1" in text
    assert 'did you mean \\"protocol\\"?' in text
    swap(pair, good)
    eventually("it is well again", lambda: pair["app"].metrics().total("mesh_config_last_reload_success") == 1)
    eventually("so is the other", lambda: "config before stands" not in pair.mesh("status").stdout)


def test_what_needs_a_restart_says_so_and_changes_nothing(pair: Pair) -> None:
    fixed = pair_yaml(pair.ports, pair.folder, allow=NOBODY) + BATCH
    swap(pair, fixed.replace(f"127.0.0.1:{pair.ports.app_health}", f"127.0.0.1:{pair.ports.other_health}"))
    eventually("it is refused", lambda: reload_state(pair["app"]) == (1, "failed"))
    assert ask(pair) == "200"
    (mistake,) = pair["app"].status()["config"]["last_reload"]["mistakes"]
    assert mistake.startswith(f"app.health.listen: 127.0.0.1:{pair.ports.app_health} → ")
    assert mistake.endswith("it is fixed when a sidecar starts: restart it, or take the change back")


def test_a_port_that_is_taken_fails_the_whole_reload_until_hup(pair: Pair) -> None:
    text = pair_yaml(pair.ports, pair.folder, allow=NOBODY) + BATCH
    extra = f'      - {{name: extra, port: {pair.ports.extra}, bind: 127.0.0.1, app: "127.0.0.1:{pair.ports.app_2}"}}\n'
    text = text.replace(f"    allow: {NOBODY}", f"{extra}    allow: {NOBODY}")
    text = text.replace("{to: app,", "{to: app, port: main,")
    with socket.create_server(("127.0.0.1", pair.ports.extra)):
        swap(pair, text)
        eventually("it is refused", lambda: reload_state(pair["app"]) == (1, "failed"))
        assert ask(pair) == "200"
        assert "Address already in use" in pair["app"].status()["config"]["last_reload"]["mistakes"][0]
    pair["app"].process.signal(signal.SIGHUP)
    eventually("HUP tries again", lambda: reload_state(pair["app"]) == (2, "ok"))
    assert ask(pair) == "403"
    listeners = {each["name"] for each in pair["app"].status()["listeners"]}
    assert listeners == {"main", "extra"}


def test_a_raw_connection_ends_at_once_when_its_rule_goes(tmp_path: Path) -> None:
    pair = Pair(tmp_path, protocol="tcp")
    with echo_app(tmp_path, pair.ports.app), pair:
        pair.start_all()
        with socket.create_connection(("127.0.0.1", pair.ports.door)) as line:
            line.settimeout(5)
            line.sendall(b"GET /raw HTTP/1.1\r\nhost: app\r\n\r\n")
            assert line.recv(1000).startswith(b"HTTP/1.1 200")
            pair.file.write_text(pair_yaml(pair.ports, tmp_path, protocol="tcp", allow=NOBODY) + BATCH)
            pair["app"].process.signal(signal.SIGHUP)
            with pytest.raises(ConnectionResetError):
                line.recv(1000)
        eventually("recorded", lambda: pair["app"].access_log())
        (hop,) = pair["app"].access_log()
        assert hop["flags"] == "PD"
        early = pair["app"].metrics().total("mesh_connections_ended_early_total", reason="policy")
        assert early == 1
        pair.assert_well()


def test_fifty_random_reloads_under_load_cost_nothing(pair: Pair, record_property: pytest.RecordProperty) -> None:
    dice = random.Random(20)
    good = broken = 0
    with NonceLoad(pair.ports.door, rate=120) as load:
        for _ in range(RELOADS):
            if dice.random() < 0.2:
                swap(pair, some_text(pair, dice).replace("protocol", "protocoll"))
                broken += 1
            else:
                swap(pair, some_text(pair, dice))
                good += 1
            for name in dice.sample(["web", "app"], 2):
                before = attempts(pair[name])
                pair[name].process.signal(signal.SIGHUP)
                eventually("a reload", lambda: attempts(pair[name]) > before)  # noqa: B023
            time.sleep(dice.random() * 0.2)
        swap(pair, pair_yaml(pair.ports, pair.folder))
        time.sleep(0.5)
    tally = load.stop()
    record_property("load", tally.summary())
    print(tally.summary(), "good:", good, "broken:", broken)
    tally.assert_flawless()
    balance_live(pair["web"], pair["app"], tally)
    for name in ("web", "app"):
        metrics = pair[name].metrics()
        assert metrics.total("mesh_config_reloads_total", result="failed") >= broken / 2
        assert metrics.total("mesh_config_generation") > good / 2


def attempts(sidecar: Sidecar) -> float:
    return sidecar.metrics().total("mesh_config_reloads_total")


def some_text(pair: Pair, dice: random.Random) -> str:
    """A mesh.yaml that lets the load through, and otherwise is what the dice say."""
    ports = pair.ports
    rules = ["{name: web-may, from: web}"]
    rules += [f"{{name: r{n}, from: batch, path: /p{n}}}" for n in range(dice.randrange(4))]
    dice.shuffle(rules)
    routes = dice.choice(["", "[{path: /never, max_body: 1KiB}]", "[{path: /echo/**, method: PUT, max_body: 1B}]"])
    defaults = f"{{timeouts: {{connect: {dice.randrange(2, 9)}s, idle: {dice.randrange(1, 9)}m, drain: 20s}}}}"
    text = pair_yaml(ports, pair.folder, allow=f"[{', '.join(rules)}]", routes=routes, defaults=defaults)
    text = text.replace(f"app: 127.0.0.1:{ports.app}\n", f"app: 127.0.0.1:{dice.choice((ports.app, ports.app_2))}\n")
    if dice.random() < 0.5:
        text = text.replace(f"forward_proxy: 127.0.0.1:{ports.proxy}", f"forward_proxy: 127.0.0.1:{ports.proxy_2}")
    extra = f'      - {{name: extra, port: {ports.extra}, bind: 127.0.0.1, app: "127.0.0.1:{ports.nobody}"}}\n'
    if dice.random() < 0.5:
        text = text.replace("    allow:", f"{extra}    allow:").replace("{to: app,", "{to: app, port: main,")
    return text + BATCH

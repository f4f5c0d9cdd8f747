"""A listener that is not strict for some seconds: real sidecars, real clocks, a migration from its start to its end."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.config.posture import show_moment
from tests.kit.books import balance_waived, wait_for_lines
from tests.kit.fleet import MESH, spiffe
from tests.kit.meshes import Pair, pair_yaml
from tests.kit.nonce import NonceLoad
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app

FORGED = ("x-forwarded-client-cert: URI=spiffe://a/b", "mesh-via: 0a", "x_forwarded_client_cert: c")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    with echo_app(tmp_path, pair.ports.app), pair:
        pair.start_all()
        yield pair


def pose(pair: Pair, posture: str, seconds: float, *, allow: str = "{name: web-may, from: web}", deny: str) -> float:
    """Reload the app's sidecar with this posture and these rules; returns its end in seconds since the epoch."""
    until = float(int(time.time() + seconds) + 1)
    text = pair_yaml(pair.ports, pair.folder, allow=f"[{allow}]\n    deny: [{deny}]")
    says = f"port: {pair.ports.app_in}\n        posture: {posture}\n        until: {show_moment(until)}\n"
    pair.file.write_text(text.replace(f"port: {pair.ports.app_in}\n", says))
    generation = pair["app"].status()["config"]["generation"]
    pair["app"].process.signal(signal.SIGHUP)
    eventually(posture, lambda: pair["app"].status()["config"]["generation"] == generation + 1)
    return until


def mesh(pair: Pair, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*MESH, *arguments, "--run-dir", str(pair.run_dir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def warnings(pair: Pair, message: str) -> list[dict[str, object]]:
    lines = pair["app"].process.text().splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{") and message in line]
    assert all(line["level"] == "warning" for line in found)
    return found


def listener(pair: Pair) -> dict[str, object]:
    (found,) = (each for each in pair["app"].status()["listeners"] if each["direction"] == "inbound")
    return dict(found)


def until_refused(connection: http.client.HTTPConnection, until: float) -> tuple[int, float]:
    """Ask again and again on one connection; how often it was answered, and when the first refusal came."""
    answered = 0
    while True:
        assert time.time() < until + 5.0, "it never ended"
        connection.request("GET", "/echo/plain")
        answer = connection.getresponse()
        answer.read()
        if answer.status == 403:
            return answered, time.time()
        assert answer.status == 200
        answered += 1
        time.sleep(0.02)


def test_a_migration_lets_plaintext_in_counts_it_tells_everybody_and_ends_by_itself(pair: Pair) -> None:
    plain = f"http://127.0.0.1:{pair.ports.app_in}"
    assert curl(f"{plain}/echo/a").code != 0  # strict
    until = pose(pair, "permissive", 18.0, deny='{name: no-secrets, from: "**", path: /secrets}')

    # both kinds of callers, at once, and nobody's answer is another's
    with NonceLoad(pair.ports.app_in, rate=60) as without, NonceLoad(pair.ports.door, rate=60, seed=2) as within:
        time.sleep(2.0)
    for load in (without, within):
        load.tally.assert_flawless()
    count = without.tally.sent
    seen = json.loads(curl(*(part for header in FORGED for part in ("-H", header)), f"{plain}/x").text)
    names = [name.replace("_", "-") for name, _ in seen["headers"]]
    assert "x-forwarded-client-cert" not in names
    assert [value for name, value in seen["headers"] if name.startswith("mesh-")] == [pair["app"].status()["instance"]]
    assert curl("-o", "/dev/null", "-w", "%{http_code}", f"{plain}/secrets").text == "403"
    count += 1

    # who is told
    eventually("the lines", lambda: sum("would_refuse" in line for line in pair["app"].access_log()) == count)
    lines = [line for line in pair["app"].access_log() if line.get("would_refuse")]
    assert {line["rule"] for line in lines} == {"posture:permissive"}
    assert {line["client.id"] for line in lines} == {""}
    assert len(wait_for_lines(pair["app"], "inbound", "web", within.tally.sent)) == within.tally.sent
    assert listener(pair) | {"address": ""} == {
        "name": "main", "address": "", "protocol": "http", "direction": "inbound", "posture": "permissive",
        "declared_posture": "permissive", "until": show_moment(until).replace("Z", ".000000Z"), "would_refuse": count,
    }  # fmt: skip
    shout = f"PERMISSIVE until {show_moment(until)}: strict would have refused {count} hops"
    assert shout in mesh(pair, "status").stdout
    (warning,) = warnings(pair, "listener main is not strict")
    assert (warning["posture"], warning["until"]) == ("permissive", show_moment(until))
    scraped = pair["app"].metrics()
    assert scraped.series("mesh_posture_until_seconds") == [({"listener": "main", "posture": "permissive"}, until)]
    assert scraped.total("mesh_posture", posture="permissive") == 1
    explained = mesh(pair, "explain", str(lines[-1]["decision_id"]))
    assert explained.returncode == 0
    assert "strict would refuse this: flag ID, identity_refused (plaintext); posture permissive" in explained.stdout
    checked = subprocess.run([*MESH, "check", "-f", str(pair.file)], capture_output=True, text=True, check=False)
    assert "MESH063" in checked.stdout

    # the end: the next request on a connection that was open, and new ones
    connection = http.client.HTTPConnection("127.0.0.1", pair.ports.app_in, timeout=5)
    answered, ended = until_refused(connection, until)
    connection.close()
    assert until <= ended < until + 1.0
    assert answered > 10
    count += answered
    assert curl(f"{plain}/echo/a").code != 0
    assert curl("-o", "/dev/null", "-w", "%{http_code}", f"{pair.url}/echo/a").text == "200"
    eventually("it is told", lambda: len(warnings(pair, "listener main is strict again")) == 1)
    assert listener(pair)["posture"] == "strict"
    assert pair["app"].metrics().total("mesh_posture", posture="strict") == 1

    # a start with the same file: the end is past, so it comes up, and comes up strict
    pair["app"].assert_well()
    metrics = pair["app"].metrics()
    pair["app"].stop()
    balance_waived(pair["app"], metrics, {"permissive/ID/": count})
    pair["app"].start()
    assert listener(pair)["posture"] == "strict"
    assert curl(f"{plain}/echo/a").code != 0
    assert curl("-o", "/dev/null", "-w", "%{http_code}", f"{pair.url}/echo/a").text == "200"
    pair["app"].assert_well()


def test_rules_are_tried_on_real_traffic_before_they_are_in_force(pair: Pair) -> None:
    few, no_x = "{name: few, from: web, path: /few}", "{name: no-x, from: web, path: /x}"
    until = pose(pair, "observe", 10.0, allow=few, deny=no_x)
    codes = [curl("-o", "/dev/null", "-w", "%{http_code}", pair.url + path).text for path in ("/few", "/a", "/b", "/x")]
    assert codes == ["200"] * 4
    assert curl(f"http://127.0.0.1:{pair.ports.app_in}/few").code != 0  # mTLS is demanded all the same
    eventually("the lines", lambda: len(pair["app"].access_log()) >= 4)
    passed = {line["uri"]: line for line in pair["app"].access_log() if line["direction"] == "inbound"}
    assert passed["/few"]["rule"] == "few"
    assert "would_refuse" not in passed["/few"]
    refused = {"posture": "observe", "error": "policy_denied", "flag": "PD"}
    assert passed["/x"]["would_refuse"] == refused | {"rule": "no-x"}
    assert passed["/x"]["client.id"] == spiffe("web")
    told = mesh(pair, "explain", str(passed["/a"]["decision_id"])).stdout
    for words in ("strict would refuse this: flag PD", "nearest  rule 'few'", "path: wanted /few, seen /a", "change"):
        assert words in told
    count = 3
    connection = http.client.HTTPConnection("127.0.0.1", pair.ports.door, timeout=5)
    answered, ended = until_refused(connection, until)
    connection.close()
    assert until <= ended < until + 1.0
    assert curl("-o", "/dev/null", "-w", "%{http_code}", f"{pair.url}/few").text == "200"
    for sidecar in (pair["web"], pair["app"]):
        sidecar.assert_well()
    metrics = pair["app"].metrics()
    pair["app"].stop()
    balance_waived(pair["app"], metrics, {"observe/PD/": count - 1 + answered, "observe/PD/no-x": 1})

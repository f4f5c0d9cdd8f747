"""The way from plaintext to strict, with captured connections: who is let in, who is told of, and what is refused."""

from __future__ import annotations

import json
import subprocess
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from sidecar.deploy.names import PROXY_UID
from tests.kit.fleet import MESH
from tests.kit.processes import as_user, eventually
from tests.kit.village import HTTP, RAW, House, Village, four, six

TOMORROW = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}"
OLD_CALLER = b"GET /old-caller HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n"


def migrate_status(house: House, *options: str) -> tuple[int, str]:
    """Exit code and output of `mesh migrate status` for one house."""
    command = as_user(str(PROXY_UID), [*MESH, "migrate", "status", "--run-dir", str(house.folder / "run"), *options])
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def rows(house: House) -> list[dict[str, Any]]:
    """What a house's sidecar tells of plaintext connections."""
    _, said = migrate_status(house, "-o", "json")
    (answer,) = json.loads(said)["sidecars"]
    return list(answer["connections"])


def permissive(config: str) -> str:
    """The config with a main listener that lets plaintext in."""
    return config.replace("{name: main, ", f"{{name: main, posture: permissive, until: {TOMORROW}, ")


def test_an_old_caller_is_let_in_while_the_posture_says_so_and_is_known_by_its_address(village: Village) -> None:
    web, orders, stranger = village["web"], village["orders"], village["stranger"]
    orders.reload(permissive(village.config))
    assert b'"/old-caller"' in stranger.says(four("orders"), HTTP, OLD_CALLER)
    assert b'"/old-caller"' in stranger.says(six("orders"), HTTP, OLD_CALLER)
    web.run("curl", "-sSf", f"http://{four('orders')}:{HTTP}/new-caller")
    found = {(row["address"], row["listener"], row["connections"]) for row in rows(orders)}
    assert found == {(four("stranger"), "main", 1), (six("stranger"), "main", 1)}, "and not web, which speaks mTLS"
    code, said = migrate_status(orders)
    assert code == 1
    assert f"10.77.0.9  main, permissive until {TOMORROW}" in said
    assert "strict would have refused 2 hops" in said
    assert b"hello" not in stranger.says(four("orders"), RAW), "the other listeners are strict"
    orders.reload(village.config)
    assert stranger.says(four("orders"), HTTP, OLD_CALLER) == b""
    time.sleep(0.3)
    assert migrate_status(orders, "--within", "200ms")[0] == 0, "and when nobody came for a while, all is done"
    assert "main, strict now" in migrate_status(orders)[1]


def test_plaintext_that_leaves_is_told_of_while_it_is_open_and_afterwards(village: Village) -> None:
    web = village["web"]
    with web.connect(four("stranger"), RAW) as sock:
        assert sock.recv(100) == b"hello from stranger\n"
        code, said = migrate_status(web, "--within", "1s")
        assert code == 1
        assert f"{four('stranger')}:{RAW}  redirect.passthrough  1 " in said
        assert "now" in said
        before = _connections(web)
    assert web.says(four("stranger"), RAW) != b""
    assert _connections(web) == before + 1
    eventually("it is closed", lambda: not any(row["open"] for row in rows(web)))


def _connections(house: House) -> int:
    return sum(row["connections"] for row in rows(house))


def test_an_unmeshed_upstream_is_told_of_too(village: Village) -> None:
    """What the config says of a host outside does not make it less plaintext."""
    web = village["web"]
    old = f"      - {{to: legacy, unmeshed: passthrough, endpoints: ['{four('stranger')}:{HTTP}']}}\n"
    web.reload(village.config.replace("    outbound:\n", f"    outbound:\n{old}"))
    assert "legacy" not in migrate_status(web)[1].replace("legacy (", ""), "nobody has called it yet"
    assert json.loads(web.run("curl", "-sSf", f"http://{four('stranger')}:{HTTP}/legacy"))["target"] == "/legacy"
    code, said = migrate_status(web)
    assert code == 1
    assert f"out to     legacy ({four('stranger')}:{HTTP})" in said


def test_an_address_of_two_upstreams_means_nobody(village: Village) -> None:
    web = village["web"]
    other = f"      - {{to: twin, unmeshed: passthrough, endpoints: ['{four('orders')}:{HTTP}']}}\n"
    web.reload(village.config.replace("    outbound:\n", f"    outbound:\n{other}"))
    assert web.says(four("orders"), HTTP, OLD_CALLER) == b""
    line = web.logged(error="ambiguous_upstream")
    assert "orders.main" in line["detail"]
    assert "twin" in line["detail"]
    assert b"old-caller" in web.says(six("orders"), HTTP, OLD_CALLER), "the other address is one upstream's alone"


def test_an_address_that_stands_for_the_upstream_is_one_of_it(village: Village) -> None:
    """As a cluster's service does, whose address no host has: nothing but the rules ever sees it."""
    web = village["web"]
    web.host.run("ip", "route", "replace", "10.99.0.0/16", "dev", "eth0")
    web.reload(village.config.replace("port: main, endpoints", "port: main, addresses: '10.99.0.1:80', endpoints"))
    said = web.run("curl", "-sSf", "http://10.99.0.1/by-its-service")
    assert json.loads(said)["target"] == "/by-its-service"
    line = village["orders"].logged(uri="/by-its-service")
    assert line["client.id"].endswith("/web")


def test_rules_that_would_make_the_sidecar_call_itself_are_noticed(village: Village) -> None:
    """They let somebody else's user pass: what our own sends out comes back, once."""
    web = village["web"]
    web.host.run(*MESH, "redirect", "install", "--uid", str(PROXY_UID + 1))
    try:
        said = web.run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", f"http://{four('orders')}:{HTTP}/loop")
        assert said == "503"
        line = web.logged(error="loop", listener="redirect")
        assert line["flags"] == "LR"
        assert "mesh redirect verify" in line["detail"]
        assert len([each for each in web.access_log() if each["error"] == "loop"]) <= 6, "each try came back once"
    finally:
        web.host.run(*MESH, "redirect", "install")
    eventually("it goes well again", lambda: b"old-caller" in web.says(four("orders"), HTTP, OLD_CALLER))

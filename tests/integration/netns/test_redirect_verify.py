"""`mesh redirect verify` and `hold`, on hosts of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.cli.console import Code
from sidecar.deploy.redirect_hold import HOLDER_UID
from tests.kit.netns import Host
from tests.kit.processes import Process, eventually
from tests.kit.programs import REPOSITORY
from tests.kit.tools import need
from tests.kit.town import SHOP, SHOP6, WEB, Town, from_host

pytestmark = pytest.mark.integration


def mesh(host: Host, *words: str) -> tuple[int, str]:
    """Exit code and all that `mesh redirect …` says on this host."""
    command = host.command([sys.executable, "-m", "sidecar.cli", "redirect", *words])
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    return done.returncode, done.stdout + done.stderr


def results(text: str) -> dict[tuple[str, int], str]:
    return {(each["address"], each["port"]): each["result"] for each in json.loads(text)["dials"]}


def test_a_dial_from_outside(town: Town) -> None:
    code, said = mesh(town.web, "verify", SHOP, "8080", "9100")
    assert (code, said.count("PLAINTEXT")) == (Code.NEGATIVE, 2)
    town.mesh("install")  # and behind the rules something that speaks no plaintext
    with_tls = Process(
        "strict", town.shop.command([sys.executable, "-c", STRICT]), Path(town.log / "strict")
    )
    try:
        eventually("it listens", lambda: "ready" in with_tls.text())
        town.mesh("install", "--capture-in", "17016")
        code, said = mesh(town.web, "verify", SHOP, "8080", "-o", "json")
        assert (code, results(said)) == (Code.OK, {(SHOP, 8080): "alert"})
        code, said = mesh(town.web, "verify", SHOP6, "8080", "--patience", "1s")
        assert (code, "refused" in said) == (Code.OK, True)  # it listens on IPv4 only
        code, said = mesh(town.shop, "verify", "--from-netns", str(town.web.pid), "--capture-in", "17016", "-o", "json")
        dialled = results(said)
        assert set(dialled) >= {(SHOP, 8080), (SHOP6, 8080), (SHOP, 9100)}
        assert set(dialled.values()) == {"alert", "refused"}
        assert code == Code.OK
    finally:
        with_tls.stop()


STRICT = """
import socket
listener = socket.create_server(("0.0.0.0", 17016))
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    connection.recv(100)
    connection.sendall(b"\\x15\\x03\\x03\\x00\\x02\\x02\\x46")
    connection.close()
"""


def test_a_dial_that_proves_nothing_is_none(town: Town) -> None:
    for words, said in (
        ((SHOP, "8080"), "an address of this very machine"),
        (("127.0.0.1", "8080"), "an address of this very machine"),
        (("--from-netns", str(town.shop.pid)), "this very namespace"),
        (("--from-netns", "nobody"), "no network namespace 'nobody'"),
        (("--from-netns", "/nowhere/net"), "no network namespace"),
        ((SHOP,), "which ports?"),
        ((SHOP, "0"), "range"),
        (("no-such-host.invalid", "80"), "has no address"),
    ):
        code, text = mesh(town.shop, "verify", *words)
        assert (code, said in text) == (Code.USAGE, True), (words, text)
    code, text = mesh(town.web, "verify", "10.77.0.99", "8080", "--patience", "300ms")
    assert (code, "proves nothing" in text) == (Code.UNREACHABLE, True)


def test_a_look_from_inside(town: Town) -> None:
    code, said = mesh(town.shop, "verify")
    assert (code, "run `mesh redirect install`" in said) == (Code.NEGATIVE, True)
    town.mesh("install", "--exclude-inbound", "9100")
    code, said = mesh(town.shop, "verify", "-o", "json")
    checks = {each["what"]: (each["well"], each["detail"]) for each in json.loads(said)["checks"]}
    assert checks["rules"] == (True, "in force and unchanged (nft)")
    assert checks["port 17006"][0] is False  # the tests' own sidecar runs as root
    assert "uid 0 listens" in checks["port 17006"][1]
    assert code == Code.NEGATIVE
    assert "in force and unchanged" in mesh(town.shop, "verify", "--exclude-inbound", "9100")[1]
    assert "other options" in mesh(town.shop, "verify", "--exclude-inbound", "9101")[1]
    town.shop.run(need("nft"), "flush", "chain", "inet", "mesh", "receive")
    assert "somebody has changed them" in mesh(town.shop, "verify")[1]


def test_the_holder_has_no_right_left_and_ends_when_told(town: Town) -> None:
    holder = Process(
        "holder", town.shop.command([sys.executable, "-m", "sidecar.cli", "redirect", "hold"]), town.log / "holder"
    )
    try:
        eventually("it holds", lambda: "holding the namespace" in holder.text())
        eventually("it has dropped its rights", lambda: uid_of(holder.pid) == HOLDER_UID)
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{holder.pid}/status").read_text().splitlines()
        )
        assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert (status["NoNewPrivs"], status["Groups"].strip()) == ("1", "")
        assert from_host(town.web, SHOP, 8080) == f"in {SHOP} 8080"
        assert from_host(town.shop, WEB, 8080) == f"out {WEB} 8080"
    finally:
        holder.signal(signal.SIGTERM)
        assert holder.wait() == 0
    assert from_host(town.web, SHOP, 8080) == f"in {SHOP} 8080"  # the rules are the namespace's, and stay
    assert mesh(town.shop, "hold", "--as", "0") == (
        Code.NEGATIVE, "mesh: the holder may not run as uid 0\n      Leave --as out, or name a user of nobody's.\n"
    )  # fmt: skip


def uid_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


@pytest.mark.parametrize("verb", ["install", "remove", "verify", "hold"])
def test_without_the_right_to_change_rules_it_says_which_is_missing(town: Town, verb: str) -> None:
    drop = [need("setpriv"), "--bounding-set=-net_admin", "--inh-caps=-all"]
    command = town.shop.command([*drop, sys.executable, "-m", "sidecar.cli", "redirect", verb])
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    assert done.returncode == Code.NEGATIVE
    assert "may not change the rules here" in done.stderr
    assert "CAP_NET_ADMIN" in done.stderr
    assert "Traceback" not in done.stderr


def test_ssh_is_not_cut_off_unasked(town: Town) -> None:
    sshd = Process(
        "sshd", town.shop.command([sys.executable, "-I", "-c", SSHD]), town.log / "sshd"
    )
    try:
        eventually("it listens", lambda: "ready" in sshd.text())
        code, said = mesh(town.shop, "install")
        assert (code, "--exclude-inbound 22" in said) == (Code.USAGE, True)
        assert mesh(town.shop, "install", "--exclude-inbound", "22")[0] == Code.OK
        assert mesh(town.shop, "install", "--inbound", "22,8080")[0] == Code.OK
    finally:
        sshd.stop()


SSHD = """
import socket, time
listener = socket.create_server(("0.0.0.0", 22))
print("ready", flush=True)
time.sleep(600)
"""

"""Whom the redirect rules let reach whom: hosts of their own, by nftables and both variants of iptables."""

from __future__ import annotations

import json
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sidecar.deploy.names import PROXY_UID
from tests.kit import capture
from tests.kit.processes import Process, eventually
from tests.kit.tools import need
from tests.kit.town import BACKENDS, FAR, FAR6, SECOND, SHOP, SHOP6, WEB, WEB6, Town, from_host, look

pytestmark = pytest.mark.integration

OPTIONS = ("--exclude-inbound", "9100", "--exclude-outbound", "25", "--exclude-cidr", f"{FAR}/32,{FAR6}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_who_reaches_whom(town: Town, backend: str) -> None:
    assert [from_host(town.web, address, 8080) for address in (SHOP, SHOP6)] == ["app 8080"] * 2  # what rules are for
    assert json.loads(town.mesh("install", "--backend", backend, *OPTIONS, "-o", "json"))["changed"]

    from_outside = {  # (address, port): what a neighbour meets
        (SHOP, 8080): f"in {SHOP} 8080",
        (SHOP6, 8080): f"in {SHOP6} 8080",
        (SECOND, 8080): f"in {SECOND} 8080",
        (SHOP, 7777): f"in {SHOP} 7777",  # nobody listens: the sidecar is asked all the same
        (SHOP, 53): f"in {SHOP} 53",
        (SHOP, 9100): "app 9100",  # excluded
        (SHOP6, 9100): "app 9100",
        (SHOP, 17090): health(SHOP),  # the sidecar's own
        (SHOP, 17006): "refused",  # by its own name nobody comes in
        (SECOND, 17006): "refused",
        (SHOP6, 17006): "refused",
        (SHOP, 17001): "refused",
        (SHOP6, 17001): "refused",
    }
    met = {(address, port): from_host(town.web, address, port) for address, port in from_outside}
    assert met == from_outside

    going_out = {  # what the application meets
        (WEB, 8080): f"out {WEB} 8080",
        (WEB6, 8080): f"out {WEB6} 8080",
        (WEB, 7777): f"out {WEB} 7777",
        (WEB, 25): "app 25",  # excluded ports and networks
        (WEB6, 25): "app 25",
        (FAR, 8080): "app 8080",
        (FAR6, 8080): "app 8080",
        (WEB, 53): "app 53",  # DNS over TCP
        (WEB6, 53): "app 53",
        ("127.0.0.1", 8080): "app 8080",  # loopback, and the way to its own pod
        ("::1", 8080): "app 8080",
        (SHOP, 8080): "app 8080",
        (SHOP6, 8080): "app 8080",
        (SECOND, 8080): "app 8080",
    }
    assert {place: from_host(town.shop, *place) for place in going_out} == going_out

    by_the_sidecar = {  # which loops nowhere
        (WEB, 8080): "app 8080",
        (WEB6, 8080): "app 8080",
        ("127.0.0.1", 8080): "app 8080",
        ("::1", 8080): "app 8080",
        (SHOP, 8080): f"in {SHOP} 8080",  # its own pod, by the address that others use
        (SHOP6, 8080): f"in {SHOP6} 8080",
        (SECOND, 8080): f"in {SECOND} 8080",
        (SHOP, 9100): "app 9100",
    }
    assert {place: town.dial_as(PROXY_UID, *place) for place in by_the_sidecar} == by_the_sidecar
    assert town.dial_as(PROXY_UID + 1, WEB, 8080) == f"out {WEB} 8080"

    datagram = socket.SOCK_DGRAM
    for port in (53, 8080):
        assert town.web.within(capture.dial, SHOP, port, datagram) == f"udp {port}"
    assert [town.shop.within(capture.dial, place, 53, datagram) for place in (WEB, WEB6)] == ["udp 53"] * 2


def health(address: str) -> str:
    """A port that was not captured has the address itself as what was meant, or nothing at all."""
    return f"health {address} 17090"


@pytest.mark.parametrize("backend", BACKENDS)
def test_listed_ports(town: Town, backend: str) -> None:
    town.mesh("install", "--backend", backend, "--inbound", "8080", "--inbound-only")
    from_outside = {
        (SHOP, 8080): f"in {SHOP} 8080",
        (SHOP6, 8080): f"in {SHOP6} 8080",
        (SHOP, 9100): "app 9100",
        (SHOP, 17006): "refused",
        (SHOP6, 17006): "refused",
        (SHOP, 17001): "refused",
        (SHOP6, 17001): "refused",
    }
    assert {place: from_host(town.web, *place) for place in from_outside} == from_outside
    assert from_host(town.shop, WEB, 8080) == "app 8080"  # what goes out is left alone
    assert town.dial_as(PROXY_UID, SHOP, 8080) == f"in {SHOP} 8080"
    assert town.dial_as(PROXY_UID, SHOP, 9100) == "app 9100"


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_nat_does_not_see_meets_the_filter(town: Town, backend: str) -> None:
    untracked = """
        table inet other {
            chain arriving { type filter hook prerouting priority raw; tcp dport 8080 notrack; }
            chain leaving { type filter hook output priority raw; tcp sport 8080 notrack; tcp dport 8080 notrack; }
        }"""
    town.shop.run(need("nft"), "-f", "-", text=untracked)
    try:
        assert from_host(town.web, SHOP, 8080) == "app 8080"
        assert from_host(town.shop, WEB, 8080) == "app 8080"
        town.mesh("install", "--backend", backend)
        for host, place in ((town.web, SHOP), (town.web, SHOP6), (town.shop, WEB), (town.shop, WEB6)):
            assert from_host(host, place, 8080) in ("refused", "reset"), (host, place)
    finally:
        town.shop.run(need("nft"), "delete", "table", "inet", "other")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_link_local_address_is_an_address(town: Town, backend: str) -> None:
    shown = town.shop.run(need("ip"), "-6", "-o", "address", "show", "dev", "eth0", "scope", "link")
    place = shown.split()[3].split("/")[0]
    assert from_host(town.web, f"{place}%eth0", 8080) == "app 8080"
    town.mesh("install", "--backend", backend)
    assert from_host(town.web, f"{place}%eth0", 8080) == f"in {place} 8080"
    assert town.dial_as(PROXY_UID, f"{place}%eth0", 8080) == "silent"  # nobody calls itself like that
    assert from_host(town.shop, f"{place}%eth0", 8080) == "app 8080"


@pytest.mark.parametrize("backend", BACKENDS)
def test_open_connections(town: Town, backend: str) -> None:
    """Those that are older than the rules end, in both directions; those that they have captured outlive a new set."""

    def open_to(address: str) -> socket.socket:
        connection = socket.create_connection((address, 8080), 3.0)
        connection.settimeout(1.5)
        connection.recv(100)
        return connection

    def echoes(connection: socket.socket) -> bool:
        try:
            connection.sendall(b"hello")
            return connection.recv(100) == b"hello"
        except OSError:
            return False

    older = [town.web.within(open_to, SHOP), town.web.within(open_to, SHOP6), town.shop.within(open_to, WEB)]
    assert all(map(echoes, older))
    town.mesh("install", "--backend", backend)
    assert not any(map(echoes, older))
    for connection in older:
        connection.close()
    captured = [town.web.within(open_to, SHOP), town.shop.within(open_to, WEB6)]
    town.mesh("install", "--backend", backend, "--exclude-inbound", "9100")
    assert all(map(echoes, captured))
    for connection in captured:
        connection.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_moment_without_rules(town: Town, backend: str) -> None:
    """New rules, again and again, under dials that never pause: none of them meets the application."""
    town.mesh("install", "--backend", backend)
    met: set[str] = set()
    over, dials = threading.Event(), 0

    def dial_on(address: str) -> None:
        nonlocal dials
        while not over.is_set():
            met.add(town.web.within(capture.dial, address, 8080))
            dials += 1

    threads = [threading.Thread(target=dial_on, args=(address,)) for address in (SHOP, SHOP6)]
    for thread in threads:
        thread.start()
    for turn in range(6):
        town.mesh("install", "--backend", backend, "--exclude-inbound", str(9100 + turn))
    over.set()
    for thread in threads:
        thread.join()
    assert dials > 50
    assert met == {f"in {SHOP} 8080", f"in {SHOP6} 8080"}


def test_several_installations_at_once_leave_one_that_knows_itself(town: Town) -> None:
    ports = ["9101", "9102", "9103"]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda port: town.mesh("install", "--exclude-inbound", port), ports))
    rules = town.shop.run(need("nft"), "list", "table", "inet", "mesh")
    (last,) = [port for port in ports if f" {port}," in rules]
    assert "nothing was changed" in town.mesh("install", "--exclude-inbound", last)
    assert rules.count("comment") == 1


def test_from_one_backend_to_another_there_is_no_moment_either(town: Town) -> None:
    town.mesh("install", "--backend", "iptables-legacy")
    for new, old in (("iptables-nft", "iptables-legacy"), ("nft", "iptables-nft"), ("iptables-legacy", "nft")):
        done = json.loads(town.mesh("install", "--backend", new, "-o", "json"))
        assert done == {"backend": new, "changed": True, "replaced": [old]}
        assert from_host(town.web, SHOP, 8080) == f"in {SHOP} 8080"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_second_time_changes_nothing_and_a_meddler_is_noticed(town: Town, backend: str) -> None:
    def again() -> bool:
        return bool(json.loads(town.mesh("install", "--backend", backend, "-o", "json"))["changed"])

    assert [again(), again(), again()] == [True, False, False]
    assert "nothing was changed" in town.mesh("install", "--backend", backend)
    if backend == "nft":
        town.shop.run(need("nft"), "insert", "rule", "inet", "mesh", "prerouting", "tcp", "dport", "8080", "return")
    else:
        rule = ("-p", "tcp", "--dport", "8080", "-j", "RETURN")
        town.shop.run(need(backend), "-t", "nat", "-I", "MESH_PREROUTING", *rule)
    assert [again(), again()] == [True, False]
    if backend != "nft":  # somebody else's rule before ours
        town.shop.run(need(backend), "-t", "nat", "-I", "PREROUTING", "-p", "tcp", "--dport", "8080", "-j", "ACCEPT")
        assert [again(), again()] == [True, False]
        town.shop.run(need(backend), "-t", "nat", "-D", "PREROUTING", "-p", "tcp", "--dport", "8080", "-j", "ACCEPT")
    assert from_host(town.web, SHOP, 8080) == f"in {SHOP} 8080"


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_tables_are_not_touched(town: Town, backend: str) -> None:
    town.shop.run(need("iptables-nft"), "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "81", "-j", "ACCEPT")
    town.shop.run(need("iptables-legacy"), "-A", "INPUT", "-p", "tcp", "--dport", "82", "-j", "ACCEPT")
    town.shop.run(need("nft"), "-f", "-", text="table inet theirs { chain c { tcp dport 83 accept; }; }")

    def theirs() -> list[str]:
        texts = [town.shop.run(need(program)) for program in ("iptables-nft-save", "iptables-legacy-save")]
        rules = [line for text in texts for line in text.splitlines() if line.startswith("-A")]
        return [*rules, town.shop.run(need("nft"), "list", "table", "inet", "theirs")]

    before = theirs()
    town.mesh("install", "--backend", backend, *OPTIONS)
    assert [rule for rule in theirs() if "MESH_" not in rule] == before
    assert backend in town.mesh("remove")
    assert theirs() == before
    assert "no rules of ours" in town.mesh("remove")
    assert "mesh" not in town.shop.run(need("nft"), "list", "tables")
    assert "MESH_" not in town.shop.run(need("iptables-legacy-save")) + town.shop.run(need("ip6tables-nft-save"))
    for program, table, chain in (("iptables-nft", "nat", "PREROUTING"), ("iptables-legacy", "filter", "INPUT")):
        town.shop.run(need(program), "-t", table, "-F", chain)
    town.shop.run(need("nft"), "delete", "table", "inet", "theirs")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_sidecar_notices_whether_the_rules_are_there(town: Town, backend: str) -> None:
    """Without any right: it runs as its own user, with no capability."""
    found = look(town)
    assert (found["result"], found["ports"]) == ("open", [8080])
    assert "mesh redirect install" in str(found["problem"])
    assert look(town, PROXY_UID, 8080, "allow")["result"] == "allowed"
    assert look(town, PROXY_UID, 8999)["result"] == "none"  # nobody listens there
    town.mesh("install", "--backend", backend)
    assert look(town)["result"] == "guarded"
    if backend != "nft":
        return
    assert look(town, PROXY_UID + 1)["result"] == "open"  # the rules are for another user: they would loop
    town.mesh("install", "--backend", backend, "--exclude-inbound", "8080")
    assert look(town)["result"] == "open"
    town.mesh("install", "--backend", backend, "--inbound", "9100,8080", "--inbound-only")
    assert look(town)["result"] == "guarded"
    town.mesh("remove")
    assert look(town)["result"] == "open"


def test_one_ip_version_without_rules_is_enough_to_be_reached(town: Town) -> None:
    town.mesh("install", "--backend", "iptables-nft")
    for table in ("nat", "filter"):
        town.shop.run(need("ip6tables-nft"), "-t", table, "-F")
    assert from_host(town.web, SHOP6, 8080) == "app 8080"
    assert look(town)["result"] == "open"


ODD = """
import socket, struct, sys, time
kind, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if kind == "v6only" else socket.AF_INET
listener = socket.create_server(("", port), family=family, backlog=0 if kind == "full" else 100)
waiting = []
while kind == "full" and len(waiting) < 3:
    caller = socket.socket()
    caller.setblocking(False)
    caller.connect_ex(("127.0.0.1", port))
    waiting.append(caller)
print("ready", flush=True)
while kind != "full":
    connection, _ = listener.accept()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
time.sleep(600)
"""


def settled(town: Town) -> bool:
    """Whether the shop has a link-local address that is not tentative any more (RFC 4862 section 5.4)."""
    shown = town.shop.run(need("ip"), "-6", "address", "show", "dev", "eth0", "scope", "link")
    return "fe80:" in shown and "tentative" not in shown


@pytest.mark.parametrize(("kind", "port"), [("resets", 8101), ("full", 8102), ("v6only", 8103)])
def test_an_application_that_is_hard_to_reach_counts_all_the_same(town: Town, kind: str, port: int) -> None:
    """It resets whoever comes, its backlog is full, or there is link-local IPv6 alone: others may have better luck."""
    command = town.shop.command([sys.executable, "-I", "-c", ODD, kind, str(port)])
    app = Process(kind, command, town.log / kind)
    try:
        eventually("it listens", lambda: "ready" in app.text())
        if kind == "v6only":
            town.shop.run(need("ip"), "address", "del", f"{SHOP6}/64", "dev", "eth0")
            eventually("its link-local address can be used", lambda: settled(town), 20)
        assert look(town, PROXY_UID, port)["result"] == "open"
        town.mesh("install")
        assert look(town, PROXY_UID, port)["result"] == "guarded"
    finally:
        app.stop()
        if kind == "v6only":
            town.shop.run(need("ip"), "address", "add", f"{SHOP6}/64", "dev", "eth0", "nodad")

"""A whole mesh of applications that know nothing of it: their connections are captured on both sides."""

from __future__ import annotations

import json
import socket
import sys

import pytest
from websockets.sync.client import connect

from tests.kit.fleet import spiffe
from tests.kit.processes import eventually
from tests.kit.village import GRPC, HTTP, RAW, SOCKETS, House, Village, four, six

CALL = """\
import grpc, sys
with grpc.insecure_channel(sys.argv[1], options=[("grpc.enable_http_proxy", 0)]) as channel:
    print(channel.unary_unary("/kit.Echo/Echo")(sys.argv[2].encode(), timeout=5).decode(), end="")
"""
WEB, ORDERS = spiffe("web"), spiffe("orders")
BOTH = pytest.mark.parametrize("orders_at", [four("orders"), f"[{six('orders')}]"], ids=["ipv4", "ipv6"])
EACH = pytest.mark.parametrize("orders_at", [four("orders"), six("orders")], ids=["ipv4", "ipv6"])


@BOTH
@pytest.mark.parametrize("version", ["1.1", "2-prior-knowledge"])
def test_http_as_the_application_says_it(village: Village, orders_at: str, version: str) -> None:
    marker = f"marker-{version}-{len(orders_at)}"
    with village.wiretap() as tap:
        said = village["web"].run(
            "curl", "-sS", f"--http{version}", "-d", marker, f"http://{orders_at}:{HTTP}/{marker}"
        )
        assert not tap.heard(marker.encode())
    assert json.loads(said)["target"] == f"/{marker}"
    line = village["orders"].logged(uri=f"/{marker}")
    assert (line["client.id"], line["rule"], line["listener"]) == (WEB, "web-may", "main")
    assert line["tls.version"] == "TLSv1.3"
    assert village["web"].logged(uri=f"/{marker}")["server.id"] == ORDERS


def serial(house: House) -> str:
    """Of the certificate that a sidecar has now."""
    return str(house.admin("/status")["identity"]["serial"])


def over(sock: socket.socket) -> bool:
    """Whether nothing comes any more, however that is said."""
    try:
        return sock.recv(100) == b""
    except ConnectionResetError:
        return True


@EACH
def test_a_websocket(village: Village, orders_at: str) -> None:
    orders, web = village["orders"], village["web"]
    with village.wiretap() as tap, web.connect(orders_at, SOCKETS) as sock, connect("ws://orders/", sock=sock) as line:
        line.send("marker of a socket")
        assert line.recv(timeout=5) == "marker of a socket"
        assert not tap.heard(b"marker of a socket")
    assert orders.logged(listener="sockets")["client.id"] == WEB


def test_grpc(village: Village) -> None:
    """A channel of grpcio's to an address: HTTP/2 without TLS on both machines, and mTLS between them."""
    village["orders"].serve_grpc()
    with village.wiretap() as tap:
        for at in (four("orders"), f"[{six('orders')}]"):
            said = village["web"].run(sys.executable, "-c", CALL, f"{at}:{GRPC}", "marker of a call")
            assert said == "marker of a call"
        assert not tap.heard(b"marker of a call")
    line = village["orders"].logged(listener="grpc")
    assert (line["client.id"], line["version"], line["grpc_status"]) == (WEB, "2", "OK")


@EACH
def test_raw_tcp_in_which_the_server_speaks_first(village: Village, orders_at: str) -> None:
    with village.wiretap() as tap, village["web"].connect(orders_at, RAW) as sock:
        assert sock.recv(100) == b"hello from orders\n"
        sock.sendall(b"marker of bytes\n")
        assert sock.recv(100) == b"MARKER OF BYTES\n"
        sock.shutdown(socket.SHUT_WR)  # the end of one direction is passed on as such
        assert sock.recv(100) == b"1 lines\n"
        assert sock.recv(100) == b""
        assert not tap.heard(b"marker of bytes")
        assert not tap.heard(b"MARKER OF BYTES")
    line = village["orders"].logged(listener="raw")
    assert (line["client.id"], line["rule"], line["protocol"]) == (WEB, "web-may", "tcp")


def test_a_wiretap_would_hear_a_marker(village: Village) -> None:
    """Or its silence proved nothing."""
    with village.wiretap() as tap:
        assert village["web"].says(four("stranger"), RAW, b"marker for a stranger\n")
        assert tap.heard(b"marker for a stranger")


@EACH
@pytest.mark.parametrize("port", [HTTP, SOCKETS, RAW])
def test_a_neighbour_that_dials_the_application_gets_nothing(village: Village, orders_at: str, port: int) -> None:
    """Although the application listens on every address of its host."""
    request = b"GET /from-a-stranger HTTP/1.1\r\nHost: orders\r\n\r\n"
    assert village["stranger"].says(orders_at, port, request) == b""
    assert "from-a-stranger" not in (village["orders"].folder / "app.log").read_text()


@EACH
def test_a_port_that_no_listener_declares_is_refused_unread(village: Village, orders_at: str) -> None:
    orders = village["orders"]
    assert village["stranger"].says(orders_at, 9999, b"GET / HTTP/1.1\r\n\r\n") == b""
    asked = f"[{orders_at}]:9999" if ":" in orders_at else f"{orders_at}:9999"
    line = orders.logged(error="undeclared_port", endpoint=asked)
    assert (line["flags"], line["direction"], line["listener"]) == ("PD", "inbound", "redirect")
    assert "inbound: [{port: 9999" in orders.sidecar.text()


@pytest.mark.parametrize("orders_at", [four("stranger"), six("stranger")], ids=["ipv4", "ipv6"])
def test_where_plaintext_may_go_it_goes_and_elsewhere_it_is_refused(village: Village, orders_at: str) -> None:
    web = village["web"]
    assert web.says(orders_at, RAW, b"one\n") == b"hello from stranger\nONE\n1 lines\n"
    line = web.logged(listener="redirect.passthrough")
    assert (line["rule"], line["protocol"], line["server.id"]) == ("redirect.passthrough", "tcp", "")
    assert web.says(orders_at, HTTP, b"GET / HTTP/1.1\r\nHost: stranger\r\n\r\n") == b""
    line = web.logged(error="undeclared_upstream")
    assert (line["flags"], line["direction"]) == ("PD", "outbound")
    assert "redirect: {passthrough: [" in web.sidecar.text()


def test_a_host_that_is_no_name_of_the_upstream_is_refused(village: Village) -> None:
    """Host chooses nobody: the address has."""
    url = f"http://{four('orders')}:{HTTP}/"
    said = village["web"].run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: payments", url)
    assert said == "403"


def test_who_dials_a_capture_port_itself_is_refused(village: Village) -> None:
    """Past the rules, from inside: as somebody who wants to speak with the application's voice, or with a caller's."""
    web = village["web"]
    for port in (17001, 17006):
        assert web.says("127.0.0.1", port, b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n") == b""
        assert web.says("::1", port) == b""
    assert web.logged(error="not_redirected", direction="outbound")["flags"] == "PD"
    assert web.logged(error="not_redirected", direction="inbound")["flags"] == "PD"


def test_the_status_tells_what_is_captured(village: Village) -> None:
    rows = village["orders"].admin("/status")["listeners"]
    assert {row["name"]: row["captured"] for row in rows} == dict.fromkeys(("main", "sockets", "grpc", "raw"), True)
    names = {row["name"] for row in village["web"].admin("/status")["listeners"] if row["captured"]}
    assert names == {"orders.main", "orders.sockets", "orders.grpc", "orders.raw"}
    served = village["orders"].admin("/status")["served"]
    assert served["result"] in ("same", "unknown"), served


def test_captured_connections_outlive_a_reload_and_a_rotation(village: Village) -> None:
    web, orders = village["web"], village["orders"]
    with web.connect(four("orders"), RAW) as sock:
        assert sock.recv(100) == b"hello from orders\n"
        orders.reload(village.config.replace("{drain: 1s}", "{drain: 2s}"))
        web.reload(village.config.replace("{drain: 1s}", "{drain: 2s}"))
        for house in (web, orders):
            before = serial(house)
            house.identify(village.issuer)
            eventually(
                f"{house.name} has another certificate",
                lambda house=house, before=before: serial(house) != before,  # type: ignore[misc]
            )
        sock.sendall(b"still\n")
        assert sock.recv(100) == b"STILL\n"
        assert web.says(four("orders"), RAW, b"anew\n") == b"hello from orders\nANEW\n1 lines\n"


def test_what_a_reload_takes_away_is_refused_and_what_was_open_ends(village: Village) -> None:
    """The listener, the upstream, and where plaintext may go."""
    web, orders = village["web"], village["orders"]
    with web.connect(four("stranger"), RAW) as plain, web.connect(four("orders"), RAW) as meshed:
        assert plain.recv(100) == b"hello from stranger\n"
        assert meshed.recv(100) == b"hello from orders\n"
        less = village.config.replace("passthrough: ['10.77.0.9:5432', '[fd77::9]:5432']", "passthrough: []")
        web.reload(less)
        assert over(plain), "plaintext that may not go there any more ends at once"
        assert web.says(four("stranger"), RAW) == b""
        orders.reload("\n".join(line for line in village.config.splitlines() if "raw" not in line))
        assert web.says(four("orders"), RAW) == b""
        assert over(meshed), "and what came in by a listener that is gone, when the drain is over"
    web.reload(village.config)
    orders.reload(village.config)
    assert web.says(four("orders"), RAW, b"x\n") == b"hello from orders\nX\n1 lines\n"


def test_a_refusal_can_be_explained(village: Village) -> None:
    """By the id that the log has: what happened and what to do, although no listener and no upstream is meant."""
    web, orders = village["web"], village["orders"]
    village["stranger"].says(four("orders"), 9998)
    web.says(four("stranger"), 9998)
    for house, error, word in ((orders, "undeclared_port", "inbound"), (web, "undeclared_upstream", "passthrough")):
        decision = house.logged(error=error)["decision_id"]
        told = house.admin(f"/decisions/{decision}")
        assert told["id"] == decision, told
        assert word in json.dumps(told.get("explanation", told))


def test_the_sidecars_are_ready_although_their_applications_listen_everywhere(village: Village) -> None:
    """For the rules stand before them."""
    for name in ("web", "orders"):
        eventually(f"{name} is ready", lambda name=name: village[name].admin("/status")["not_ready"] == [])


def test_without_its_sidecar_an_application_is_reached_by_nobody(village: Village) -> None:
    """Nor does it reach anybody: the rules stand, and nobody takes what they bring."""
    web, orders = village["web"], village["orders"]
    orders.sidecar.kill()
    try:
        assert village["stranger"].says(four("orders"), RAW) == b""
        assert orders.says(four("stranger"), RAW) == b""
        assert web.says(four("orders"), RAW) == b""
    finally:
        orders.start()
        orders.sidecar.until("ready", orders.is_ready)
    eventually("it is reached again", lambda: web.says(four("orders"), RAW, b"x\n").startswith(b"hello from orders"))

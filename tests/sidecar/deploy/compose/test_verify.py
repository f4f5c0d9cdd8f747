"""What is knocked at, what an answer means, and the knocking itself against servers that speak plaintext or TLS."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sidecar.config import ports
from sidecar.deploy.compose.dial import dial
from sidecar.deploy.compose.engine import Container
from sidecar.deploy.compose.verify import doors, judge, past_the_mesh, targets


def container(service: str, part: str = "", **facts: Any) -> Container:
    said = {"of": service, "status": "running", "health": "", "exit_code": 0, "mode": "shop_default",
            "addresses": {"shop_default": "10.0.0.2"}, **facts}  # fmt: skip
    return Container(f"id-{service}", service, service, part, image="mesh", **said)


def test_each_address_of_each_namespace_is_knocked_at_and_our_own_ports_too() -> None:
    both = {"front": "10.0.0.2", "back": "10.1.0.2"}
    known = [container("orders", "holder", addresses=both), container("orders-sidecar", "sidecar", addresses={}),
             container("mesh-ca", "ca"), container("gone", status="exited")]  # fmt: skip
    found = {(each["host"], each["port"]) for each in targets(known, lambda _: [8000])}
    numbers = {8000, ports.CAPTURE_IN, ports.CAPTURE_OUT, ports.HEALTH}
    assert found == {(host, number) for host in both.values() for number in numbers}


def test_what_is_published_past_the_mesh_is_found_and_doors_are_doors() -> None:
    known = [
        container("web", "door", of="web", published=(("127.0.0.1", 8080, 80),)),
        container("db", published=(("0.0.0.0", 5432, 5432),)),
        container("raw", mode="host"),
        container("old", published=(("0.0.0.0", 1, 1),), labels={"sidecar.mesh/inject": "false"}),
    ]
    assert [(each.service, each.port, each.good) for each in past_the_mesh(known)] == [
        ("db", 5432, False), ("raw", 0, False), ("old", 1, True),
    ]  # fmt: skip
    assert [(each.service, each.port) for each in doors(known)] == [("web", 8080)]


@pytest.mark.parametrize(
    ("answer", "good"),
    [("tls", True), ("closed", True), ("refused", True), ("unreachable", True), ("silent", False),
     ("plaintext", False)],
)
def test_only_what_is_proved_is_good(answer: str, good: bool) -> None:
    said = {"service": "a", "network": "n", "host": "h", "port": 1, "declared": False, "answer": answer,
            "asked": "HTTP", "spoke": "HTTP/1.0 200"}  # fmt: skip
    (finding,) = judge([said])
    assert finding.good is good
    assert judge([{**said, "declared": True}])[0].good
    assert ("HTTP/1.0" in finding.detail) is (answer == "plaintext")


@contextmanager
def server(answer: bytes, greeting: bytes = b"", *, stays: bool = False) -> Iterator[int]:
    """A TCP server on loopback that greets, reads once, answers, and leaves or stays."""
    done = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(greeting)
            if self.request.recv(4096):
                self.request.sendall(answer)
            if stays:
                done.wait(5)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        try:
            yield made.server_address[1]
        finally:
            done.set()
            made.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("answer", "greeting", "stays", "found"),
    [
        (b"HTTP/1.0 400 Bad\r\n\r\n", b"", False, "plaintext"),
        (b"N", b"", False, "plaintext"),
        (b"", b"220 mail\r\n", False, "plaintext"),
        (b"\x15\x03\x03\x00\x02\x02\x28", b"", False, "tls"),
        (b"", b"", False, "closed"),
        (b"", b"", True, "silent"),
    ],
)
def test_a_knock_tells_who_speaks_plaintext(answer: bytes, greeting: bytes, stays: bool, found: str) -> None:
    with server(answer, greeting, stays=stays) as port:
        (knocked,) = dial([{"host": "127.0.0.1", "port": port, "service": "a"}])
    assert knocked["answer"] == found
    assert knocked["service"] == "a"


def test_nobody_there_is_refused() -> None:
    with server(b"") as port:
        pass
    assert dial([{"host": "127.0.0.1", "port": port}])[0]["answer"] == "refused"

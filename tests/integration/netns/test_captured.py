"""A whole mesh of applications that know nothing of it: their connections are captured on both sides."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.kit.fleet import spiffe
from tests.kit.village import HTTP, RAW, SOCKETS, House, Village, four, six

CONFIG = """\
trust_domain: demo.mesh
defaults:
  access_log: {mode: all, path: FOLDER/access.log}
  timeouts: {drain: 1s}
services:
  web:
    address: 10.77.0.1
    identity_source: {files: {cert: FOLDER/chain.pem, key: FOLDER/key.pem, bundle: FOLDER/root.pem}}
    redirect: {passthrough: ['10.77.0.9:5432', '[fd77::9]:5432']}
    health: {listen: off}
    outbound:
      - {to: orders, port: main, endpoints: ['10.77.0.2:8080', '[fd77::2]:8080']}
      - {to: orders, port: sockets, endpoints: ['10.77.0.2:8081', '[fd77::2]:8081']}
      - {to: orders, port: raw, endpoints: ['10.77.0.2:5432', '[fd77::2]:5432']}
  orders:
    address: 10.77.0.2
    identity_source: {files: {cert: FOLDER/chain.pem, key: FOLDER/key.pem, bundle: FOLDER/root.pem}}
    redirect: {}
    health: {listen: off}
    inbound:
      - {name: main, app: '127.0.0.1:8080'}
      - {name: sockets, app: '127.0.0.1:8081'}
      - {name: raw, app: '127.0.0.1:5432', protocol: tcp}
    allow: [{name: web-may, from: web}]
"""
WEB, ORDERS = spiffe("web"), spiffe("orders")
BOTH = pytest.mark.parametrize("orders_at", [four("orders"), f"[{six('orders')}]"], ids=["ipv4", "ipv6"])
EACH = pytest.mark.parametrize("orders_at", [four("orders"), six("orders")], ids=["ipv4", "ipv6"])


@pytest.fixture(scope="module")
def village() -> Iterator[Village]:
    with Village(CONFIG) as village:
        yield village
        village.assert_well()


@pytest.fixture
def web(village: Village) -> House:
    return village["web"]


@pytest.fixture
def orders(village: Village) -> House:
    return village["orders"]


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

"""`endpoints_from`: what it may say, what is guessed, and what contradicts itself."""

from __future__ import annotations

import pytest

from sidecar.config.load import load_bytes
from sidecar.config.mistakes import ConfigErrors
from sidecar.config.schema_outbound import Outbound
from sidecar.config.sources import path_of
from sidecar.runtime.learned import sources_of

HEAD = """\
trust_domain: demo.mesh
services:
  orders: {inbound: [{app: "127.0.0.1:8080"}], allow: [{from: web}]}
  web:
    outbound:
"""


def loaded(entry: str, file: str = "mesh.yaml") -> tuple[Outbound, list[str]]:
    found = load_bytes((HEAD + f"      - {entry}\n").encode(), file)
    return found.config.services["web"].outbound[0], [str(each) for each in found.warnings]


def mistakes(entry: str) -> str:
    with pytest.raises(ConfigErrors) as caught:
        loaded(entry)
    return str(caught.value)


def test_a_service_of_this_file_keeps_its_identity_and_nothing_of_its_place() -> None:
    found, _ = loaded("{to: orders, listen: '127.0.0.1:9001', endpoints_from: {srv: _mesh._tcp.orders.test}}")
    assert found.endpoints == ()
    assert found.identity is not None
    assert found.identity.text == "spiffe://demo.mesh/ns/default/sa/orders"
    assert [str(each) for each in sources_of(found)] == ["_mesh._tcp.orders.test"]


def test_a_namespace_is_guessed_from_the_identity() -> None:
    found, _ = loaded(
        "{to: x, identity: shop/x, listen: '127.0.0.1:9001', endpoints_from: {kubernetes: {service: its, port: mesh}}}"
    )
    assert [str(each) for each in sources_of(found)] == ["shop/its:mesh"]


@pytest.mark.parametrize(
    ("file", "said", "path"),
    [
        ("mesh.yaml", "e.yaml", "e.yaml"),
        ("/etc/mesh/mesh.yaml", "lists/e.yaml", "/etc/mesh/lists/e.yaml"),
        ("/etc/mesh/mesh.yaml", "/run/e.yaml", "/run/e.yaml"),
    ],
)
def test_a_file_is_seen_from_the_one_that_names_it(file: str, said: str, path: str) -> None:
    found, warnings = loaded(f"{{to: orders, listen: '127.0.0.1:9001', endpoints_from: {{file: {said}}}}}", file)
    assert path_of(found) == path
    assert "[MESH099]" in warnings[0]
    assert f"there is no file {path}" in warnings[0]


OUTSIDE = "to: x, identity: x, listen: '127.0.0.1:9001'"
BARE = "to: x, unmeshed: passthrough, listen: '127.0.0.1:9001'"
ODD = "identity: spiffe://demo.mesh/robots/x"
CLUSTER = "service: its, port: mesh"


@pytest.mark.parametrize(
    ("entry", "mistake"),
    [
        (f"{{{OUTSIDE}, endpoints: '10.0.0.1:1', endpoints_from: {{srv: a.test}}}}", "not both"),
        (f"{{{OUTSIDE}, endpoints_from: {{}}}}", "names no source; exactly one of file, srv, kubernetes"),
        (f"{{{OUTSIDE}, endpoints_from: {{srv: a.test, file: e.yaml}}}}", "names file and srv; exactly one of"),
        (f"{{{OUTSIDE}, endpoints_from: {{fill: e.yaml}}}}", 'did you mean "file"?'),
        (f"{{{OUTSIDE}, endpoints_from: {{file: ''}}}}", "file"),
        (f"{{{OUTSIDE}, endpoints_from: {{srv: 'a b'}}}}", "neither an IP address nor a DNS name"),
        (f"{{{OUTSIDE}, endpoints_from: {{kubernetes: {{service: its}}}}}}", "kubernetes.port: is required"),
        (f"{{{BARE}, endpoints_from: {{kubernetes: {{{CLUSTER}}}}}}}", "namespace, and the upstream has no identity"),
        (f"{{to: x, {ODD}, endpoints_from: {{kubernetes: {{{CLUSTER}}}}}}}", "the upstream's identity has none in it"),
        (f"{{{OUTSIDE}, endpoints_from: {{kubernetes: {{{CLUSTER}, api: 'http://x'}}}}}}", "not an https:// URL"),
        (f"{{{OUTSIDE}, endpoints_from: {{kubernetes: {{{CLUSTER}, api: 'https://x:99999'}}}}}}", "is no URL"),
        (f"{{{OUTSIDE}, endpoints_from: {{kubernetes: {{{CLUSTER}, api: 'https://u@x'}}}}}}", "user, query"),
        ("{to: x, listen: '127.0.0.1:9001', endpoints_from: {srv: a.test}}", "has no identity to check"),
    ],
)  # fmt: skip
def test_mistakes(entry: str, mistake: str) -> None:
    assert mistake in mistakes(entry)

"""What a caller is told to write for a host that nothing declares can be written like that, and declares it."""

from __future__ import annotations

import pytest

from sidecar.config.load import load_text
from sidecar.policy.declare import declaration

CONFIG = """\
trust_domain: demo.mesh
services:
  payments: {{inbound: [{{app: "127.0.0.1:8080"}}], allow: [{{from: web}}]}}
  web: {{forward_proxy: "127.0.0.1:17001", outbound: [{entry}]}}
"""

HOSTS = [
    # host and port as they were asked for, the upstream that it makes
    ("payments", None, ("payments", "payments", "refuse")),
    ("elsewhere.example", None, ("elsewhere-example", "elsewhere.example", "passthrough")),
    ("api.elsewhere.example", 8080, ("api-elsewhere-example", "api.elsewhere.example", "passthrough")),
    ("192.0.2.7", 8080, ("192-0-2-7", "192.0.2.7", "passthrough")),
    ("[2001:db8::1]", None, ("2001-db8-1", "2001:db8::1", "passthrough")),
    ("2001:db8::1", 8080, ("2001-db8-1", "2001:db8::1", "passthrough")),
    ("a" * 60 + ".bb.example", 80, ("a" * 60 + "-bb", "a" * 60 + ".bb.example", "passthrough")),
]


@pytest.mark.parametrize(("host", "port", "made"), HOSTS)
def test_the_yaml_declares_the_host(host: str, port: int | None, made: tuple[str, str, str]) -> None:
    (upstream,) = load_text(CONFIG.format(entry=declaration(host, port))).services["web"].outbound
    assert (upstream.to, upstream.host, upstream.unmeshed) == made
    if upstream.unmeshed == "passthrough":
        assert [(each.address.host, each.address.port) for each in upstream.endpoints] == [(upstream.host, port or 80)]

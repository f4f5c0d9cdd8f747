"""`workload_api`: off unless it is said where, a Unix socket and nothing else, users by number."""

from __future__ import annotations

import pytest

from sidecar.cli.run import _endpoint
from sidecar.config.diff import diff, fixed
from sidecar.config.load import load_text
from sidecar.config.mistakes import ConfigErrors
from sidecar.config.schema import MeshConfig, WorkloadApi
from sidecar.config.terms import Address

HEAD = "trust_domain: demo.mesh\nservices:\n  a:\n    workload_api: "


def loaded(body: str) -> MeshConfig:
    return load_text(HEAD + body + "\n")


def test_it_is_off_unless_it_is_said() -> None:
    service = load_text("trust_domain: demo.mesh\nservices: {a: {}}\n").services["a"]
    assert service.workload_api is None
    assert _endpoint(service) == {}


def test_where_and_for_whom() -> None:
    service = loaded("{listen: 'unix:/run/a/w.sock', allow_uids: [1000, 0]}").services["a"]
    assert service.workload_api == WorkloadApi(Address("unix:/run/a/w.sock", 0), (1000, 0))
    assert _endpoint(service) == {"SPIFFE_ENDPOINT_SOCKET": "unix:/run/a/w.sock"}


@pytest.mark.parametrize(
    ("body", "path", "words"),
    [
        ("{}", "listen", "is required"),
        ("{listen: '127.0.0.1:80'}", "listen", "not a Unix socket"),
        ("{listen: 'unix:w.sock'}", "listen", "not an absolute path"),
        ("{listen: '/run/w.sock'}", "listen", "not host:port"),
        ("{listen: 'unix:/run/w.sock', allow_uids: [www-data]}", "allow_uids[0]", "not a whole number"),
        ("{listen: 'unix:/run/w.sock', allow_uids: [4294967295]}", "allow_uids[0]", "not a user id"),
        ("{listen: 'unix:/run/w.sock', allow_uid: 7}", "allow_uid", "unknown key"),
    ],
)
def test_what_cannot_be_meant_is_named(body: str, path: str, words: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        loaded(body)
    (found,) = caught.value.mistakes
    assert found.path == f"services.a.workload_api.{path}"
    assert words in found.message


def test_two_services_cannot_have_one_socket() -> None:
    with pytest.raises(ConfigErrors, match="Workload API of a already"):
        loaded("{listen: 'unix:/run/w.sock'}\n  b:\n    workload_api: {listen: 'unix:/run/w.sock'}")


def test_it_is_fixed_when_a_sidecar_starts() -> None:
    old, new = (loaded(f"{{listen: 'unix:/run/{name}.sock'}}") for name in "ab")
    (change,) = fixed(diff(old, new, "a"))
    assert str(change) == "a.workload_api.listen: unix:/run/a.sock → unix:/run/b.sock"
    without = load_text("trust_domain: demo.mesh\nservices: {a: {}}\n")
    assert [str(each) for each in fixed(diff(without, new, "a"))] == [
        "a.workload_api: none → {listen: unix:/run/b.sock}"
    ]


def test_a_block_that_comes_or_goes_is_a_change_like_any_other() -> None:
    """A reload that added `proxy_protocol` used to fail."""
    head = "trust_domain: demo.mesh\nservices: {a: {inbound: [{app: '127.0.0.1:1'"
    old, new = load_text(f"{head}}}]}}}}\n"), load_text(f"{head}, proxy_protocol: {{from: 10.0.0.0/8}}}}]}}}}\n")
    assert [str(each) for each in diff(old, new, "a")] == [
        "a.inbound.http.proxy_protocol: none → {from: [10.0.0.0/8]}"
    ]
    assert [str(each) for each in diff(new, old, "a")] == [
        "a.inbound.http.proxy_protocol: {from: [10.0.0.0/8]} → none"
    ]

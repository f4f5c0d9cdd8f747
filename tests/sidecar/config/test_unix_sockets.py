"""`unix:/path` where an application or a plaintext upstream listens, and nowhere else."""

from __future__ import annotations

import pytest

from sidecar.config.load import load_text
from sidecar.config.mistakes import ConfigErrors
from sidecar.config.schema import MeshConfig
from sidecar.config.terms import Address

HEAD = "trust_domain: demo.mesh\nservices:\n"
LONGEST = "/" + "x" * 106


def loaded(body: str) -> MeshConfig:
    return load_text(HEAD + body)


def mistake(body: str) -> tuple[str, str, str]:
    with pytest.raises(ConfigErrors) as caught:
        loaded(body)
    (found,) = caught.value.mistakes
    return found.path, found.message, found.hint


@pytest.mark.parametrize("path", ["/run/app.sock", "/a b/ü:8080", LONGEST])
def test_an_application_behind_a_socket(path: str) -> None:
    app = loaded(f"  a: {{inbound: [{{app: 'unix:{path}'}}]}}\n").services["a"].inbound[0].app
    assert (app.unix, app.path, str(app)) == (True, path, f"unix:{path}")


def test_an_upstream_outside_the_mesh_behind_a_socket() -> None:
    block = "{to: db, unmeshed: passthrough, endpoints: ['unix:/run/db.sock', '10.0.0.3:5432'], protocol: tcp}"
    (upstream,) = loaded(f"  a: {{outbound: [{block}]}}\n").services["a"].outbound
    found = [each.address for each in upstream.endpoints]
    assert found == [Address("unix:/run/db.sock", 0), Address("10.0.0.3", 5432)]


def test_other_addresses_are_none() -> None:
    assert (Address("127.0.0.1", 80).unix, Address("127.0.0.1", 80).path) == (False, "")


@pytest.mark.parametrize(
    ("app", "message", "hint"),
    [
        ("unix:run/app.sock", "not an absolute path", "unix:/run/app.sock"),
        ("unix:@abstract", "not an absolute path", "unix:/run/app.sock"),
        ("unix:", "not an absolute path", "unix:/run/app.sock"),
        ("unix:///run/app.sock", "is no path", "did you mean unix:/run/app.sock?"),
        ("unix:/run/", "is a folder", "name the socket"),
        (f"unix:{LONGEST}x", "has 108 bytes", "107"),
        ("unix:/" + "ü" * 54, "has 109 bytes", "107"),
        ("/run/app.sock", "not host:port", "did you mean unix:/run/app.sock?"),
        ("./app.sock", "not host:port", "did you mean unix:/app.sock?"),
    ],
)
def test_what_is_no_socket(app: str, message: str, hint: str) -> None:
    path, said, advice = mistake(f"  a: {{inbound: [{{app: '{app}'}}]}}\n")
    assert path == "services.a.inbound[0].app"
    assert message in said
    assert hint in advice


def test_control_characters_are_no_path() -> None:
    with pytest.raises(ConfigErrors, match="control characters"):
        loaded('  a: {inbound: [{app: "unix:/run/\\u0001"}]}\n')


@pytest.mark.parametrize("key", ["forward_proxy: 'unix:/run/x'", "health: {listen: 'unix:/run/x'}"])
def test_we_listen_on_none(key: str) -> None:
    assert "not host:port" in mistake(f"  a: {{{key}}}\n")[1] or "not a port" in mistake(f"  a: {{{key}}}\n")[1]


def test_a_peers_sidecar_is_behind_none() -> None:
    block = "{to: b, identity: spiffe://demo.mesh/ns/x/sa/b, endpoints: 'unix:/run/b.sock'}"
    path, message, hint = mistake(f"  a: {{outbound: [{block}]}}\n")
    assert (path, message) == ("services.a.outbound[0].endpoints", "no peer's sidecar listens on a Unix socket")
    assert "unmeshed: passthrough" in hint


def test_two_services_with_one_socket_are_told() -> None:
    one = "{inbound: [{app: 'unix:/run/app.sock'}]}"
    path, message, _ = mistake(f"  a: {one}\n  b: {one}\n")
    assert (path, message) == (
        "services.b.inbound[0].app",
        "unix:/run/app.sock is the application of a too, so one of the two would get what is meant for the other",
    )
    loaded("  a: {inbound: [{name: one, app: 'unix:/run/a'}, {name: two, app: 'unix:/run/b'}]}\n")

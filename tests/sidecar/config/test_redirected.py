"""`redirect`: destinations as they are written, ports that are filled in, and what cannot be told apart."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address

import pytest

from sidecar.config.destinations import Destination
from sidecar.config.load import load_bytes, load_text
from sidecar.config.mistakes import ConfigErrors

HEAD = "trust_domain: demo.mesh\nservices:\n"
ORDERS = HEAD + "  orders:\n    address: 10.77.0.2\n    redirect: {}\n    inbound: [%s]\n"


def passthrough(text: str) -> Destination:
    """The one destination of a config that says this."""
    (found,) = _redirect(f"passthrough: ['{text}']").passthrough
    return found


def _redirect(said: str):  # type: ignore[no-untyped-def]
    redirect = load_text(HEAD + f"  web: {{redirect: {{{said}}}}}\n").services["web"].redirect
    assert redirect is not None
    return redirect


@pytest.mark.parametrize(
    ("text", "network", "port", "shown"),
    [
        ("10.0.0.0/8", "10.0.0.0/8", 0, "10.0.0.0/8"),
        ("10.0.0.0/8:5432", "10.0.0.0/8", 5432, "10.0.0.0/8:5432"),
        ("10.9.0.7", "10.9.0.7/32", 0, "10.9.0.7"),
        ("10.9.0.7:5432", "10.9.0.7/32", 5432, "10.9.0.7:5432"),
        ("fd00::/8", "fd00::/8", 0, "fd00::/8"),
        ("[fd00::/8]", "fd00::/8", 0, "fd00::/8"),
        ("[fd00::/8]:443", "fd00::/8", 443, "[fd00::/8]:443"),
        ("fd00::7", "fd00::7/128", 0, "fd00::7"),
        ("[fd00::7]:443", "fd00::7/128", 443, "[fd00::7]:443"),
    ],
)
def test_a_destination_is_written_in_these_ways(text: str, network: str, port: int, shown: str) -> None:
    found = passthrough(text)
    wanted = IPv6Network(network) if ":" in network else IPv4Network(network)
    assert (found.network, found.port, str(found)) == (wanted, port, shown)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10.0.0.7/8", "did you mean 10.0.0.0/8?"),
        ("fd00::7/8", "did you mean fd00::/8?"),
        ("10.0.0.0/8:0", "it goes from 1 to 65535"),
        ("10.0.0.0/8:65536", "it goes from 1 to 65535"),
        ("10.0.0.0/8:http", "it goes from 1 to 65535"),
        ("db.example.org", "write 10.0.0.0/8"),
        ("db.example.org:5432", "write 10.0.0.0/8"),
        ("", "write 10.0.0.0/8"),
    ],
)
def test_what_is_no_destination_is_refused_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(ConfigErrors) as refused:
        passthrough(text)
    assert hint in str(refused.value.mistakes[0])


def test_a_destination_holds_addresses_of_its_own_family_on_its_ports() -> None:
    here = Destination(IPv4Network("10.0.0.0/8"), 5432)
    assert here.holds(ip_address("10.9.0.7"), 5432)
    assert not here.holds(ip_address("10.9.0.7"), 5433)
    assert not here.holds(ip_address("11.9.0.7"), 5432)
    assert not Destination(IPv4Network("0.0.0.0/0")).holds(ip_address("fd00::7"), 443)
    assert Destination(IPv6Network("::/0")).holds(ip_address("fd00::7"), 443)


def test_a_redirected_listener_has_its_applications_port_unless_it_names_another() -> None:
    text = ORDERS % "{app: '127.0.0.1:8080'}, {name: admin, port: 81, app: '127.0.0.1:8081'}"
    assert [each.port for each in load_text(text).services["orders"].inbound] == [8080, 81]


def test_the_application_may_have_the_port_that_its_listener_has() -> None:
    """Without redirect that is two who want one address."""
    text = ORDERS % "{port: 8080, bind: 0.0.0.0, app: '127.0.0.1:8080'}"
    load_text(text)
    with pytest.raises(ConfigErrors, match="8080"):
        load_text(text.replace("    redirect: {}\n", ""))


@pytest.mark.parametrize(
    ("inbound", "message"),
    [
        ("{port: 80, app: '127.0.0.1:1'}, {name: b, port: 80, app: '127.0.0.1:2'}", "listener http already"),
        ("{port: 17006, app: '127.0.0.1:1'}", "rules of redirect bring what comes from outside (capture_in)"),
        ("{port: 17001, app: '127.0.0.1:1'}", "what the application sends out (capture_out)"),
    ],
)
def test_ports_that_tell_no_listener(inbound: str, message: str) -> None:
    with pytest.raises(ConfigErrors) as refused:
        load_text(ORDERS % inbound)
    assert [mistake.code for mistake in refused.value.mistakes] == ["MESH013"]
    assert message in str(refused.value.mistakes[0])


def test_a_sidecar_that_runs_its_application_is_warned_of() -> None:
    text = HEAD + "  web: {redirect: {}, run: ./web, health: {listen: off}}\n"
    assert [warning.code for warning in load_bytes(text.encode(), now=0.0).warnings] == ["MESH127"]


def test_two_redirected_services_cannot_share_a_machine() -> None:
    with pytest.raises(ConfigErrors, match="capture port of a"):
        load_text(HEAD + "  a: {redirect: {}}\n  b: {redirect: {}}\n")

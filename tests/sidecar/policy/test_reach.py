"""Where the name of a host outside may lead: every address inside is refused, in whatever IPv6 it is wrapped."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.reach import Reach, carried

OUTSIDE = Reach(private=True)
OWN = Reach(private=False)
INSIDE4 = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.127.255.255", "100.100.100.200", "127.0.0.1", "127.255.255.254",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.168.1.1", "198.18.0.1", "224.0.0.1",
    "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "168.63.129.16",
]  # fmt: skip
INSIDE6 = [
    "::", "::1", "fc00::1", "fd12::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "2001:db8::1",
    "2001::1", "64:ff9b:1::1", "100::1", "3fff::1", "5f00::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "126.0.0.1", "192.169.0.1",
          "2606:4700::1", "2a00:1450::1", "2001:200::1"]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE4 + INSIDE6)
def test_what_is_inside(address: str) -> None:
    assert OUTSIDE.why_not(address).startswith(str(ip_address(address.partition("%")[0])))


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_outside(address: str) -> None:
    assert (OUTSIDE.why_not(address), OWN.why_not(address)) == ("", "")


WRAPS = (
    lambda inner: IPv6Address(0xFFFF << 32 | inner),
    lambda inner: IPv6Address((0x0064FF9B << 96) | inner),
    lambda inner: IPv6Address((0x2002 << 112) | inner << 80 | 0x1234),
    lambda inner: IPv6Address(inner) if inner > 1 else IPv6Address("::1"),
)


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("address", INSIDE4)
def test_an_address_inside_another_one(wrap: object, address: str) -> None:
    assert OUTSIDE.why_not(str(wrap(int(IPv4Address(address)))))  # type: ignore[operator]


@given(st.ip_addresses(v=4), st.sampled_from(WRAPS))
def test_wrapping_never_changes_the_verdict(inner: IPv4Address, wrap: object) -> None:
    outer: IPv6Address = wrap(int(inner))  # type: ignore[operator]
    if int(outer) > 1:
        assert carried(outer) == inner
        assert bool(OUTSIDE.why_not(str(outer))) == bool(OUTSIDE.why_not(str(inner)))


@given(st.ip_addresses())
def test_whatever_the_library_calls_not_global_is_inside(address: IPv4Address | IPv6Address) -> None:
    """The other way round too, but for what it does not know (site-local, segment routing, a cloud's own)."""
    known = address if carried(address) is None else carried(address)
    if not (known.is_global and not known.is_multicast):  # type: ignore[union-attr]
        said = OUTSIDE.why_not(str(address))
        assert said or known in IPv4Network("192.0.0.0/24") or known.version == 6  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f.1", "017700000001", "2130706433", "::1.2.3"])
def test_what_is_no_address(text: str) -> None:
    assert "no IP address" in OUTSIDE.why_not(text)


def test_exceptions_and_names_of_our_own_network() -> None:
    some = Reach(private=True, exceptions=(IPv4Network("10.1.0.0/16"), IPv6Network("fd00::/8")))
    table = {"10.1.2.3": True, "::ffff:10.1.2.3": True, "10.2.0.1": False, "fd00::1": True, "127.0.0.1": False}
    assert {address: not some.why_not(address) for address in table} == table
    own = {"10.1.2.3": True, "127.0.0.1": True, "::1": True, "fd00::1": True, "169.254.169.254": False,
           "fe80::1": False, "::ffff:169.254.169.254": False, "fd00:ec2::254": False, "224.0.0.1": False,
           "0.0.0.0": False}  # fmt: skip
    assert {address: not OWN.why_not(address) for address in own} == own

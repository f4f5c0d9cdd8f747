"""Which addresses a name of a host outside may lead to, judged after it was looked up.

A name is somebody else's word. Where it leads to loopback, to a private network or to the address by which clouds hand
out credentials, a request would reach what only this machine can (SSRF); and a name may lead elsewhere each time it is
asked for (DNS rebinding), so what was judged is what is connected to.

The table is IANA's registries of special-purpose addresses (RFC 6890, with RFC 6052, 6598, 6666, 8215, 9602 and 9637),
written out: what the standard library calls private differs from one Python to the next. Addresses of IPv6 that carry
one of IPv4 are judged by that: mapped and compatible ones (RFC 4291 section 2.5.5), NAT64 (RFC 6052), 6to4 (RFC 3056).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Network = IPv4Network | IPv6Network

_V4: Final = tuple((IPv4Network(text), what) for text, what in (
    ("0.0.0.0/8", "this very network"), ("10.0.0.0/8", "private"), ("100.64.0.0/10", "shared by a carrier"),
    ("127.0.0.0/8", "loopback"), ("169.254.0.0/16", "link-local, where clouds hand out credentials"),
    ("172.16.0.0/12", "private"), ("192.0.0.0/24", "kept for protocols"), ("192.0.2.0/24", "for documentation"),
    ("192.88.99.0/24", "a relay of 6to4"), ("192.168.0.0/16", "private"), ("198.18.0.0/15", "for measurements"),
    ("198.51.100.0/24", "for documentation"), ("203.0.113.0/24", "for documentation"), ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"), ("168.63.129.16/32", "a cloud's own server for its machines"),
))  # fmt: skip
_V6: Final = tuple((IPv6Network(text), what) for text, what in (
    ("::/128", "unspecified"), ("::1/128", "loopback"), ("64:ff9b:1::/48", "translated within a network (NAT64)"),
    ("100::/64", "thrown away"), ("100:0:0:1::/64", "reserved"), ("2001::/23", "kept for protocols and tunnels"),
    ("2001:db8::/32", "for documentation"), ("3fff::/20", "for documentation"), ("5f00::/16", "for segment routing"),
    ("fc00::/7", "private"), ("fe80::/10", "link-local"), ("fec0::/10", "private"), ("ff00::/8", "multicast"),
))  # fmt: skip
# What no name leads to in good faith, not even one of our own network.
_NEVER: Final = ("link-local", "multicast", "unspecified", "this very", "a cloud's", "reserved", "thrown")
_METADATA6: Final = IPv6Address("fd00:ec2::254")
_CARRIERS: Final = (  # networks whose addresses carry one of IPv4, and how many bits stand behind it
    (IPv6Network("::ffff:0:0/96"), 0), (IPv6Network("64:ff9b::/96"), 0), (IPv6Network("2002::/16"), 80),
    (IPv6Network("::/96"), 0),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reach:
    """Where the names of one upstream may lead. `private`: addresses inside are refused, but for `exceptions`. Without
    it only what no name leads to in good faith is: link-local addresses, multicast, a cloud's metadata.
    """

    private: bool
    exceptions: Sequence[Network] = ()

    def why_not(self, text: str) -> str:
        """Why this IP address is none that may be connected to; empty where it is one. Of what is no address, too."""
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return f"{text[:64]} is no IP address"
        inner = carried(address)
        for each in (address, inner):
            if each is not None and any(each in network for network in self.exceptions):
                return ""
        what = kind_of(inner if inner is not None else address)
        if not what or not (self.private or what.startswith(_NEVER) or address == _METADATA6):
            return ""
        through = f" ({inner})" if inner is not None else ""
        return f"{address}{through} is {what}"


def carried(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address carries; None where it carries none."""
    if isinstance(address, IPv4Address) or int(address) < 2:
        return None
    for network, behind in _CARRIERS:
        if address in network:
            return IPv4Address(int(address) >> behind & 0xFFFFFFFF)
    return None


def kind_of(address: IPv4Address | IPv6Address) -> str:
    """What is special of an address, in words; empty for one of the public network."""
    if isinstance(address, IPv4Address):
        return next((what for network, what in _V4 if address in network), "")
    return next((what for network, what in _V6 if address in network), "")

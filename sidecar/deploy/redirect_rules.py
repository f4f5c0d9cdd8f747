"""What the redirect rules of a network namespace are to do, as a value; nft and iptables each make a script of it.

Theory of operation. Two halves, which need each other (decision D28):

    NAT      takes the first packet of each TCP connection elsewhere: what comes from outside to the port `capture_in`,
             what the application sends out to `capture_out`. The sidecar finds the address that was meant by
             SO_ORIGINAL_DST. Conntrack then does the same with every later packet.
    filter   stands behind it for whatever NAT does not see: packets that another table has marked untracked, those that
             conntrack calls invalid, helpers' expected connections, connections that are older than the rules. Of TCP
             from outside only three things come in: what NAT has captured, the ports that are open to outsiders, and
             answers to connections that began here. Of TCP to the outside the same, mirrored.

Loopback is left alone: what the sidecar and the application say to each other goes over it. So is what the application
sends to an address of its own pod, which never leaves it, and for which no neighbour's word is needed; it is like
loopback. Only the sidecar's own packets to these addresses are captured: they are calls of a service to itself by its
public address, and the other end of them has to be the sidecar's inbound side. Everything else that runs as `uid`
is let pass, or the sidecar would call itself without end.

UDP, DNS over TCP (port 53, to the outside) and every other protocol are untouched. What runs as `uid`, or has
NET_ADMIN, goes past all of this: outbound rules are a convenience, never a boundary. The boundary is the receiver's
sidecar, and its inbound half cannot be left out by a neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_network

from certs.errors import MeshError
from sidecar.config import ports
from sidecar.deploy.names import PROXY_UID

DNS = 53
OWN_PORTS = (ports.INBOUND, ports.HEALTH)  # of the sidecar itself, for outsiders: mTLS as declared, probes and metrics
MAX_UID = (1 << 32) - 2  # linux: (uid_t) -1 means none
MAX_LISTED = 1000  # ports or networks in one list; each is a rule with iptables


class InvalidRedirection(MeshError):
    """These rules would contradict themselves, or let everybody through."""

    name = "invalid_redirection"

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(what)
        self.advice = advice


@dataclass(frozen=True, slots=True)
class Redirection:
    """What is captured in one network namespace, and what is not. Raises InvalidRedirection where that is nonsense.

    `inbound` lists the application's ports to capture; empty means every port but those that are excluded. Networks
    in `exclude_networks` are destinations of the application. Without `outbound` what it sends is left alone.
    """

    uid: int = PROXY_UID
    capture_in: int = ports.CAPTURE_IN
    capture_out: int = ports.CAPTURE_OUT
    inbound: tuple[int, ...] = ()
    own_ports: tuple[int, ...] = OWN_PORTS
    exclude_inbound: tuple[int, ...] = ()
    exclude_outbound: tuple[int, ...] = ()
    exclude_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    outbound: bool = True

    def __post_init__(self) -> None:
        """Look for nonsense."""
        if self.uid == 0:
            raise InvalidRedirection(
                "the sidecar's uid cannot be 0: whatever runs as root would go past the rules",
                "Name the user that the sidecar runs as, with --uid.",
            )
        if not 0 < self.uid <= MAX_UID:
            raise InvalidRedirection(f"{self.uid} is no uid")
        self._check_ports()
        if self.capture_in == self.capture_out:
            raise InvalidRedirection(
                f"{self.capture_in} cannot capture both directions", "Name another port with --capture-out."
            )
        for network in self.exclude_networks:
            if network.prefixlen == 0:
                raise InvalidRedirection(
                    f"{network} is everything, so nothing that goes out would be captured",
                    "If that is what you want, say --inbound-only.",
                )

    def _check_ports(self) -> None:
        lists = (self.inbound, self.own_ports, self.exclude_inbound, self.exclude_outbound)
        for port in (self.capture_in, self.capture_out, *(port for ports_ in lists for port in ports_)):
            if not 0 < port < 1 << 16:
                raise InvalidRedirection(f"{port} is no port: 1 to 65535")
        if any(len(each) > MAX_LISTED for each in (*lists, self.exclude_networks)):
            raise InvalidRedirection(f"more than {MAX_LISTED} in one list", "Capture every port, or exclude networks.")
        captures = {self.capture_in, self.capture_out}
        if clash := captures & {*self.inbound, *self.own_ports, *self.exclude_inbound}:
            raise InvalidRedirection(
                f"{min(clash)} is where captured connections go; nobody may come there from outside",
                "Take it out of the list, or capture at another port.",
            )
        if clash := set(self.inbound) & set(self.open_ports):
            raise InvalidRedirection(
                f"port {min(clash)} is both to be captured and to be left alone", "Take it out of one of the two."
            )

    @property
    def open_ports(self) -> tuple[int, ...]:
        """What outsiders may dial as it is: the sidecar's own ports, and what is excluded."""
        return _sorted(self.own_ports, self.exclude_inbound)

    @property
    def not_captured(self) -> tuple[int, ...]:
        """What NAT leaves alone where it captures every port: the open ones, and the doors themselves.

        Who dials a door meets the filter, so that whatever arrives there was meant for somewhere else.
        """
        return _sorted(self.open_ports, (self.capture_in, self.capture_out))

    @property
    def captured_ports(self) -> tuple[int, ...]:
        """The ports that are listed to be captured; empty for all."""
        return _sorted(self.inbound)

    @property
    def left_alone(self) -> tuple[int, ...]:
        """Where the application may go past the sidecar, whatever the address: DNS, and what is excluded."""
        return _sorted((DNS,), self.exclude_outbound)

    def networks(self, version: int) -> tuple[str, ...]:
        """The excluded networks of this IP version, sorted and merged."""
        from ipaddress import collapse_addresses

        if version == 4:
            return tuple(map(str, collapse_addresses(n for n in self.exclude_networks if isinstance(n, IPv4Network))))
        return tuple(map(str, collapse_addresses(n for n in self.exclude_networks if isinstance(n, IPv6Network))))

    def captures(self, port: int) -> bool:
        """Whether a neighbour that dials this port gets the sidecar."""
        return port in self.inbound if self.inbound else port not in self.not_captured

    def arguments(self) -> list[str]:
        """The options of `mesh redirect install` that say all of this."""
        words = ["--uid", str(self.uid), "--capture-in", str(self.capture_in), "--capture-out", str(self.capture_out)]
        words += ["--own-ports", _listed(_sorted(self.own_ports)) or "none"]
        for option, some in (
            ("--inbound", self.captured_ports),
            ("--exclude-inbound", _sorted(self.exclude_inbound)),
            ("--exclude-outbound", _sorted(self.exclude_outbound)),
            ("--exclude-cidr", (*self.networks(4), *self.networks(6))),
        ):
            words += [option, _listed(some)] if some else []
        return words if self.outbound else [*words, "--inbound-only"]

    def sentences(self) -> tuple[str, ...]:
        """The rules in plain words."""
        ports_, open_ = _listed(self.captured_ports, ", "), _listed(self.open_ports, ", ")
        if self.inbound:
            came = f"TCP from outside to {ports_} arrives at the sidecar, port {self.capture_in}; other ports as ever."
        else:
            came = f"TCP from outside arrives at the sidecar, port {self.capture_in}, whatever the port it is for."
        lines = [came]
        if open_ and not self.inbound:
            lines.append(f"Open to outsiders as they are: {open_}.")
        lines.append(
            f"Nobody outside reaches {self.capture_in} or {self.capture_out} by dialling them"
            + (", nor the ports above past the sidecar." if self.inbound else ", nor any other port past the sidecar.")
        )
        if self.outbound:
            lines += self._going_out()
        else:
            lines.append("What goes out is left alone.")
        lines.append(f"What uid {self.uid} sends to an address of this pod arrives at {self.capture_in} too.")
        return (*lines, "Loopback, UDP, and the application's way to its own pod are untouched.")

    def _going_out(self) -> list[str]:
        nets = (*self.networks(4), *self.networks(6))
        return [
            f"TCP that goes out arrives at the sidecar, port {self.capture_out}, unless uid {self.uid} sends it.",
            f"Going out past it: port{'s' if len(self.left_alone) > 1 else ''} {_listed(self.left_alone, ', ')}"
            + (f"; whatever is for {_listed(nets, ', ')}." if nets else "."),
        ]


def digest(*texts: str) -> str:
    """16 hexadecimal digits that tell two scripts apart."""
    return sha256("\0".join(texts).encode()).hexdigest()[:16]


def parse_ports(text: str) -> tuple[int, ...]:
    """Ports of `8080,9090`; `none` for none. Raises InvalidRedirection."""
    if text == "none":
        return ()
    found = []
    for word in text.split(","):
        if not (word.isascii() and word.isdigit() and len(word) <= 5 and 0 < int(word) < 1 << 16):
            raise InvalidRedirection(f"{word!r} is no port: 1 to 65535, several as 8080,9090")
        found.append(int(word))
    return tuple(found)


def parse_networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Networks of `10.0.0.0/8,fd00::/8`; a bare address is a network of one. Raises InvalidRedirection."""
    found = []
    for word in text.split(","):
        try:
            found.append(ip_network(word))
        except ValueError as error:
            meant = ""
            if "host bits" in str(error):
                meant = f"Did you mean {ip_network(word, strict=False)}?"
            raise InvalidRedirection(f"{word!r} is no network", meant or "Say it as 10.0.0.0/8 or fd00::/8.") from None
    return tuple(found)


def _sorted(*lists: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted({port for each in lists for port in each}))


def _listed(some: tuple[object, ...], between: str = ",") -> str:
    return between.join(map(str, some))

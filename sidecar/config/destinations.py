"""Destinations outside the mesh, as the config writes them: a network, or one address, on any port or on one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Annotated, Any, Final

from sidecar.config.document import Scalar
from sidecar.config.plain import BadValue, Scope, quoted, text_of

_PORTED: Final = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<four>[^:\[\]]*)):(?P<port>[^:]*)\Z")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}\Z", re.ASCII)
_HINT: Final = "write 10.0.0.0/8, 10.0.0.7:5432, fd00::/8 or [fd00::/8]:5432"
DESTINATION_SCHEMA: Final = {"type": "string", "pattern": r"^[0-9A-Fa-f.:\[\]/]+$"}


@dataclass(frozen=True, slots=True)
class Destination:
    """`10.0.0.0/8` or `10.0.0.0/8:5432`: the addresses of a network, on all ports (0) or on this one."""

    network: IPv4Network | IPv6Network
    port: int = 0

    def holds(self, address: IPv4Address | IPv6Address, port: int) -> bool:
        """Whether this address and port are of it."""
        return self.port in (0, port) and address in self.network  # of two families nothing is in the other

    def covers(self, other: Destination) -> bool:
        """Whether all of the other is of it."""
        return (
            self.port in (0, other.port)
            and self.network.version == other.network.version
            and other.network.subnet_of(self.network)  # type: ignore[arg-type]
        )

    def __str__(self) -> str:
        alone = self.network.prefixlen == self.network.max_prefixlen
        network = str(self.network.network_address if alone else self.network)
        if not self.port:
            return network
        return f"[{network}]:{self.port}" if ":" in network else f"{network}:{self.port}"


def read_destination(scalar: Scalar, _: Scope) -> Destination:
    """A destination. Raises BadValue."""
    text = text_of(scalar)
    found = _PORTED.match(text)
    if found is None:
        return Destination(_network(text.removeprefix("[").removesuffix("]"), text))
    digits = found["port"]
    if not _PORT.match(digits) or int(digits) > 65535:
        raise BadValue(f"{quoted(digits)} is not a port", "it goes from 1 to 65535")
    return Destination(_network(found["six"] if found["six"] is not None else found["four"], text), int(digits))


def _network(text: str, whole: str) -> Any:
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        near = str(ip_network(text, strict=False))
    except ValueError:
        raise BadValue(f"{quoted(whole)} is neither a network nor an address", _HINT) from None
    raise BadValue(f"{quoted(whole)} has bits beyond its prefix", f"did you mean {near}?")


Outside = Annotated[Destination, "destination"]

"""EndpointSlices (discovery.k8s.io/v1) to endpoints. Pure: objects in, a list out.

What counts, by the API's own words (k8s.io/api/discovery/v1 types.go):
- `conditions.ready` unset is unknown, which is to be taken for true; `serving` unset is what `ready` is.
- Endpoints that are terminating and still serving are used only while no ready one is there.
- Of `addresses` only the first is used.
- One endpoint may be in two slices for a while; it is one endpoint.
- `ports` without any stands for all ports.
A service of both families has slices of each: IPv4 is taken, IPv6 where there is none, and names (FQDN) last. Topology
hints are not looked at: a sidecar prefers its own zone by what it sees of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from sidecar.config.addresses import read_host
from sidecar.config.mistakes import meant
from sidecar.config.plain import BadValue
from sidecar.config.terms import Address
from sidecar.traffic.endpoints import MOST, Declared

MOST_NOTES: Final = 5
LONGEST_ZONE: Final = 64  # characters, as in a configuration
SERVICE_LABEL: Final = "kubernetes.io/service-name"
_FAMILIES: Final = ("IPv4", "IPv6", "FQDN")


class BadSlice(ValueError):
    """An object that is no EndpointSlice, in words."""


@dataclass(frozen=True, slots=True)
class Pod:
    """One endpoint of a slice."""

    address: str
    zone: str
    ready: bool
    leaving: bool  # terminating, and serving still


@dataclass(frozen=True, slots=True)
class Slice:
    """One EndpointSlice, as far as we look at it."""

    name: str
    family: str
    pods: tuple[Pod, ...]
    ports: Mapping[str, int] | None  # TCP ports by name; None: all
    odd: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Merged:
    """What all slices of a service come to."""

    declared: tuple[Declared, ...]
    left_out: int = 0
    notes: tuple[str, ...] = ()


def read_slice(document: Any) -> Slice:
    """Read one object. Raises BadSlice."""
    if not isinstance(document, dict):
        raise BadSlice("an object that is none")
    if (kind := document.get("kind", "EndpointSlice")) != "EndpointSlice":
        raise BadSlice(f"a {str(kind)[:40]} where an EndpointSlice should be")
    meta = document.get("metadata")
    name = _text(meta, "name")
    if not name:
        raise BadSlice("an EndpointSlice without a name")
    family = document.get("addressType")
    odd: list[str] = []
    if family not in _FAMILIES:
        odd.append(f"addresses of the type {str(family)[:40]!r} are none that we know")
        document = {}
    family = str(family)[:40]
    pods = [pod for each in _list(document, "endpoints") if (pod := _pod(each, family, odd)) is not None]
    notes = tuple(f"slice {name[:80]}: {each}" for each in odd[:MOST_NOTES])
    return Slice(name, family, tuple(pods), _ports(document), notes)


def _pod(document: Any, family: str, odd: list[str]) -> Pod | None:
    addresses = _list(document, "addresses") if isinstance(document, dict) else []
    if not addresses:
        odd.append("an endpoint without address")
        return None
    address = _address(addresses[0], family)
    if address is None:
        odd.append(f"{str(addresses[0])[:80]!r} is no {family} address")
        return None
    conditions = document.get("conditions")
    conditions = conditions if isinstance(conditions, dict) else {}
    leaving = conditions.get("terminating") is True
    ready = conditions.get("ready") is not False
    serving = ready if conditions.get("serving") is None else conditions["serving"] is True
    zone = document.get("zone")
    zone = sys.intern(zone) if isinstance(zone, str) and zone.isprintable() and len(zone) <= LONGEST_ZONE else ""
    return Pod(address, zone, ready and not leaving, leaving and serving)


def _address(text: Any, family: str) -> str | None:
    try:
        if family == "FQDN":
            return read_host(text.removesuffix(".")) if isinstance(text, str) else None
        found = ip_address(text) if isinstance(text, str) else None
    except (ValueError, BadValue):
        return None
    return str(found) if found is not None and f"IPv{found.version}" == family else None


def _ports(document: dict[str, Any]) -> Mapping[str, int] | None:
    listed = _list(document, "ports")
    if not listed:
        return None
    found: dict[str, int] = {}
    for each in listed:
        if not isinstance(each, dict) or each.get("protocol") not in (None, "TCP"):
            continue
        name, port = each.get("name"), each.get("port")
        if isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536:
            found[name if isinstance(name, str) else ""] = port
    return found


def _list(document: dict[str, Any], key: str) -> list[Any]:
    found = document.get(key)
    return found if isinstance(found, list) else []


def _text(document: Any, key: str) -> str:
    found = document.get(key) if isinstance(document, dict) else None
    return found if isinstance(found, str) else ""


def merge(slices: Iterable[Slice], port: str) -> Merged:
    """The endpoints of all slices, at this port: a number, or the name of one."""
    slices = sorted(slices, key=lambda each: each.name)
    notes = [note for each in slices for note in each.odd]
    if missing := _without(slices, port):
        notes.insert(0, missing)
    zones: dict[tuple[str, int], str] = {}
    for leaving in (False, True):
        for family in _FAMILIES:
            zones = zones or _of([each for each in slices if each.family == family], port, leaving=leaving)
    first = sorted(zones)[:MOST]
    declared = tuple(Declared(Address(host, number), 1, zones[host, number]) for host, number in first)
    return Merged(declared, max(0, len(zones) - MOST), tuple(notes[:MOST_NOTES]))


def _of(slices: Sequence[Slice], port: str, *, leaving: bool) -> dict[tuple[str, int], str]:
    """The zone of each address and port."""
    found: dict[tuple[str, int], str] = {}
    for each in slices:
        number = _port(each, port)
        if number is None:
            continue
        for pod in each.pods:
            if pod.leaving if leaving else pod.ready:
                found.setdefault((pod.address, number), pod.zone)
    return found


def _port(each: Slice, port: str) -> int | None:
    if port.isdigit():
        return int(port) if 0 < int(port) < 65536 else None
    return each.ports.get(port) if each.ports is not None else None


def _without(slices: Sequence[Slice], port: str) -> str:
    """A note, where slices do not have this port."""
    lacking = [each for each in slices if each.pods and _port(each, port) is None]
    if not lacking:
        return ""
    names = sorted({name for each in lacking for name in each.ports or {} if name})
    hint = meant(port, names, what="it has") if names else "its ports have no names: write a number"
    return f'slice {lacking[0].name[:80]} has no TCP port "{port}"; {hint}'

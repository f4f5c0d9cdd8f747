"""The kinds of values that annotations have: how each is read, and what is said to whoever wrote another one."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*\Z")  # RFC 1123
_SERVICE = re.compile(r"(?=.{1,63}\Z)[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?\Z")  # as in `sidecar.config.kinds`
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}\Z", re.ASCII)
_CPU = re.compile(r"(?:[1-9][0-9]{0,5}m|[0-9]{1,4}(?:\.[0-9]{1,3})?)\Z", re.ASCII)
_MEMORY = re.compile(r"[1-9][0-9]{0,11}(?:[KMGT]i|[kMGT])?\Z", re.ASCII)
_DIGITS = re.compile(r"[1-9][0-9]{0,4}\Z", re.ASCII)


class BadValue(ValueError):
    """A text is not of its kind; says what it is not."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value."""

    read: Callable[[str], Any]  # raises BadValue
    how: str  # to write it
    nothing: Any = None  # where nothing is said and there is no default
    words: tuple[str, ...] = ()  # all there are


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise BadValue("is none of the words that are known here")
        return text

    return read


def _switch(text: str) -> bool:
    return _one_of("true", "false")(text) == "true"


def _shaped(shape: re.Pattern[str], what: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not shape.match(text):
            raise BadValue(f"is not {what}")
        return text

    return read


def _port(text: str) -> int:
    if not _DIGITS.match(text) or int(text) > 65535:
        raise BadValue("is not a port")
    return int(text)


def _count(text: str) -> int:
    if not _DIGITS.match(text) or int(text) > 3600:
        raise BadValue("is not a whole number from 1 to 3600")
    return int(text)


def _ports(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_port(item.strip()) for item in text.split(",")))


def _cidrs(text: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for item in text.split(","):
        try:
            network = ipaddress.ip_network(item.strip())
        except ValueError:
            raise BadValue(f"has {item.strip()[:60]!r}, which is not a network") from None
        if network.prefixlen == 0:
            raise BadValue("is everything, so nothing that goes out would be led through the sidecar")
        found[str(network)] = None
    return tuple(found)


KINDS: Final[dict[str, Kind]] = {
    "switch": Kind(_switch, '"true" or "false"', words=("true", "false")),
    "mode": Kind(_one_of("redirect", "explicit"), "`redirect` or `explicit`", words=("redirect", "explicit")),
    "pull": Kind(
        _one_of("Always", "IfNotPresent", "Never"),
        "`Always`, `IfNotPresent` or `Never`",
        words=("Always", "IfNotPresent", "Never"),
    ),
    "service": Kind(_shaped(_SERVICE, "a service name"), "lower-case letters, digits, `_` and `-`"),
    "name": Kind(_shaped(_NAME, "a name in Kubernetes"), "lower-case letters, digits, `-` and `.`"),
    "image": Kind(_shaped(_IMAGE, "the name of an image"), "an image, such as `registry.example.com/mesh:0.1.0`"),
    "cpu": Kind(_shaped(_CPU, "an amount of CPU"), "an amount of CPU, such as `100m` or `0.5`"),
    "memory": Kind(_shaped(_MEMORY, "an amount of memory"), "an amount of memory, such as `128Mi`"),
    "port": Kind(_port, "a port, 1 to 65535"),
    "ports": Kind(_ports, "ports with commas between them", nothing=()),
    "cidrs": Kind(_cidrs, "networks with commas between them, such as `10.0.0.0/8`", nothing=()),
    "count": Kind(_count, "a whole number, 1 to 3600"),
}

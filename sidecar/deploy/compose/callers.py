"""Who calls whom, as far as the file tells: depends_on, links, and environment or commands that name another service.

A name counts where it stands as a host: behind a scheme (`postgres://db/x`), before a port (`orders:8080`), or alone in
a variable whose own name says that a host belongs there (`DB_HOST: db`). `POSTGRES_DB: orders` names no service.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar.deploy.compose.document import lines_of
from sidecar.deploy.compose.ports import SCHEMES, Protocol

_HOST_KEYS: Final = re.compile(
    r"(?:^|_)(?:HOST|HOSTNAME|HOSTS|SERVER|SERVERS|ADDR|ADDRESS|URL|URI|ENDPOINT|BROKER|BROKERS|UPSTREAM|TARGET)\Z",
    re.IGNORECASE,
)
_AROUND: Final = (
    r"(?<![\w.%$-])(?:(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*)://(?:[^\s/@]*@)?)?"
    r"(?P<name>NAMES)(?![\w-]|\.\w)(?::(?P<port>\d{1,5})(?!\d))?"
)
_SCHEME_IN_FRONT: Final = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*)://(?:[^\s/]*[@,])?\Z")
_OUTSIDE: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+]*)://(?:[^\s/@]*@)?(?P<host>[a-z0-9-]+(?:\.[a-z0-9-]+)+)(?::(?P<port>\d{1,5}))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Reference:
    """One place in a service that names another one: the port where it says one, and what the place is called."""

    to: str
    port: int | None
    protocol: Protocol | None
    where: str
    order_only: bool = False  # depends_on: perhaps it only waits for it


def references(
    service: Mapping[str, Any], names: Mapping[str, str], env_files: Mapping[str, str] | None = None
) -> Iterator[Reference]:
    """What this service names. `names` leads from every name that is a host in the project to its service."""
    yield from _depends_on(service)
    for link in service.get("links") or []:
        target = str(link).partition(":")[0]
        yield Reference(target, None, None, "links")
    finder = _finder(names)
    if finder is None:
        return
    for where, key, text in _texts(service, env_files or {}):
        for found in _named(finder, key, text, where):
            yield Reference(names[found.to], found.port, found.protocol, found.where)


def outside(service: Mapping[str, Any], env_files: Mapping[str, str] | None = None) -> set[tuple[str, int]]:
    """Hosts with a dot that URLs in environment and command name: probably outside the project."""
    found = set()
    for _, _, text in _texts(service, env_files or {}):
        for match in _OUTSIDE.finditer(text):
            known = SCHEMES.get(match["scheme"].lower(), (None, "tcp"))
            port = int(match["port"]) if match["port"] else known[0]
            if port and not re.fullmatch(r"[\d.]+", match["host"]):
                found.add((match["host"].lower(), port))
    return found


def env_file_names(service: Mapping[str, Any]) -> list[str]:
    """The paths under `env_file`, short and long form."""
    listed = service.get("env_file") or []
    entries = listed if isinstance(listed, list) else [listed]
    return [str(each.get("path", "")) if isinstance(each, Mapping) else str(each) for each in entries]


def _depends_on(service: Mapping[str, Any]) -> Iterator[Reference]:
    listed = service.get("depends_on") or []
    for name in listed:
        how = listed[name] if isinstance(listed, Mapping) else None
        condition = how.get("condition") if isinstance(how, Mapping) else None
        if condition != "service_completed_successfully":  # a job: waited for, never called
            yield Reference(str(name), None, None, "depends_on", order_only=True)


def _texts(service: Mapping[str, Any], env_files: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Every text that may name a host: what it is called, the variable's name, the text."""
    for key, text in lines_of(service.get("environment")):
        yield f"environment {key}", key, text
    for name in env_file_names(service):
        for line in env_files.get(name, "").splitlines():
            key, equals, text = line.strip().removeprefix("export ").partition("=")
            if equals and not key.startswith("#"):
                yield f"{name} {key}", key, text.strip("\"'")
    for field in ("command", "entrypoint"):
        value = service.get(field)
        for text in value if isinstance(value, list) else [value] if value else []:
            yield field, "", str(text)


def _finder(names: Mapping[str, str]) -> re.Pattern[str] | None:
    longest = sorted(map(re.escape, names), key=len, reverse=True)
    return re.compile(_AROUND.replace("NAMES", "|".join(longest))) if longest else None


def _named(finder: re.Pattern[str], key: str, text: str, where: str) -> Iterator[Reference]:
    alone = bool(key and _HOST_KEYS.search(key))
    for match in finder.finditer(text):
        scheme = match["scheme"]
        if scheme is None:  # the second of `kafka://a:9092,b:9092`, or user:password@ in front
            before = _SCHEME_IN_FRONT.search(text[: match.start()])
            scheme = before["scheme"] if before is not None else None
        if scheme is None and match["port"] is None and not (alone and text.strip() == match["name"]):
            continue
        known = SCHEMES.get((scheme or "").lower().rpartition(":")[2].partition("+")[0])
        port = int(match["port"]) if match["port"] else known[0] if known else None
        if port is not None and not 0 < port < 65536:
            continue
        yield Reference(match["name"], port, known[1] if known else None, where)

"""How long certificates live in a drill: as the CA's entries say where its folder is at hand, else the default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ca.config import ISSUER_TTL
from ca.durations import format_duration
from ca.entries import DEFAULT_TTL, MAX_TTL
from ca.signers import ROOT_TTL
from certs.keys import KEY_KINDS
from sidecar.cli.console import Code, Failure
from sidecar.config.schema import MeshConfig

SHORTEST = 60.0  # seconds, of --ttl
ENTRY, OPTION, DEFAULT = "entry", "--ttl", "default"
_IN_WORDS = {ENTRY: "by its entry", OPTION: "by --ttl", DEFAULT: "the CA's default"}


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Seconds that certificates live: of each service, with where that is from, and of each issuing CA."""

    leaf: Mapping[str, float]
    source: Mapping[str, str]
    issuer: float = ISSUER_TTL
    key_kind: str = KEY_KINDS[0]

    @property
    def longest(self) -> float:
        """The longest of a service."""
        return max(self.leaf.values())

    def as_json(self) -> dict[str, dict[str, float | str]]:
        """As data, by service."""
        return {name: {"seconds": ttl, "source": self.source[name]} for name, ttl in self.leaf.items()}

    def lines(self) -> list[str]:
        """For people: one line for all, or one for each where they differ."""
        if not set(self.source.values()) - {DEFAULT}:
            hint = "--ca-dir takes the entries' own"
            return [f"Certificates live for {format_duration(DEFAULT_TTL)}: {_IN_WORDS[DEFAULT]}; {hint}."]
        if not set(self.source.values()) - {OPTION}:
            return [f"Certificates live for {format_duration(self.longest)}, {_IN_WORDS[OPTION]}."]
        lives = {name: format_duration(ttl) for name, ttl in self.leaf.items()}
        return [f"{name}: certificates live for {life}, {self._why(name)}" for name, life in lives.items()]

    def _why(self, name: str) -> str:
        return "the CA's default: it has no entry" if self.source[name] == DEFAULT else _IN_WORDS[self.source[name]]


def find_lifetimes(config: MeshConfig, ttl: float | None, ca_dir: Path | None) -> Lifetimes:
    """The lifetimes of this mesh's services. Raises Failure for options that cannot be, or a CA of another mesh."""
    if ca_dir is not None:
        if ttl is not None:
            hint = "--ca-dir takes each entry's own lifetime."
            raise Failure("--ttl and --ca-dir exclude each other.", hint, Code.USAGE)
        return _of_entries(config, ca_dir)
    if ttl is not None and not SHORTEST <= ttl <= MAX_TTL:
        raise Failure("--ttl has to be between a minute and 7 days.", "Entries have 24h by default.", Code.USAGE)
    wanted, source = (DEFAULT_TTL, DEFAULT) if ttl is None else (ttl, OPTION)
    return Lifetimes(dict.fromkeys(config.services, wanted), dict.fromkeys(config.services, source))


def _of_entries(config: MeshConfig, ca_dir: Path) -> Lifetimes:
    """As the CA in this folder would issue now; where several entries give one identity, the shortest counts."""
    from ca.cli_common import opened
    from ca.errors import NoCa
    from ca.roots import life_of

    try:
        with opened(ca_dir) as (settings, store):
            entries, slots = store.entries(), store.slots()
    except NoCa as error:
        raise Failure(str(error), "Name the CA's folder with --ca-dir, on its own machine.", Code.USAGE) from None
    if settings.trust_domain != config.trust_domain:
        message = f"{ca_dir} holds the CA of {settings.trust_domain}, and this file is of {config.trust_domain}."
        raise Failure(message, "Name the folder of this mesh's CA.", Code.USAGE)
    leaf, source = {}, {}
    for name, service in config.services.items():
        found = [entry.ttl for entry in entries if entry.spiffe_id == service.identity]
        leaf[name], source[name] = min(found, default=DEFAULT_TTL), ENTRY if found else DEFAULT
    issuers = [life_of(slot) for slot in slots if (slot.kind, slot.state) == ("issuer", "active")]
    issuer = min((one.ends - one.made for one in issuers), default=settings.issuer_ttl)  # one that another PKI signed
    return Lifetimes(leaf, source, min(issuer, ROOT_TTL), settings.key_kind)

"""A rotation of the root rehearsed: every pair that will meet on the way, by real TLS handshakes, and nothing changes.

The old side is our own: the active issuing CA and its root. The new side is a shadow: a root and an issuing CA of the
same make, or those that the operator's own PKI signed, in memory alone. In each phase callers and called have what they
may have then, one the old and the other the new; each pair shakes hands in both roles, with the contexts and the
verifier that sidecars use. Pairs that must fail are tried as well: they are why a phase waits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from cryptography import x509
from OpenSSL import SSL

from ca.entries import DEFAULT_TTL
from ca.rotation import Phase
from ca.signers import ISSUER_TTL, Issuer, make_issuer, make_root
from ca.template import SERIAL_BYTES, draw_up, sign
from certs.bundle import BundleSet, TrustBundle
from certs.errors import InvalidSvid, UntrustedSvid
from certs.keys import make_key, new_key
from certs.spiffe import SpiffeId, TrustDomain, workload_id
from certs.svid import X509Svid
from certs.verify import verify_chain
from sidecar.net.contexts import make_context, verify_failure

READ_BYTES = 64 * 1024
MAX_TURNS = 8  # flights of a handshake of TLS 1.3 with certificates on both sides: three, and the tickets


@dataclass(frozen=True, slots=True)
class Side:
    """One end of a handshake: under which root its certificate is, and which roots are in its bundle."""

    leaf: str
    bundle: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.leaf} certificate, trusts {' and '.join(self.bundle)}"


@dataclass(frozen=True, slots=True)
class Trial:
    """One handshake of the rehearsal."""

    phase: Phase
    client: Side
    server: Side
    expected: bool
    failure: str = ""
    """Why there was no handshake; empty where there was one."""

    @property
    def ok(self) -> bool:
        """Whether it went as it must."""
        return self.expected == (not self.failure)

    def as_json(self) -> dict[str, Any]:
        """For `-o json`."""
        return {**asdict(self), "ok": self.ok}


OLD, BOTH, NEW = ("old",), ("old", "new"), ("new",)
# In each phase, who may meet whom: the certificates there are, and the bundles.
MEETINGS: tuple[tuple[Phase, tuple[str, ...], tuple[tuple[str, ...], ...]], ...] = (
    ("announced", ("old",), (OLD, BOTH)),
    ("switched", ("old", "new"), (BOTH,)),
    ("withdrawn", ("new",), (BOTH, NEW)),
)
# What must fail: to switch before the bundle is everywhere, and to withdraw while somebody holds an old certificate.
MUST_FAIL: tuple[tuple[Phase, Side, Side], ...] = (
    ("announced", Side("new", BOTH), Side("old", OLD)),
    ("announced", Side("old", OLD), Side("new", BOTH)),
    ("withdrawn", Side("old", BOTH), Side("new", NEW)),
    ("withdrawn", Side("new", NEW), Side("old", BOTH)),
)


def pairs() -> Iterator[tuple[Phase, Side, Side, bool]]:
    """Every pair that is tried, in both roles, and whether it has to work."""
    for phase, leaves, bundles in MEETINGS:
        sides = [Side(leaf, bundle) for leaf in leaves for bundle in bundles]
        yield from ((phase, client, server, True) for client in sides for server in sides)
    yield from ((phase, client, server, False) for phase, client, server in MUST_FAIL)


def shadow(trust_domain: TrustDomain, kind: str, now: float, root_ttl: float) -> Issuer:
    """A root and an issuing CA as `--go` would make them, which nobody will ever see."""
    root_key, key = make_key(kind), make_key(kind)
    root = make_root(trust_domain, root_key, now, root_ttl)
    return Issuer(make_issuer(trust_domain, key, root, root_key, now, min(ISSUER_TTL, root_ttl)), key, root)


def rehearse(trust_domain: TrustDomain, old: Issuer, new: Issuer, now: float) -> tuple[Trial, ...]:
    """Try every pair; nothing of it is recorded or kept. Raises IssuerUnusable where one of the two cannot sign now."""
    stage = _Stage(trust_domain, {"old": old, "new": new}, now)
    return tuple(
        Trial(phase, client, server, expected, stage.trial(client, server))
        for phase, client, server, expected in pairs()
    )


class _Stage:
    """Certificates and contexts for the trials."""

    def __init__(self, trust_domain: TrustDomain, issuers: dict[str, Issuer], now: float) -> None:
        self._trust_domain = trust_domain
        self._now = now
        self._roots = {name: issuer.root for name, issuer in issuers.items()}
        self._svids = {
            (name, role): _a_leaf(workload_id(trust_domain, "default", f"rehearsal-{role}"), issuer, now)
            for name, issuer in issuers.items()
            for role in ("client", "server")
        }

    def trial(self, client: Side, server: Side) -> str:
        """One handshake, with the judgement of both ends after it; why it failed, or nothing."""
        ends = (self._end(client, "client"), self._end(server, "server"))
        failure = shake(*ends)
        if failure:
            return failure
        for side, end, name in ((client, ends[0], "client"), (server, ends[1], "server")):
            bundle = TrustBundle(self._trust_domain, self._trusted(side))
            try:
                verify_chain(peer_chain(end), BundleSet((bundle,)), self._now)
            except (InvalidSvid, UntrustedSvid) as error:
                return f"{name}: {error}"
        return ""

    def _end(self, side: Side, role: str) -> SSL.Connection:
        server = role == "server"
        svid = self._svids[side.leaf, role]
        context = make_context(svid, self._trusted(side), server=server, verify="require", now=self._now)
        connection = SSL.Connection(context, None)
        if server:
            connection.set_accept_state()
        else:
            connection.set_connect_state()
        return connection

    def _trusted(self, side: Side) -> tuple[x509.Certificate, ...]:
        return tuple(self._roots[name] for name in side.bundle)


def _a_leaf(spiffe_id: SpiffeId, issuer: Issuer, now: float) -> X509Svid:
    key = new_key()
    template = draw_up(spiffe_id, (), DEFAULT_TTL, key.public_key(), issuer.signers, now, os.urandom(SERIAL_BYTES))
    leaf = sign(template, issuer.certificate, issuer.key)
    return X509Svid(spiffe_id, leaf, (leaf, *issuer.signers[:-1]), key)


def shake(client: SSL.Connection, server: SSL.Connection) -> str:
    """Carry bytes between two ends in memory until both are done; why they are not, or nothing."""
    done: set[str] = set()
    for _ in range(MAX_TURNS):
        for name, end, other in (("client", client, server), ("server", server, client)):
            try:
                end.do_handshake()
                done.add(name)
            except SSL.WantReadError:
                pass
            except SSL.Error:
                failure = verify_failure(end)
                return f"{name}: {'the handshake failed' if failure is None else _words(failure.number)}"
            _carry(end, other)
        if done == {"client", "server"}:
            return ""
    return "the handshake did not end"


def _carry(end: SSL.Connection, other: SSL.Connection) -> None:
    try:
        other.bio_write(end.bio_read(READ_BYTES))
    except SSL.WantReadError:
        pass  # it had nothing to say


def peer_chain(end: SSL.Connection) -> list[x509.Certificate]:
    """What the other end showed, leaf first; OpenSSL leaves the leaf out of the list where that is a client."""
    chain = end.get_peer_cert_chain(as_cryptography=True) or []
    leaf = end.get_peer_certificate(as_cryptography=True)
    return chain if leaf is None or leaf in chain[:1] else [leaf, *chain]


def _words(number: int) -> str:
    known = {9: "the certificate it is shown is not yet valid", 10: "the certificate it is shown has expired"}
    known |= dict.fromkeys((19, 20), "the root is not in its bundle")
    return known.get(number, f"OpenSSL refuses the certificate it is shown ({number})")

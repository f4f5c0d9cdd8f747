"""Signed heads of the log, and the judgement of the whole log against them.

The chain (`ca.chain`) shows that no line was changed or dropped *unless all that follow were written anew*. A
checkpoint makes that impossible without a key: the issuing CA of the day signs number and hash of the last line, every
few seconds while something happens and once at the end of serving. Whoever can write the file, yet not sign, can then
at most cut the log back and take the checkpoints above the cut with it. Against that helps a head that is kept
elsewhere: `mesh ca log head`, or `GET /v1/log/head` asked by a machine that the CA's operators do not own.

Signers change with the schedule. A checkpoint names its signer by the SHA-256 of the certificate; that certificate has
to be in the store, to have been valid at the time, and to lead to a root of ours. There is no key for the log alone: it
would be one more thing to rotate, to back up and to trust, and whoever has the issuing CA's key can forge identities,
beside which forging their record is nothing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509

from ca.chain import Head, Line, hash_of
from ca.errors import DamagedCa, LogBroken
from ca.roots import certificate_of, chain_of
from ca.signers import Issuer
from ca.store.base import Checkpoint, Slot, Store
from certs.bundle import BundleSet, TrustBundle, root_hash
from certs.errors import IdentityError, InvalidSvid, UntrustedSvid
from certs.signed import InvalidStatement, Statement, is_signed, parse_payload
from certs.spiffe import TrustDomain
from certs.verify import verify_signer

KIND = "log-head"
PAGE = 2000  # lines read at a time
MAX_FINDINGS = 20


def sign_head(head: Head, trust_domain: TrustDomain, issuer: Issuer, now: float) -> Checkpoint:
    """This head of the log, signed by the issuing CA."""
    said = {"trust_domain": trust_domain.name, "number": head.number, "hash": head.hash, "at": now}
    statement = Statement.sign(KIND, json.dumps(said, separators=(",", ":")).encode(), issuer.key, ())
    document = {
        "payload": statement.payload.decode(),
        "signature": base64.b64encode(statement.signature).decode(),
        "by": root_hash(issuer.certificate),
    }
    return Checkpoint(head.number, now, json.dumps(document, separators=(",", ":")))


def checkpoint_if_due(store: Store, trust_domain: TrustDomain, issuer: Issuer, now: float) -> Checkpoint | None:
    """Sign the log's head, unless the newest checkpoint is of this head already. Blocks on disk."""
    head, last = store.head(), store.last_checkpoint()
    if head.number == 0 or (last is not None and last.number >= head.number):
        return None
    checkpoint = sign_head(head, trust_domain, issuer, now)
    store.add_checkpoint(checkpoint)
    return checkpoint


def export_head(store: Store) -> Statement | None:
    """The newest signed head with its signer's chain, for keeping elsewhere. Raises DamagedCa."""
    last = store.last_checkpoint()
    if last is None:
        return None
    document, slots = json.loads(last.document), {slot.sha256: slot for slot in store.slots()}
    if document["by"] not in slots:
        raise DamagedCa("the newest checkpoint names a signer that the store does not have")
    slot = slots[document["by"]]
    signer = (certificate_of(slot), *chain_of(slot))
    return Statement(document["payload"].encode(), base64.b64decode(document["signature"]), signer)


def read_head(
    statement: Statement, trust_domain: TrustDomain, roots: tuple[x509.Certificate, ...]
) -> tuple[Head, float]:
    """A head that was kept elsewhere, and when it was signed, vouched for by one of these roots.

    Raises InvalidStatement.
    """
    said = parse_payload(statement.payload)
    try:
        head, at, domain = Head(int(said["number"]), str(said["hash"])), float(said["at"]), said["trust_domain"]
    except (KeyError, TypeError, ValueError):
        raise InvalidStatement("malformed", "the file is not a signed head of a log") from None
    if domain != trust_domain.name:
        raise InvalidStatement("wrong_trust_domain", f"the head is of the log of {domain}, not of {trust_domain}")
    statement.open(KIND, trust_domain, BundleSet((TrustBundle(trust_domain, roots),)), at)
    return head, at


@dataclass(slots=True)
class Report:
    """What a look at the whole log found. `signed_to` is the last line under a good checkpoint."""

    head: Head = field(default_factory=Head)
    checkpoints: int = 0
    signed_to: int = 0
    findings: list[str] = field(default_factory=list)
    roots: tuple[str, ...] = ()
    """SHA-256 of the roots that the checkpoints lead to: compare them with what you know to be yours."""

    def as_json(self) -> dict[str, Any]:
        """For `-o json`."""
        return {
            "ok": not self.findings,
            "lines": self.head.number,
            "head": self.head.hash,
            "checkpoints": self.checkpoints,
            "signed_to": self.signed_to,
            "root_sha256": list(self.roots),
            "findings": self.findings,
        }

    def check(self) -> None:
        """Raises LogBroken with the findings, if there are any."""
        if self.findings:
            raise LogBroken("; ".join(self.findings))


def verify_log(store: Store, trust_domain: TrustDomain, kept: Statement | None = None) -> Report:
    """Walk the whole log: each line, each checkpoint, and what the tables say now against what the log says happened.

    `kept` is a head from elsewhere. Reads everything (about 10 µs a line) and raises only StoreUnavailable.
    """
    report = Report()
    _Walk(store, trust_domain, report, kept).run()
    return report


class _Walk:
    def __init__(self, store: Store, trust_domain: TrustDomain, report: Report, kept: Statement | None) -> None:
        self.store, self.trust_domain, self.report = store, trust_domain, report
        slots = store.slots()
        self.slots = {slot.sha256: slot for slot in slots}
        roots = tuple(certificate_of(slot) for slot in slots if slot.kind == "root")
        self.bundles = BundleSet((TrustBundle(trust_domain, roots),))
        self.signers: dict[str, x509.Certificate | None] = {}
        self.kept = self._read_kept(kept, roots)
        self.replay = _Replay()
        report.roots = tuple(root_hash(root) for root in roots)

    def run(self) -> None:
        """The walk, oldest line first."""
        checkpoints = self._checkpoints()
        waiting, last_good = next(checkpoints, None), 0
        for line in self._lines():
            self._follow(line)
            if self.kept is not None and self.kept.number == line.number and self.kept.hash != line.hash:
                self._find(f"line {line.number} is not the one of the head that was kept elsewhere")
            while waiting is not None and waiting.number <= line.number:
                if self._holds(waiting, line, last_good):
                    last_good = waiting.number
                waiting = next(checkpoints, None)
        end = self.report.head.number
        while waiting is not None:
            self._find(f"lines {end + 1} to {waiting.number} were cut off: a checkpoint names line {waiting.number}")
            waiting = next(checkpoints, None)
        if self.kept is not None and self.kept.number > end:
            self._find(f"lines {end + 1} to {self.kept.number} were cut off: the head that was kept names the last")
        self.report.signed_to = last_good
        for difference in self.replay.differences(self.store):
            self._find(difference)

    def _follow(self, line: Line) -> None:
        before = self.report.head
        if line.number != before.number + 1:
            gap = f"{before.number + 1} to {line.number - 1}" if line.number > before.number + 2 else before.number + 1
            self._find(f"line {gap} was dropped")
        elif hash_of(before.hash, line.text) != line.hash:
            self._find(f"line {line.number} was changed: it does not have the hash that the chain gives it")
        try:
            facts = line.facts
            if facts["n"] != line.number:
                self._find(f"line {line.number} says that it is line {facts['n']}")
            self.replay.take(facts)
        except (ValueError, KeyError, TypeError):
            self._find(f"line {line.number} cannot be read")
        self.report.head = line.head

    def _holds(self, checkpoint: Checkpoint, line: Line, last_good: int) -> bool:
        """Whether this checkpoint is good, and of this line."""
        self.report.checkpoints += 1
        where = f"checkpoint {checkpoint.number}"
        try:
            document = json.loads(checkpoint.document)
            payload, signature = str(document["payload"]).encode(), base64.b64decode(document["signature"])
            said, signer = parse_payload(payload), self._signer(str(document["by"]), float(checkpoint.at))
            if signer is None or not is_signed(KIND, payload, signature, signer.public_key()):
                self._find(f"{where} has no good signature of an issuing CA")
                return False
            if (said["number"], said["at"], said["trust_domain"]) != (
                checkpoint.number, checkpoint.at, self.trust_domain.name,
            ):  # fmt: skip
                self._find(f"{where} says something else than its row")
                return False
        except (ValueError, KeyError, TypeError, IdentityError):
            self._find(f"{where} cannot be read")
            return False
        if checkpoint.number != line.number:
            return False  # the line is missing, which has been said
        if said["hash"] != line.hash:
            self._find(f"a line from {last_good + 1} to {line.number} was changed, and those after it written anew")
            return False
        return True

    def _signer(self, sha256: str, at: float) -> x509.Certificate | None:
        """The certificate of this signer, if it was valid at that moment under a root of ours."""
        if sha256 not in self.signers:
            self.signers[sha256] = self._judge_signer(self.slots.get(sha256), at)
        found = self.signers[sha256]
        if found is None or not found.not_valid_before_utc.timestamp() <= at <= found.not_valid_after_utc.timestamp():
            return None
        return found

    def _judge_signer(self, slot: Slot | None, at: float) -> x509.Certificate | None:
        if slot is None or slot.kind != "issuer":
            return None
        certificate = certificate_of(slot)
        try:
            verify_signer((certificate, *chain_of(slot)), self.trust_domain, self.bundles, at)
        except (InvalidSvid, UntrustedSvid):
            return None
        return certificate

    def _read_kept(self, kept: Statement | None, roots: tuple[x509.Certificate, ...]) -> Head | None:
        if kept is None:
            return None
        try:
            return read_head(kept, self.trust_domain, roots)[0]
        except InvalidStatement as error:
            self._find(f"the head that was kept elsewhere does not hold: {error}")
            return None

    def _find(self, what: str) -> None:
        if len(self.report.findings) < MAX_FINDINGS:
            self.report.findings.append(what)

    def _lines(self) -> Iterator[Line]:
        after = 0
        while page := self.store.lines(after, PAGE):
            yield from page
            after = page[-1].number

    def _checkpoints(self) -> Iterator[Checkpoint]:
        after = 0
        while page := self.store.checkpoints(after, PAGE):
            yield from page
            after = page[-1].number


class _Replay:
    """What the log says the tables should say: states of signing keys, live entries, revocations."""

    def __init__(self) -> None:
        self.slots: dict[str, str] = {}
        self.jwt_keys: dict[str, str] = {}
        self.clusters: set[str] = set()
        self.entries: set[str] = set()
        self.revoked: set[tuple[str, str]] = set()

    def take(self, facts: dict[str, Any]) -> None:
        """One more line."""
        match facts["kind"]:
            case "slot":
                self.slots[facts["slot"]] = facts["state"]
            case "jwt_key":
                self.jwt_keys[facts["kid"]] = facts["state"]
            case "cluster_added":
                self.clusters.add(facts["cluster"])
            case "cluster_removed":
                self.clusters.discard(facts["cluster"])
            case "entry_added":
                self.entries.add(facts["entry"])
            case "entry_removed":
                self.entries.discard(facts["entry"])
            case "revoked":
                self.revoked.add((facts["by"], facts["target"]))
            case "unrevoked":
                self.revoked.discard((facts["by"], facts["target"]))

    def differences(self, store: Store) -> Iterator[str]:
        """Where a table says something that the log does not."""
        slots = {slot.sha256: str(slot.state) for slot in store.slots()}
        jwt_keys = {key.kid: str(key.state) for key in store.jwt_keys()}
        for found, known in ((slots, self.slots), (jwt_keys, self.jwt_keys)):
            for name in sorted({*found, *known}):
                said, logged = found.get(name, "missing"), known.get(name, "unknown")
                if said != logged:
                    yield f"signing key {name[:16]} is {said} in its table and {logged} in the log"
        clusters = {cluster.name for cluster in store.clusters()}
        for name in sorted(clusters ^ self.clusters):
            yield f"cluster {name} {'is there, yet was never added' if name in clusters else 'is gone without a line'}"
        entries = {entry.id for entry in store.entries()}
        for entry in sorted(entries ^ self.entries):
            yield f"entry {entry} {'lives, yet was never added' if entry in entries else 'is gone without a line'}"
        revoked = {(one.kind, one.target) for one in store.revocations(0.0)}
        for kind, target in sorted(revoked ^ self.revoked):
            table = "is" if (kind, target) in revoked else "is not"
            yield f"{target} {table} revoked in its table, and the log says otherwise"

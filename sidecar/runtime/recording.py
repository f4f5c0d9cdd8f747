"""What the audit needs beside its lines: heads that the CA witnesses, our certificate's fate, and the exports."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from certs.bundle import BundleSet, root_hash
from certs.denylist import Denylist
from certs.errors import MeshError
from certs.svid import X509Svid
from sidecar.identity.status import IdentityStatus
from sidecar.telemetry import redact
from sidecar.telemetry.clock import rfc3339

if TYPE_CHECKING:
    from certs.signed import Statement
    from sidecar.config.diff import Change
    from sidecar.config.schema_audit import Audit, AuditExport
    from sidecar.runtime.worker import Worker
    from sidecar.telemetry.export.deliver import Exporter

WITNESS_SECONDS: Final = 60.0
FIRST_SECONDS: Final = 1.0  # after the identity
MAX_WAITING: Final = 60  # heads; later ones vouch for all before them, so of an hour's heads the oldest may go
MAX_AT_ONCE: Final = 20  # in one request; `ca.witness` takes no more
LAST_SECONDS: Final = 2.0
UNWITNESSED_ALARM: Final = 900.0  # seconds
_MOST_CHANGES: Final = 32  # of a configuration, in one line
_MOST_MISTAKES: Final = 8  # of a configuration that was refused, in one line


class Recording:
    """The tasks of one worker's audit."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._waiting: deque[Statement] = deque(maxlen=MAX_WAITING)
        self._signed = 0  # number of the last head that was signed
        self._witnessed = 0
        self._witnessed_at = worker.clock.wall()
        self._problem = ""
        self._denied = -1  # sequence of the last denylist that was told
        self._trusted: dict[str, list[str]] = {}  # SHA-256 of the roots that were told, by trust domain
        self._expired = ""  # serial of a certificate whose end was told
        self._exports: dict[AuditExport, tuple[Exporter, trio.CancelScope]] = {}
        self._nursery: trio.Nursery | None = None  # of the exporters, while we run
        self._refused: dict[str, str] = {}  # why what concerns our identity was refused last, by kind
        worker.svids.subscribe(self._certificate)
        worker.bundles.subscribe(self._bundle)
        worker.denylists.subscribe(self._denylist)
        worker.identity_status.subscribe(self._status)
        worker.recorder.metrics.before_scrape(lambda _: self.show())

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._look_at_exports(self._worker.service.audit)
            await self._worker.svids.wait_past(0)
            await trio.sleep(FIRST_SECONDS)  # what an earlier life left, which may have been killed, does not wait
            while True:
                await self.witness()
                await trio.sleep(WITNESS_SECONDS)
                self._look_at_certificate()

    def use(self, spec: Audit) -> None:
        """From now on keep the audit, and send it, as this says; all but its path."""
        self._worker.recorder.use_audit(spec)
        self._look_at_exports(spec)

    async def witness(self) -> None:
        """Sign the end of the audit where it has moved, and send what waits to the CA. Never raises a MeshError."""
        worker, audit = self._worker, self._worker.recorder.audit
        if audit is None or worker.witness is None or not worker.svids.number:
            return
        head = await trio.to_thread.run_sync(audit.chain.secured)
        if head is not None and head.number > self._signed:
            from certs.audit_heads import AuditHead

            svid, now = worker.svids.current, worker.clock.wall()
            if svid.not_after > now:
                self._waiting.append(AuditHead(svid.spiffe_id, head.chain, head.number, head.hash, now).sign(svid))
                self._signed = head.number
        if not self._waiting:
            self._witnessed_at = worker.clock.wall()  # nothing has happened that could be witnessed
            return
        try:
            while self._waiting:
                taken = await worker.witness(tuple(islice(self._waiting, MAX_AT_ONCE)))
                for _ in range(taken):
                    self._waiting.popleft()
                if not taken:
                    break
            self._witnessed, self._problem = self._signed, ""
            self._witnessed_at = worker.clock.wall()
        except MeshError as error:
            if str(error) != self._problem:
                worker.log.warning("the end of the audit is not witnessed; it waits", problem=str(error))
            self._problem = str(error)

    async def finish(self) -> None:
        """Have the end of the audit witnessed once more, within two seconds."""
        with trio.move_on_after(LAST_SECONDS):
            await self.witness()

    def to_json(self) -> dict[str, Any]:
        """For `mesh status`."""
        audit = self._worker.recorder.audit
        head = audit.chain.written if audit is not None else None
        age = self._age()
        alarms = [
            f"audit to {each.spec.target}: {each.problem or 'nearly full'}"
            for each in self._exporters if each.problem or each.feed.full >= 0.8
        ]  # fmt: skip
        if age > UNWITNESSED_ALARM:
            alarms.append(f"the audit was not witnessed for {age:.0f} s: {self._problem}")
        return {
            "chain": head.chain if head is not None else "", "lines": head.number if head is not None else 0,
            "witnessed_to": self._witnessed, "witnessed_age_seconds": round(age, 1), "problem": self._problem,
            "heads_waiting": len(self._waiting), "lost": audit.lost if audit is not None else 0,
            "exports": [each.to_json() for each in self._exporters], "alarms": alarms,
        }  # fmt: skip

    def show(self) -> None:
        """Put the figures where Prometheus sees them."""
        metrics = self._worker.recorder.metrics
        if self._worker.witness is not None:
            metrics.counter("mesh_audit_unwitnessed_seconds").set(self._age())
        for each in self._exporters:
            each.show()

    def _age(self) -> float:
        """Seconds since all that the record then had was witnessed; 0 where nobody is there to witness."""
        if self._worker.witness is None:
            return 0.0
        return max(0.0, self._worker.clock.wall() - self._witnessed_at)

    @property
    def _exporters(self) -> list[Exporter]:
        return [exporter for exporter, _ in self._exports.values()]

    def _look_at_exports(self, spec: Audit) -> None:
        """End the exports that are not asked for any more, and begin those that are new."""
        if self._nursery is None:
            return
        wanted = spec.export if spec.path != "-" else ()
        for gone in self._exports.keys() - set(wanted):
            exporter, scope = self._exports.pop(gone)
            scope.cancel()
            exporter.end()
        for each in wanted:
            if each not in self._exports:
                exporter, scope = self._exporter(spec, each), trio.CancelScope()
                self._exports[each] = exporter, scope
                self._nursery.start_soon(_run_in, scope, exporter.run)

    def _exporter(self, spec: Audit, each: AuditExport) -> Exporter:
        from sidecar.telemetry.export.deliver import Exporter, cursor_name
        from sidecar.telemetry.export.feed import Feed
        from sidecar.telemetry.setup import AUDIT_FILE

        worker = self._worker
        path = Path(spec.path) if spec.path else worker.state_dir / AUDIT_FILE
        feed = Feed(path, worker.state_dir / cursor_name(each), each.backlog)
        metrics = worker.recorder.metrics
        return Exporter(each, feed, version=worker.version, log=worker.log, metrics=metrics, dice=random.random)

    # ---- what becomes of our certificate ---------------------------------------------------------------------------

    def _certificate(self, svid: X509Svid) -> None:
        what = "issued" if self._worker.svids.number <= 1 else "renewed"
        self._tell("certificate", {"what": what, **_of(svid)})

    def _bundle(self, bundles: BundleSet) -> None:
        trusted = {one.trust_domain.name: sorted(map(root_hash, one.roots)) for one in bundles}
        for domain in sorted(trusted.keys() | self._trusted.keys()):
            if trusted.get(domain) != self._trusted.get(domain):
                self._tell("bundle", {"trust_domain": domain, "roots": trusted.get(domain, [])})
        self._trusted = trusted

    def _status(self, status: IdentityStatus) -> None:
        """What the CA, or whoever has our identity, did not give us, or what it gave and we do not believe."""
        for kind, what, why in (
            ("certificate", "not_renewed", status.last_error), ("bundle", "refused", status.bundle_error),
            ("denylist", "refused", status.denylist_error),
        ):  # fmt: skip
            if why and why != self._refused.get(kind):
                self._tell(kind, {"what": what, "reason": redact.text(why, 256)})
            self._refused[kind] = why

    def _denylist(self, denylist: Denylist) -> None:
        if denylist.sequence == self._denied:
            return  # it is signed anew every ten minutes
        self._denied = denylist.sequence
        count = len(denylist.serials) + len(denylist.spiffe_ids) + len(denylist.issuers)
        self._tell("denylist", {"sequence": denylist.sequence, "denied": count})
        if self._worker.svids.number:
            svid = self._worker.svids.current
            if denylist.denies_chain(svid.spiffe_id, svid.chain) is not None:
                self._tell("certificate", {"what": "revoked", **_of(svid)})

    def config(self, generation: int, changes: Sequence[Change]) -> None:
        """Another configuration is in force."""
        self._tell("config", {"generation": generation, "changes": [str(one) for one in changes[:_MOST_CHANGES]]})

    def config_refused(self, mistakes: tuple[str, ...]) -> None:
        """A configuration was not put in force, for these reasons."""
        first = [redact.text(each, 256) for each in mistakes[:_MOST_MISTAKES]]
        self._tell("config_refused", {"count": len(mistakes), "mistakes": first})

    def admin(self, action: str, status: int, uid: int, pid: int) -> None:
        """Somebody on this machine has asked for something on the admin socket, or was refused there."""
        self._tell("admin", {"action": action, "status": status, "uid": uid, "pid": pid})

    def workload_api(self, action: str, status: int, uid: int, pid: int) -> None:
        """Somebody on this machine has asked for our identity, or was refused it."""
        self._tell("workload_api", {"action": action, "status": status, "uid": uid, "pid": pid})

    def drain(self, why: str) -> None:
        """The end begins."""
        self._tell("drain", {"why": why})

    def _look_at_certificate(self) -> None:
        if not self._worker.svids.number:
            return
        svid = self._worker.svids.current
        if svid.not_after <= self._worker.clock.wall() and self._expired != svid.serial:
            self._expired = svid.serial
            self._tell("certificate", {"what": "expired", **_of(svid)})

    def _tell(self, kind: str, values: dict[str, Any]) -> None:
        if self._worker.recorder.audit is not None:
            self._worker.recorder.audit.event(kind, values)


async def _run_in(scope: trio.CancelScope, run: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await run()


def _of(svid: X509Svid) -> dict[str, Any]:
    return {"serial": svid.serial, "not_after": rfc3339(svid.not_after)}

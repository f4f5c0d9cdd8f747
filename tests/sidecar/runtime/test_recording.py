"""What a worker's audit does beside writing: heads that wait for the CA, and what became of the certificate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from certs.audit_heads import open_head
from certs.bundle import BundleSet
from certs.denylist import Denylist
from certs.signed import Statement
from certs.source import Source
from certs.svid import X509Svid
from sidecar.config.schema_audit import Audit as Config
from sidecar.config.schema_audit import AuditExport
from sidecar.identity.errors import CaUnreachable
from sidecar.identity.status import IdentityStatus
from sidecar.runtime.recording import MAX_AT_ONCE, MAX_WAITING, Recording
from sidecar.telemetry.audit import Audit
from sidecar.telemetry.export import deliver
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import Metrics
from tests.kit.identities import a_bundle_set, a_root, an_issuer, an_svid
from tests.sidecar.telemetry.test_writer import eventually


class Stage:
    """A worker as far as its recording sees it, with a CA that can be away."""

    def __init__(self, folder: Path) -> None:
        self.now, self.away, self.heads = 0.0, False, []
        root = a_root()
        self.svid, self.trusted = an_svid(an_issuer(root)), a_bundle_set(root)
        self.now = self.svid.not_before + 10
        self.svids: Source[X509Svid] = Source("SVID")
        self.bundles: Source[BundleSet] = Source("trust bundle")
        self.denylists: Source[Denylist] = Source("denylist")
        self.identity_status: Source[IdentityStatus] = Source("identity status")
        self.clock = SimpleNamespace(wall=lambda: self.now)
        self.path = folder / "audit.jsonl"
        audit = Audit(Config(), str(self.path), instance="0a1b2c3d", service=str(self.svid.spiffe_id), wall=lambda: 0.0)
        self.recorder = SimpleNamespace(audit=audit, metrics=Metrics(), use_audit=audit.use)
        self.log, self.state_dir, self.version = Log(), folder, "1"
        self.recording = Recording(self)  # type: ignore[arg-type]
        self.svids.publish(self.svid)

    async def witness(self, heads: Sequence[Statement]) -> int:
        if self.away:
            raise CaUnreachable("the CA is away")
        assert len(heads) <= MAX_AT_ONCE
        self.heads += [open_head(head, self.trusted) for head in heads]
        return len(heads)

    def write(self, lines: int) -> None:
        audit = self.recorder.audit
        for number in range(lines):
            audit.event("admin", {"number": number})
        eventually(lambda: audit.waiting_bytes == 0)

    def look(self, minutes: int = 1) -> None:
        for _ in range(minutes):
            self.now += 60
            trio.run(self.recording.witness)

    def lines(self, *kinds: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line for line in found if line["kind"] in kinds]

    def told(self) -> dict[str, Any]:
        return self.recording.to_json()


@pytest.fixture
def stage(tmp_path: Path) -> Any:
    stage = Stage(tmp_path)
    yield stage
    stage.recorder.audit.close(0.0)


def test_the_end_is_witnessed_where_there_was_something_new(stage):
    stage.write(3)
    stage.look(3)
    (head,) = stage.heads
    assert (head.service, head.number) == (stage.svid.spiffe_id, 5), "start, certificate and three more"
    stage.write(1)
    stage.look()
    assert [each.number for each in stage.heads] == [5, 6]
    assert stage.told() | {"chain": ""} == {
        "chain": "", "lines": 6, "witnessed_to": 6, "witnessed_age_seconds": 0.0, "problem": "", "heads_waiting": 0,
        "lost": 0, "exports": [], "alarms": [],
    }  # fmt: skip


def test_ends_wait_while_the_ca_is_away_and_catch_up(stage):
    stage.away = True
    for _ in range(20):
        stage.write(1)
        stage.look()
    told = stage.told()
    assert (told["heads_waiting"], told["witnessed_to"], told["problem"]) == (20, 0, "the CA is away")
    assert "not witnessed for 1200 s" in told["alarms"][0]
    stage.away = False
    stage.look()
    assert [each.number for each in stage.heads] == list(range(3, 23)), "each with the time at which it was signed"
    assert stage.heads[-1].at - stage.heads[0].at == 19 * 60
    assert stage.told()["alarms"] == []


def test_of_too_many_ends_the_oldest_go(stage):
    stage.away = True
    for _ in range(MAX_WAITING + 5):
        stage.write(1)
        stage.look()
    stage.away = False
    stage.look()
    assert len(stage.heads) == MAX_WAITING
    assert stage.heads[-1].number == MAX_WAITING + 7, "the last vouches for all before it"


def test_a_certificate_that_has_ended_signs_nothing_and_is_told_once(stage):
    stage.write(1)
    stage.now = stage.svid.not_after
    stage.look(2)
    stage.recording._look_at_certificate()
    stage.recording._look_at_certificate()
    stage.write(0)
    assert stage.heads == []
    found = [json.loads(line) for line in stage.path.read_text().splitlines()]
    assert [line["what"] for line in found if line["kind"] == "certificate"] == ["issued", "expired"]


def test_renewals_and_denials_are_told(stage):
    domain = stage.svid.spiffe_id.trust_domain
    stage.svids.publish(stage.svid)
    stage.denylists.publish(Denylist(domain, 1, 0.0))
    stage.denylists.publish(Denylist(domain, 1, 600.0))
    stage.denylists.publish(Denylist(domain, 2, 700.0, spiffe_ids=frozenset((stage.svid.spiffe_id,))))
    stage.write(0)
    found = [json.loads(line) for line in stage.path.read_text().splitlines()]
    told = [(line["kind"], line.get("what"), line.get("denied")) for line in found[1:]]
    assert told == [
        ("certificate", "issued", None), ("certificate", "renewed", None), ("denylist", None, 0), ("denylist", None, 1),
        ("certificate", "revoked", None),
    ]  # fmt: skip


def test_roots_that_come_and_go_are_told(stage):
    other = a_root("other.mesh")
    for trusted in (stage.trusted, stage.trusted, BundleSet((*stage.trusted, *a_bundle_set(other))), stage.trusted):
        stage.bundles.publish(trusted)
    stage.write(0)
    told = [(line["trust_domain"], len(line["roots"])) for line in stage.lines("bundle")]
    assert told == [("demo.mesh", 1), ("other.mesh", 1), ("other.mesh", 0)]


def test_what_we_were_not_given_or_did_not_believe_is_told_once(stage):
    name = str(stage.svid.spiffe_id)
    for status in (
        IdentityStatus(name, last_error="the CA refused: entry_gone"),
        IdentityStatus(name, last_error="the CA refused: entry_gone", denylist_error="an old one came"),
        IdentityStatus(name, bundle_error="its sequence goes down"),
        IdentityStatus(name, last_error="the CA refused: entry_gone"),
    ):
        stage.identity_status.publish(status)
    stage.write(0)
    told = [(line["kind"], line["what"]) for line in stage.lines("certificate", "denylist", "bundle")]
    assert told == [
        ("certificate", "issued"), ("certificate", "not_renewed"), ("denylist", "refused"), ("bundle", "refused"),
        ("certificate", "not_renewed"),
    ]  # fmt: skip


def test_who_asks_for_our_identity_is_told(stage):
    stage.recording.workload_api("FetchX509SVID", 200, 1000, 7)
    stage.recording.workload_api("connect", 403, 1001, 8)
    stage.write(0)
    told = [(line["action"], line["status"], line["uid"]) for line in stage.lines("workload_api")]
    assert told == [("FetchX509SVID", 200, 1000), ("connect", 403, 1001)]


def test_exports_come_go_and_change_while_we_run(stage, monkeypatch, tmp_path):
    monkeypatch.setattr(deliver, "POLL_SECONDS", 0.01)
    one, two = (AuditExport("ocsf", path=str(tmp_path / name)) for name in ("one", "two"))
    told = lambda: [(each["to"], each["problem"]) for each in stage.told()["exports"]]  # noqa: E731 - short

    def events(name: str) -> int:
        path = tmp_path / name
        return len(path.read_bytes().splitlines()) if path.exists() else 0

    async def until(name: str, count: int) -> None:
        with trio.fail_after(20):
            while events(name) < count:
                await trio.sleep(0.01)

    async def story() -> None:
        stage.service = SimpleNamespace(audit=Config(export=(one,)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.recording.run)
            await until("one", 2)
            stage.recording.use(Config(export=(one, two), permits="each"))
            await until("two", 2)
            assert told() == [(str(tmp_path / "one"), ""), (str(tmp_path / "two"), "")]
            stage.recording.use(Config(export=(two,)))
            await trio.to_thread.run_sync(stage.write, 3)
            await until("two", 5)
            assert told() == [(str(tmp_path / "two"), "")]
            stage.recording.use(Config(export=(one, replace(two, backlog=1 << 20))))
            await until("one", 5)  # it goes on where it was
            await trio.to_thread.run_sync(stage.write, 1)
            await until("two", 6)
            nursery.cancel_scope.cancel()

    trio.run(story)
    assert (events("one") in (5, 6), events("two")) == (True, 6), "nothing comes twice"


def test_a_configuration_that_was_refused_is_a_line(tmp_path):
    stage = Stage(tmp_path)
    stage.recording.config_refused(tuple(f"mesh.yaml:{row}:1: unknown key" for row in range(1, 12)))
    stage.recorder.audit.close(0.0)
    lines = [json.loads(line) for line in stage.path.read_text().splitlines()]
    (line,) = [line for line in lines if line["kind"] == "config_refused"]
    assert (line["count"], len(line["mistakes"])) == (11, 8)
    assert line["mistakes"][0] == "mesh.yaml:1:1: unknown key"

"""The CA as a witness: what it takes into its log, what it refuses, and the file that carries it elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import trio
from click.testing import CliRunner

from ca.checkpoints import verify_log
from ca.witness import BURST, export, witnessed
from certs.audit_heads import AuditHead, WitnessFile
from certs.signed import InvalidStatement, Statement
from certs.spiffe import SpiffeId
from certs.svid import X509Svid
from sidecar.cli.audit import audit
from sidecar.telemetry.chain import Chain
from tests.ca.desk import Desk, at_the_desk
from tests.ca.office import DEMO

LINES = 6


def record(desk: Desk, name: str = "audit.jsonl") -> AuditHead:
    """An audit of some lines, and its head."""
    path = desk.folder / name
    chain = Chain(str(path))
    path.write_bytes(b"".join(chain.seal([b'{"v":1,"kind":"admin","number":%d}\n' % one for one in range(LINES)])))
    with path.open("ab") as file:
        chain.done(file.fileno())
    assert chain.written is not None
    return AuditHead(orders(), chain.written.chain, chain.written.number, chain.written.hash, desk.clock.now)


def orders() -> SpiffeId:
    return SpiffeId.parse(f"spiffe://{DEMO}/ns/default/sa/orders")


async def post(desk: Desk, *heads: Statement, svid: X509Svid | None) -> tuple[int, dict]:
    answer = await desk.post("/v1/audit/heads", {"heads": [head.to_json() for head in heads]}, svid)
    return answer.status, answer.json()


async def exported(desk: Desk) -> dict:
    issuer = desk.server.authority.issuer
    store = desk.server.store.store
    made = await trio.to_thread.run_sync(export, store, DEMO, issuer, None, desk.clock.now)
    return made.to_json()


@at_the_desk
async def test_a_head_is_in_the_log_and_the_log_holds(desk):
    svid = await desk.svid(desk.entry())
    head = record(desk)
    assert (await post(desk, head.sign(svid), svid=svid))[0] == 200
    later = replace(head, number=head.number + 1, at=head.at + 60)
    assert (await post(desk, later.sign(svid), svid=svid))[1]["witnessed"] == 1
    found = list(witnessed(desk.server.store.store))
    assert [each.at for each in found] == [desk.clock.now] * 2
    assert found[0].statement.signer[0] == svid.leaf, "the second line names it only by its hash"
    assert found[1].statement.signer == svid.chain
    assert verify_log(desk.server.store.store, DEMO).findings == []


@at_the_desk
async def test_a_head_without_certificate_of_somebody_else_or_changed_is_refused(desk):
    svid = await desk.svid(desk.entry())
    other = await desk.svid(desk.entry("web"))
    head = record(desk)
    good = head.sign(svid)
    assert (await post(desk, good, svid=None))[0] == 401
    assert (await post(desk, good, svid=other))[0] == 403, "of another service than the one that sends it"
    assert (await post(desk, head.sign(other), svid=other))[0] == 400, "signed by another than it names"
    assert (await post(desk, replace(good, payload=good.payload.replace(b'"n":6', b'"n":7')), svid=svid))[0] == 400
    unnamed = good.payload.replace(b'"service":"', b'"service":7,"x":"')
    nobody = Statement.sign("audit-head", unnamed, svid.key, svid.chain)
    assert (await post(desk, nobody, svid=svid))[0] == 400
    assert (await post(desk, replace(head, at=head.at + 900).sign(svid), svid=svid))[0] == 400, "not of the future"
    for bad in ({}, {"heads": []}, {"heads": [good.to_json()] * 21}, {"heads": [7]}, b"[", {"heads": {"n": 1}}):
        assert (await desk.post("/v1/audit/heads", bad, svid)).status == 400
    assert list(witnessed(desk.server.store.store)) == []


@at_the_desk
async def test_a_service_has_so_many_heads_witnessed_and_no_more(desk):
    svid, other = await desk.svid(desk.entry()), await desk.svid(desk.entry("web"))
    head = record(desk).sign(svid)
    assert sum([(await post(desk, *[head] * 20, svid=svid))[1]["witnessed"] for _ in range(3)]) == BURST
    status, answer = await post(desk, head, svid=svid)
    assert (status, answer["error"]) == (429, "too_many_issuances")
    theirs = replace(record(desk, "other"), service=other.spiffe_id).sign(other)
    assert (await post(desk, theirs, svid=other))[0] == 200, "others have their own"


@at_the_desk
async def test_a_head_is_verified_long_after_its_certificate_has_ended(desk):
    svid = await desk.svid(desk.entry())
    head = record(desk)
    assert (await post(desk, head.sign(svid), svid=svid))[0] == 200
    desk.clock.now += 5 * 24 * 3600
    assert desk.clock.now > svid.not_after
    document = await exported(desk)
    read = WitnessFile.read(document)
    assert [each.number for each, _ in read.heads] == [LINES]
    (desk.folder / "heads").write_text(json.dumps(document))
    await trio.to_thread.run_sync(_verify_by_command, desk, read.roots[0])


def _verify_by_command(desk: Desk, root: str) -> None:
    path, heads = desk.folder / "audit.jsonl", str(desk.folder / "heads")

    def run(*arguments: str) -> tuple[int, dict]:
        result = CliRunner().invoke(audit, ["verify", str(path), *arguments, "-o", "json"], standalone_mode=False)
        return result.return_value, json.loads(result.stdout) if result.stdout else {}

    code, said = run("--witness", heads, "--root", root)
    assert (code, said["ok"], said["chains"][0]["only_chained"]) == (0, True, 0)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    assert run()[0] == 0, "by its chain alone a cut does not show"
    code, said = run("--witness", heads)
    assert (code, "cut off" in said["findings"][0]) == (1, True)
    assert CliRunner().invoke(audit, ["verify", str(path), "--witness", heads, "--root", "ab"]).exit_code == 1


@at_the_desk
async def test_a_file_of_heads_that_was_touched_is_not_believed(desk):
    svid = await desk.svid(desk.entry())
    assert (await post(desk, record(desk).sign(svid), svid=svid))[0] == 200
    document = await exported(desk)
    whole = Statement.parse(document)
    for changed in (
        replace(whole, payload=whole.payload.replace(b'"line":', b'"line":1', 1)),
        replace(whole, signer=svid.chain), replace(whole, signature=b"x" * 70),
    ):  # fmt: skip
        with pytest.raises(InvalidStatement):
            WitnessFile.read(changed.to_json())
    for bad in ({}, [], {"payload": "", "signature": "", "signer": []}):
        with pytest.raises(InvalidStatement):
            WitnessFile.read(bad)

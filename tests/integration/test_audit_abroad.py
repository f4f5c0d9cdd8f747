"""The audit of real sidecars in front of rsyslog over TLS, which is killed; and before the CA, which witnesses it."""

from __future__ import annotations

import http.client
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from tests.kit.fleet import TRUST_DOMAIN, Fleet, spiffe
from tests.kit.free_ports import Ports, free_port
from tests.kit.processes import Process, eventually
from tests.kit.programs import curl, echo_app
from tests.kit.tools import need

pytestmark = pytest.mark.integration

TEXT = """\
trust_domain: {domain}
ca: {{address: "127.0.0.1:{p.ca}"}}
services:
  web:
    outbound: [{{to: orders, listen: "127.0.0.1:{p.web}"}}]
    health: {{listen: "127.0.0.1:{p.web_health}"}}
  orders:
    inbound: [{{name: http, port: {p.inbound}, bind: 127.0.0.1, app: "127.0.0.1:{p.app}"}}]
    allow: [{{name: web-reads, from: web, method: GET}}]
    health: {{listen: "127.0.0.1:{p.health}"}}
    audit:
      export:
        - {{kind: syslog, address: "127.0.0.1:{syslog}", roots: {folder}/roots.pem}}
        - {{kind: ocsf, path: {folder}/ocsf.jsonl}}
"""
# Without queues in its memory: when rsyslog has read the end of a connection it has written all that went before.
RSYSLOG = """\
main_queue(queue.type="Direct")
global(workDirectory="{folder}" maxMessageSize="64k" defaultNetstreamDriver="gtls"
       defaultNetstreamDriverCAFile="{folder}/roots.pem"
       defaultNetstreamDriverCertFile="{folder}/receiver.crt" defaultNetstreamDriverKeyFile="{folder}/receiver.key")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
template(name="whole" type="string" string="%rawmsg%\\n")
input(type="imtcp" port="{port}" address="127.0.0.1")
action(type="omfile" file="{folder}/received" template="whole")
"""


class Shop(Fleet):
    """`web` may read from `orders`, whose audit goes to rsyslog."""

    def __init__(self, folder: Path) -> None:
        self.ports, self.syslog, self.folder = Ports(), free_port(), folder
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "roots.pem"))
        leaf = authority.issue_cert("127.0.0.1")
        leaf.private_key_pem.write_to_path(str(folder / "receiver.key"))
        leaf.cert_chain_pems[0].write_to_path(str(folder / "receiver.crt"))
        (folder / "rsyslog.conf").write_text(RSYSLOG.format(folder=folder, port=self.syslog))
        super().__init__(
            folder, TEXT.format(domain=TRUST_DOMAIN, p=self.ports, syslog=self.syslog, folder=folder)
        )

    @contextmanager
    def receiver(self) -> Iterator[Process]:
        """rsyslog, which is killed at the end."""
        command = [need("rsyslogd"), "-n", "-f", f"{self.folder}/rsyslog.conf", "-i", f"{self.folder}/rsyslog.pid"]
        process = Process("rsyslog", command, self.folder / "rsyslog.log")
        try:
            yield process
        finally:
            process.signal(signal.SIGKILL)
            eventually("the end of rsyslog", lambda: process.code is not None)

    @property
    def of_ca(self) -> tuple[str, ...]:
        """Where the CA is, for its commands."""
        return "--dir", str(self.folder / "ca"), "--passphrase-file", str(self.folder / "passphrase")

    def refused(self, times: int) -> None:
        """So many requests that no rule allows."""
        for _ in range(times):
            url = f"http://127.0.0.1:{self.ports.web}/orders/7"
            done = curl("-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "DELETE", "-H", "Host: orders", url)
            assert done.text == "403"

    @contextmanager
    def under_load(self) -> Iterator[None]:
        """Somebody is refused without end, some hundred times a second."""
        over = threading.Event()

        def ask() -> None:
            line = http.client.HTTPConnection("127.0.0.1", self.ports.web, timeout=20)
            while not over.wait(0.002):
                try:
                    line.request("DELETE", "/orders/7", headers={"Host": "orders"})
                    line.getresponse().read()
                except (OSError, http.client.HTTPException):
                    line.close()  # orders was killed, or web has not found it again yet
            line.close()

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def written(self) -> set[str]:
        """The ids of all events in the audit."""
        return {f"{line['chain']}-{line['n']}" for line in self["orders"].audit()}

    def arrived(self) -> set[str]:
        """The ids of all whole events that rsyslog has written."""
        path = self.folder / "received"
        found = set()
        for line in path.read_bytes().splitlines() if path.exists() else ():
            body = line.partition(b"\xef\xbb\xbf")[2] or line[line.find(b"{") :]
            if body.endswith(b"}"):
                event = json.loads(body)
                found.add(f"{event['chain']}-{event['n']}")
        return found


def test_a_receiver_that_is_killed_misses_nothing_and_a_cut_is_found(tmp_path: Path) -> None:
    need("rsyslogd")
    with Shop(tmp_path) as mesh, echo_app(tmp_path, mesh.ports.app):
        mesh.start_all()
        with mesh.receiver():
            mesh.refused(20)
            now = mesh.written()
            eventually("the events at rsyslog", lambda: now <= mesh.arrived(), seconds=60)
        mesh.refused(20)
        with mesh.receiver():
            eventually("all events at rsyslog", lambda: mesh.written() <= mesh.arrived(), seconds=60)
        orders = mesh["orders"].status()
        assert [each["dropped"] for each in orders["audit"]["exports"]] == [0, 0]
        refusals = [line for line in mesh["orders"].audit() if line["kind"] == "refusal"]
        assert len(refusals) == 40
        assert {(line["caller"], line["error"]) for line in refusals} == {(spiffe("web"), "policy_denied")}
        kinds = {line["kind"] for line in mesh["orders"].audit()}
        assert {"start", "certificate", "handshake", "refusal"} <= kinds
        mesh["orders"].stop()
        _verified(mesh, tmp_path)


def test_receiver_and_sidecar_are_killed_under_load_and_no_event_is_missing(tmp_path: Path) -> None:
    need("rsyslogd")
    with Shop(tmp_path) as mesh, echo_app(tmp_path, mesh.ports.app):
        orders = mesh.start_all()["orders"]
        with mesh.under_load():
            for _ in range(5):
                with mesh.receiver():
                    before = len(mesh.arrived())
                    eventually("events at rsyslog", lambda before=before: len(mesh.arrived()) > before + 50, seconds=60)
                before = len(mesh.written())
                eventually("more events", lambda before=before: len(mesh.written()) > before + 50)
            orders.process.signal(signal.SIGKILL)
            eventually("the end of orders", lambda: orders.process.code is not None)
        left = len(mesh.written())
        orders.start()
        eventually("a witness of what was left", lambda: orders.status()["audit"]["witnessed_to"] > left, seconds=30)
        with mesh.receiver():
            eventually("all events at rsyslog", lambda: mesh.written() <= mesh.arrived(), seconds=60)
        assert left > 500
        assert [each["dropped"] for each in orders.status()["audit"]["exports"]] == [0, 0]
        document = _heads(mesh, tmp_path)
        done = mesh.mesh("audit", "verify", str(orders.state / "audit.jsonl"), "--witness", str(document), "-o", "json")
        report = json.loads(done.stdout)
        assert report["ok"], report
        assert report["chains"][0]["witnessed_to"] > left
        assert len(report["chains"]) == 1, "the sidecar went on where the one that was killed has ended"


def _heads(mesh: Shop, folder: Path) -> Path:
    document = folder / "heads.json"
    mesh.mesh("ca", "log", "audits", "--out", str(document), *mesh.of_ca)
    return document


def _verified(mesh: Shop, folder: Path) -> None:
    """The CA has witnessed the end when the sidecar stopped."""
    audit = mesh["orders"].state / "audit.jsonl"
    heads = _heads(mesh, folder)
    done = mesh.mesh("audit", "verify", str(audit), "--witness", str(heads), "-o", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    (chain,) = json.loads(done.stdout)["chains"]
    assert chain["witnessed_to"] > 40
    lines = audit.read_bytes().splitlines(keepends=True)
    audit.write_bytes(b"".join(lines[: chain["witnessed_to"] - 1]))
    assert mesh.mesh("audit", "verify", str(audit)).returncode == 0, "by its chain alone a cut does not show"
    assert mesh.mesh("audit", "verify", str(audit), "--witness", str(heads)).returncode == 1

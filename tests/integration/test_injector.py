"""The webhook as a process: a certificate of the mesh, `caBundle` by which it is believed, and what it is asked."""

from __future__ import annotations

import base64
import http.client
import json
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from ca.bootstrap import enrolment_file, prepare
from ca.entries import NewEntry
from certs.spiffe import SpiffeId, TrustDomain
from sidecar.deploy.kube.patch import apply
from sidecar.deploy.kube.pod import inject
from sidecar.deploy.kube.webhook_metrics import RESULTS
from tests.kit.fake_webhooks import DNS_NAME, NAME, FakeWebhooks, ToWebhook
from tests.kit.fleet import MESH
from tests.kit.free_ports import free_port
from tests.kit.pods import a_pod
from tests.kit.processes import Process, eventually
from tests.sidecar.deploy.kube.test_review import a_review

pytestmark = pytest.mark.integration
WHO = SpiffeId.parse("spiffe://shop.example/ns/mesh-system/sa/mesh-injector")
TTL = 20.0  # seconds; renewal comes at half of it


class Scene:
    """A CA, an API server and an injector, each of which may be there or not."""

    def __init__(self, folder: Path, api: FakeWebhooks) -> None:
        self.folder, self.api = folder, api
        self.ca_port, self.port, self.health = free_port(), free_port(), free_port()
        self.running: list[Process] = []
        self.connections: list[ToWebhook] = []

    def make_ca(self, *dns_names: str) -> None:
        secret = self.folder / "passphrase"
        secret.touch(mode=0o600)
        secret.write_text("a passphrase of the tests")
        entries = [NewEntry(WHO, dns_names, TTL)]
        domain = TrustDomain.parse("shop.example")
        prepare(self.folder / "ca", domain, secret.read_bytes(), entries, f"127.0.0.1:{self.ca_port}")

    def start_ca(self) -> None:
        where = ["--dir", str(self.folder / "ca"), "--passphrase-file", str(self.folder / "passphrase")]
        self.start("ca", "ca", "serve", *where, "--listen", f"127.0.0.1:{self.ca_port}")

    def start_injector(self, *more: str) -> Process:
        token, authority = self.api.files(self.folder)
        return self.start(
            "injector", "injector", "--enrolment", str(enrolment_file(self.folder / "ca", WHO)), "--state",
            str(self.folder / "state"), "--dns-name", DNS_NAME, "--api", f"https://localhost:{self.api.port}",
            "--token-file", str(token), "--ca-file", str(authority), "--host", "127.0.0.1", "--port", str(self.port),
            "--health-port", str(self.health), "--lame-duck", "300ms", *more,
        )  # fmt: skip

    def start(self, name: str, *arguments: str) -> Process:
        process = Process(name, [*MESH, *arguments], self.folder / f"{name}.log")
        self.running.append(process)
        return process

    def readiness(self, path: str = "/readyz") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.health, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def webhook(self, name: str = DNS_NAME) -> ToWebhook:
        self.connections.append(ToWebhook(self.port, self.api.ca_bundle, name))
        return self.connections[-1]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with FakeWebhooks() as api:
        made = Scene(tmp_path, api)
        yield made
        for connection in made.connections:
            connection.close()
        for process in made.running:
            process.stop()


def test_pods_get_their_sidecar_from_a_webhook_that_is_believed_and_its_certificate_is_renewed(scene):
    scene.make_ca(DNS_NAME)
    injector = scene.start_injector("--set", "memory-limit=512Mi")
    injector.until("alive without its CA", lambda: scene.readiness()[0] == 503)
    assert "no certificate yet" in scene.readiness()[1]
    assert "mesh_injector_certificate_expires_at_seconds 0.0\n" in scene.readiness("/metrics")[1]
    with pytest.raises((ssl.SSLError, OSError)):  # there is nothing that it could show
        ToWebhook(scene.port, scene.api.authority.cert_pem.bytes().decode()).ask(b"{}")
    scene.start_ca()
    injector.until("ready", lambda: scene.readiness()[0] == 200)
    with pytest.raises(ssl.SSLCertVerificationError):
        scene.webhook("somebody-else.mesh-system.svc").ask(b"{}")

    connection = scene.webhook()
    pod = a_pod()
    status, document = connection.ask(json.dumps(a_review(pod)).encode())
    assert status == 200
    made = apply(a_pod(), json.loads(base64.b64decode(document["response"]["patch"])))
    assert made == inject(pod, {"memory-limit": "512Mi"}).pod
    assert document["response"]["uid"] == "705ab4f5"
    status, document = connection.ask(json.dumps(a_review(a_pod(hostNetwork=True))).encode())
    assert (status, document["response"]["allowed"]) == (200, False)
    certificate = connection.sock.getpeercert()
    first = certificate["serialNumber"]
    assert connection.ask(b"{}")[0] == 400
    assert scene.readiness("/healthz") == (200, "ready\n")
    told = dict(line.rsplit(" ", 1) for line in scene.readiness("/metrics")[1].splitlines() if line[0] != "#")
    counts = {name: told[f'mesh_injector_reviews_total{{result="{name}"}}'] for name in RESULTS}
    assert counts == {
        "injected": "1.0", "left_alone": "0.0", "refused": "1.0", "not_understood": "1.0", "unavailable": "0.0"
    }  # fmt: skip
    assert told["mesh_injector_review_seconds_count"] == "3.0"
    assert told["mesh_injector_ready"] == told["mesh_injector_ca_bundle_current"] == "1.0"
    ends = ssl.cert_time_to_seconds(certificate["notAfter"])
    assert 0 <= float(told["mesh_injector_certificate_expires_at_seconds"]) - ends < TTL, "or the next one's"

    def another() -> bool:
        fresh = scene.webhook()
        fresh.connect()
        serial = fresh.sock.getpeercert()["serialNumber"]
        fresh.close()
        return bool(serial != first)

    eventually("another certificate", another, TTL)
    assert scene.readiness()[0] == 200

    injector.signal(signal.SIGTERM)
    injector.until("ending", lambda: "ending" in scene.readiness()[1] or injector.code is not None)
    assert injector.wait() == 0


def test_what_is_no_question_gets_a_clear_answer_each(scene):
    scene.make_ca(DNS_NAME)
    scene.start_ca()
    scene.start_injector().until("ready", lambda: scene.readiness()[0] == 200)
    good = json.dumps(a_review(a_pod())).encode()
    for body, options, status, why in [
        (b"{", {}, 400, "is not JSON"),
        (b"{}", {}, 400, "is no AdmissionReview"),
        (good, {"kind": "text/plain"}, 415, "application/json"),
        (good, {"kind": None}, 415, "application/json"),
        (good, {"path": "/"}, 404, "POST /inject"),
        (b"", {"method": "GET"}, 405, "POST /inject"),
        (good.replace(b"admission.k8s.io/v1", b"admission.k8s.io/v1beta1"), {}, 400, "admissionReviewVersions"),
        (good.replace(b'"uid"', b'"udi"'), {}, 400, "has no uid"),
    ]:
        answer = scene.webhook().ask(body, **options)
        assert (answer[0], why in answer[1]["detail"]) == (status, True), answer
    assert scene.webhook().ask(good, kind="application/json; charset=utf-8")[0] == 200
    huge = scene.webhook()
    huge.putrequest("POST", "/inject")
    huge.putheader("content-type", "application/json")
    huge.putheader("content-length", str(64 * 1024 * 1024))
    huge.endheaders(b"{")
    assert huge.getresponse().status == 413


def test_a_certificate_without_the_name_of_the_service_is_not_shown(scene):
    scene.make_ca()
    scene.start_ca()
    injector = scene.start_injector("--configuration", "")
    injector.until("told why", lambda: "does not say" in scene.readiness()[1])
    status, why = scene.readiness()
    assert status == 503
    assert f"does not say {DNS_NAME}: give the entry" in why
    assert "mesh ca entry add" in why


def test_it_is_not_ready_while_the_api_server_does_not_know_its_roots(scene):
    scene.api.configuration = None
    scene.make_ca(DNS_NAME)
    scene.start_ca()
    injector = scene.start_injector()
    injector.until("told why", lambda: "404" in scene.readiness()[1])
    assert f"there is no MutatingWebhookConfiguration {NAME} (404): apply our manifests" in scene.readiness()[1]

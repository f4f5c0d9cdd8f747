"""A whole mesh at work, watched by somebody who knows all of its private keys and looks for them in all it writes.

The keys are learnt by a `sitecustomize` of the test's own: whatever makes a private key in one of the processes writes
it to a file that is not searched. So the keys that live in memory alone are known as well.
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from certs.enrolment import EnrolmentKey
from certs.keys import load_key
from sidecar.admin import client
from tests.kit.meshes import Pair
from tests.kit.programs import echo_app
from tests.kit.secrets import spellings

SPY = '''
import os
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives import serialization as s
def note(key):
    pem = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    for place in os.environ["KEYS_GO_TO"].split(":"):
        try:
            with open(place, "ab") as file:
                file.write(pem)
            break
        except OSError:
            pass
    return key
make_ec = ec.generate_private_key
ec.generate_private_key = lambda *rest, **more: note(make_ec(*rest, **more))
'''
PASSPHRASE = "a passphrase of the tests"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("secrets")
    spy = tmp_path_factory.mktemp("spy")
    (spy / "sitecustomize.py").write_text(SPY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{spy}:{Path(__file__).resolve().parents[2]}")
        patch.setenv("KEYS_GO_TO", f"{folder}/ca/spied:{folder}/spied")
        pair = Pair(folder, defaults="{audit: {permits: each}}", allow="[{name: web-may, from: web, path: /open/**}]")
        with echo_app(folder, pair.ports.app), pair:
            use_a_token(pair)
            pair.start_all()
            yield pair


def use_a_token(pair: Pair) -> None:
    """Have `web` enrol by join token, so that its sidecar makes an enrolment key of its own."""
    made = pair.mesh("ca", "token", "web", "--dir", str(pair.folder / "ca"), "--out", str(pair.folder / "web.token"))
    assert made.returncode == 0, made.stderr
    pair.enrolment = lambda service: (  # type: ignore[method-assign]
        pair.folder / "web.token" if service == "web" else Pair.enrolment(pair, service)
    )


def known_secrets(pair: Pair) -> dict[str, bytes]:
    """Every secret of this mesh, by what it is, each in all its spellings."""
    secrets: dict[str, list[bytes]] = {"the passphrase": [PASSPHRASE.encode()]}
    for path in (pair.folder / "ca").rglob("*.pem"):
        if b"PRIVATE KEY" in path.read_bytes():
            secrets[path.name] = spellings(load_key(path, PASSPHRASE.encode()))
    pems = b"".join(path.read_bytes() for path in pair.folder.rglob("spied")).split(b"-----BEGIN")[1:]
    for number, pem in enumerate(pems):
        secrets[f"key {number} made by a process"] = spellings(load_pem_private_key(b"-----BEGIN" + pem, None))
    kept = pair.folder.rglob("*.enrolment-key.json")
    for path in (*(pair.folder / "ca").rglob("*.json"), *kept, pair.folder / "web.token"):
        document = json.loads(path.read_bytes())
        if "enrolment_key" in document:
            raw = EnrolmentKey(base64.b64decode(document["enrolment_key"])).private_bytes
            secrets[f"enrolment key of {path.name}"] = spellings(raw)
        if "join_token" in document:
            secrets[f"token of {path.name}"] = [document["join_token"].encode()]
    assert len(secrets) >= 8, sorted(secrets)  # passphrase, root, issuer, the CA's, two SVIDs twice, two proofs
    return {f"{name}, spelling {number}": each for name, found in secrets.items() for number, each in enumerate(found)}


def searched(pair: Pair) -> Iterator[tuple[str, bytes]]:
    """Every file that the mesh wrote, but those whose very purpose is to hold a secret."""
    for path in pair.folder.rglob("*"):
        holds = path.name in ("spied", "passphrase", "web.token") or path.name.endswith(".enrolment-key.json")
        if path.is_file() and not holds and path.parent.name != "enrolment":
            yield str(path.relative_to(pair.folder)), path.read_bytes()


def said(pair: Pair) -> Iterator[tuple[str, bytes]]:
    """Every answer of the admin API and every look that the command line offers."""
    decision = ""
    for path in ("/open/1", "/shut/1?token=t0psecret"):
        connection = http.client.HTTPConnection("127.0.0.1", pair.ports.door, timeout=10)
        connection.request("GET", path, headers={"Host": "app", "Authorization": "Bearer t0psecret"})
        response = connection.getresponse()
        body = response.read()
        yield f"the answer to {path}", b"\n".join(f"{n}: {v}".encode() for n, v in response.getheaders()) + body
        if response.status == 403:
            decision = str(json.loads(body).get("decision") or response.getheader("mesh-decision") or "")
        connection.close()
    pair["web"].rotate()
    for sidecar in pair.sidecars.values():
        for path in ("/status", "/hops", "/certs", f"/decisions/{decision}", "/nowhere", "/decisions/../certs"):
            yield f"{sidecar.name} {path}", json.dumps(sidecar.admin("GET", path)).encode()
        question = {"from": "web", "method": "GET", "path": "/shut", "host": "app"}
        yield f"{sidecar.name} /explain", json.dumps(client.call(sidecar.socket, "POST", "/explain", question)).encode()
        for probe in ("/metrics", "/readyz"):
            address = sidecar.config.health.listen
            assert address is not None
            connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
            connection.request("GET", probe)
            yield f"{sidecar.name} {probe}", connection.getresponse().read()
            connection.close()
    ca = ("--dir", str(pair.folder / "ca"))
    for words in (
        ("status",), ("status", "-o", "json"), ("certs", "list"), ("certs", "list", "-o", "json"),
        ("certs", "show", "--service", "web"), ("certs", "show", "web"), ("explain", decision or "none"),
        ("ca", "status", *ca, "-o", "json"), ("ca", "log", *ca), ("ca", "entry", "list", *ca, "-o", "json"),
        ("check", "-f", "mesh.yaml"), ("ca", "serve", *ca, "--passphrase-file", "mesh.yaml"),
    ):  # fmt: skip
        done = pair.mesh(*words)
        yield " ".join(words), (done.stdout + done.stderr).encode()


def test_no_key_token_or_passphrase_leaves_a_mesh_at_work(mesh: Pair) -> None:
    answers = list(said(mesh))
    assert sum(len(data) for _, data in answers) > 20_000, "there was something to look through"
    for sidecar in mesh.sidecars.values():
        sidecar.stop()  # what telemetry still held is written
    secrets = known_secrets(mesh)
    leaks = [
        f"{place}: {name}"
        for place, data in (*answers, *searched(mesh))
        for name, secret in secrets.items()
        if secret in data
    ]
    assert not leaks
    marked = [place for place, data in (*answers, *searched(mesh)) if b"PRIVATE KEY-----" in data]
    assert all(b"ENCRYPTED PRIVATE KEY" in (mesh.folder / place).read_bytes() for place in marked), marked
    assert {Path(place).parts[0] for place in marked} <= {"ca"}
    told = [place for place, data in (*answers, *searched(mesh)) if b"t0psecret" in data and "echo" not in place]
    assert [place for place in told if not place.startswith("the answer to /open")] == []


def test_the_search_would_find_them(mesh: Pair) -> None:
    """The same search does find each key in the files whose purpose is to hold it."""
    secrets = known_secrets(mesh)
    held = b"".join(
        path.read_bytes() for path in mesh.folder.rglob("*") if path.name.endswith(".enrolment-key.json")
    ) + (mesh.folder / "web.token").read_bytes() + (mesh.folder / "passphrase").read_bytes()
    assert {name.partition(",")[0] for name, secret in secrets.items() if secret in held} >= {"the passphrase"}
    assert any(name.startswith("enrolment key of") for name, secret in secrets.items() if secret in held)
    assert any(name.startswith("token of") for name, secret in secrets.items() if secret in held)


def test_its_files_are_its_own(mesh: Pair) -> None:
    """Whatever the processes wrote is readable by their user alone."""
    spare = {"mesh.yaml", "logs"}  # the test's own
    open_files = [
        str(path.relative_to(mesh.folder))
        for place in ("ca", "state")
        for path in (mesh.folder / place).rglob("*")
        if path.name not in spare and path.is_file() and path.stat().st_mode & 0o077
    ]
    assert open_files == []

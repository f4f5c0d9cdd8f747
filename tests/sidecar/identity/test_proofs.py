"""Proofs without a secret of ours, and recovery from an end: what the sidecar shows, and when."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from certs.enrolment import Enrolment, EnrolmentKey, InvalidEnrolment, JoinToken, KubernetesToken, Proof, UnixSocket
from certs.errors import PrivateFileUnavailable
from sidecar.identity.enrol import load_token
from sidecar.identity.errors import NoToken
from sidecar.net.http_server import Request, Response
from tests.kit.fake_ca import FakeCa
from tests.sidecar.identity.life import Life


def accepting(ca: FakeCa, shown: list[dict[str, Any]], accepts: Callable[[dict[str, Any]], bool]) -> None:
    """Let the CA issue to whatever proof is accepted, and remember all that was shown."""
    def enrol(request: Request) -> Response:
        document = request.json()
        shown.append(document["proof"])
        if not accepts(document["proof"]):
            return Response.error(401, "proof_refused", "a token for audience x was presented; prod asks for mesh-ca")
        return ca._issue(base64.b64decode(document["csr"]))

    ca.answers["/v1/enrol"] = enrol


def enrolment(ca: FakeCa, proof: Proof) -> Enrolment:
    return dataclasses.replace(ca.enrolment(), proof=proof)


def test_the_token_is_read_anew_at_each_use(with_ca: Any) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        shown: list[dict[str, Any]] = []
        accepting(ca, shown, lambda proof: proof["token"] != "expired")
        file = folder / "token"
        file.write_text("expired\n")
        life = Life(ca, folder / "state", enrolment=enrolment(ca, KubernetesToken(str(file), "prod")))
        await trio.sleep(10)
        assert life.now.consecutive_failures >= 2
        assert "prod asks for mesh-ca" in life.now.last_error, "what the CA said is what the operator reads"
        file.write_text("fresh\n")
        await life.identity()
        assert shown[-1] == {"type": "kubernetes", "token": "fresh", "entry": "web-1", "cluster": "prod"}
        assert not list((folder / "state").glob("*key*")), "nothing is kept but the bundle"

    with_ca(story)


def test_a_token_that_is_not_there_is_named(with_ca: Any) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        life = Life(ca, folder / "state", enrolment=enrolment(ca, KubernetesToken(str(folder / "token"))))
        await trio.sleep(5)
        assert f"{folder}/token cannot be read: No such file" in life.now.last_error
        (folder / "token").write_text("t")
        accepting(ca, [], lambda proof: True)
        await life.identity()

    with_ca(story)


@pytest.mark.parametrize("content", [b"", b"  \n", b"\xff\xfe", b"x" * 20_000])
def test_what_is_no_token_is_not_sent(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(NoToken):
        load_token(str(tmp_path / "token"))


def test_a_caller_on_the_socket_shows_nothing_but_himself(with_ca: Any) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        shown: list[dict[str, Any]] = []
        accepting(ca, shown, lambda proof: True)
        asked: list[str] = []
        dial = ca.dial

        async def remembering(address: str) -> trio.abc.Stream:
            asked.append(address)
            return await dial("ca.test:17012")

        ca.dial = remembering  # type: ignore[method-assign]
        life = Life(ca, folder, enrolment=enrolment(ca, UnixSocket("/run/mesh/ca.sock")))
        await life.identity()
        assert shown == [{"type": "unix", "entry": "web-1"}]
        assert asked[0] == "unix:/run/mesh/ca.sock"
        assert asked[1] == "ca.test:17012", "the watch goes the usual way"

    with_ca(story)


# ---- after the end ---------------------------------------------------------------------------------------------------


def test_a_sidecar_that_slept_recovers_by_its_first_proof(with_ca: Any) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        shown: list[dict[str, Any]] = []
        accepting(ca, shown, lambda proof: True)
        (folder / "token").write_text("t")
        life = Life(ca, folder / "state", enrolment=enrolment(ca, KubernetesToken(str(folder / "token"))))
        first = await life.identity()
        ca.up = False
        ca.break_connections()
        await trio.sleep(first.not_after - life.clock.wall() + 3600)
        assert life.now.consecutive_failures > 5
        ca.up = True
        await trio.sleep(300)
        assert life.svids.current.serial != first.serial
        assert {proof["type"] for proof in shown} == {"kubernetes"}

    with_ca(story)


def test_where_the_first_proof_is_gone_the_old_certificate_is_shown(with_ca: Any) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        shown: list[dict[str, Any]] = []
        accepting(ca, shown, lambda proof: proof["type"] == "expired_svid" or len(shown) == 1)
        (folder / "token").write_text("t")
        life = Life(ca, folder / "state", enrolment=enrolment(ca, KubernetesToken(str(folder / "token"))))
        first = await life.identity()
        ca.up = False
        ca.break_connections()
        await trio.sleep(first.not_after - life.clock.wall() + 3600)
        (folder / "token").unlink()
        ca.up = True
        await trio.sleep(300)
        assert life.svids.current.serial != first.serial
        assert shown[-1]["type"] == "expired_svid"
        assert shown[-1]["chain"] == first.chain_pem().decode()
        assert life.now.last_error == ""

    with_ca(story)


def test_where_neither_is_accepted_both_refusals_are_told(with_ca: Any) -> None:
    async def story(ca: FakeCa, folder: Path) -> None:
        shown: list[dict[str, Any]] = []
        accepting(ca, shown, lambda proof: len(shown) == 1)
        (folder / "token").write_text("t")
        life = Life(ca, folder / "state", enrolment=enrolment(ca, KubernetesToken(str(folder / "token"))))
        first = await life.identity()
        ca.up = False
        ca.break_connections()
        await trio.sleep(first.not_after - life.clock.wall() + 3600)
        ca.up = True
        await trio.sleep(300)
        assert life.svids.current.serial == first.serial
        assert life.now.last_error.count("proof_refused") == 2
        assert {proof["type"] for proof in shown} == {"kubernetes", "expired_svid"}

    with_ca(story)


# ---- the file --------------------------------------------------------------------------------------------------------


def a_file(**changes: Any) -> bytes:
    document = {
        "version": 1, "trust_domain": "demo.mesh", "ca_address": "127.0.0.1:17012", "root_sha256": ["0" * 64],
        "entry": "web-1", "spiffe_id": "spiffe://demo.mesh/ns/default/sa/web",
    }  # fmt: skip
    return json.dumps(document | changes).encode()


@pytest.mark.parametrize(
    "proof", [KubernetesToken("/var/run/secrets/mesh/token"), KubernetesToken("/t", "prod"), UnixSocket("/run/ca.sock")]
)
def test_a_file_without_a_secret_goes_there_and_back_and_may_be_read_by_others(tmp_path: Path, proof: Proof) -> None:
    value = Enrolment.parse(a_file(ca_socket="/x"))
    value = dataclasses.replace(value, proof=proof)
    assert Enrolment.parse(value.to_json()) == value
    path = tmp_path / "web.json"
    value.save(path)
    path.chmod(0o644)
    assert Enrolment.load(path) == value
    path.chmod(0o664)
    with pytest.raises(PrivateFileUnavailable, match="open to others"):
        Enrolment.load(path)


def test_a_file_with_a_secret_may_not(tmp_path: Path) -> None:
    value = dataclasses.replace(Enrolment.parse(a_file(ca_socket="/x")), proof=EnrolmentKey.generate())
    for proof in (value.proof, JoinToken("t" * 20)):
        path = tmp_path / "web.json"
        dataclasses.replace(value, proof=proof).save(path)
        path.chmod(0o644)
        with pytest.raises(PrivateFileUnavailable, match="open to others"):
            Enrolment.load(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "exactly one of"),
        ({"ca_socket": "/x", "kubernetes_token_file": "/y"}, "exactly one of"),
        ({"ca_socket": "x"}, "absolute path"),
        ({"ca_socket": "/x\n"}, "absolute path"),
        ({"kubernetes_token_file": ""}, "absolute path"),
        ({"ca_socket": "/x", "kubernetes_cluster": "prod"}, "goes with"),
        ({"kubernetes_token_file": "/x", "kubernetes_cluster": "a b"}, "entry"),
        ({"kubernetes_token_file": 7}, "must be text"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidEnrolment, match=words):
        Enrolment.parse(a_file(**changes))

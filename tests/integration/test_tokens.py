"""Bearer tokens between real processes: a certified OpenID provider, two sidecars, an application.

Client credentials, keys that are rotated, an outage, and a sidecar that is restarted while it lasts.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from tests.kit.fleet import MESH, Fleet
from tests.kit.free_ports import Ports
from tests.kit.meshes import Pair
from tests.kit.oidc import Mode, Provider
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app
from tests.kit.tokens import ISSUER, Signer, key_set
from tests.kit.workloads import ask

AUDIENCE = "https://orders.example"


class Guarded(Pair):
    """`app` asks for tokens of this provider."""

    def __init__(self, folder: Path, provider: Provider) -> None:
        issuers = f"""
  login: {{issuer: "{provider.issuer}", ca_file: "{provider.ca_file}", audience: "{AUDIENCE}", type: at+jwt,
           within: 1s}}"""
        super().__init__(folder, issuers=issuers, tokens="{from: login}")

    def ask(self, token: str = "", path: str = "/") -> tuple[int, str]:
        """Status and the whole answer of a request with this token."""
        bearer = ("-H", f"Authorization: Bearer {token}") if token else ()
        answer = curl("-i", *bearer, f"{self.url}{path}").text
        return int(answer.split()[1]), answer

    def explain(self, answer: str) -> str:
        """What `mesh explain` says of a refusal."""
        decision = next(line.split()[1] for line in answer.splitlines() if line.startswith("mesh-decision-id:"))
        command = [*MESH, "explain", decision, "--run-dir", str(self.run_dir)]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout

    def keys(self) -> dict[str, Any]:
        """How the keys of the issuer stand."""
        (found,) = self["app"].status()["tokens"]
        return dict(found)


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with Provider(tmp_path_factory.mktemp("provider")) as provider:
        yield provider


@pytest.fixture
def mesh(tmp_path: Path, provider: Provider) -> Iterator[Guarded]:
    mesh = Guarded(tmp_path, provider)
    with mesh, echo_app(tmp_path, mesh.ports.app):
        mesh.start_all()
        yield mesh
        provider.mode("up")
        mesh.assert_well()


def test_client_credentials_open_the_door_and_nothing_else_does(mesh: Guarded, provider: Provider) -> None:
    token = provider.token(AUDIENCE)
    status, answer = mesh.ask(token)
    assert status == 200, answer
    reached = json.loads(answer.rpartition("\r\n\r\n")[2])
    assert "authorization" not in dict(reached["headers"])
    refusals = {
        "no token": "",
        "signature": token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB"),
        "audience": provider.token("https://bills.example"),
        "malformed": "not-a-token",
    }
    for why, bad in refusals.items():
        status, answer = mesh.ask(bad)
        assert status == 401, (why, answer)
        challenge = next(line for line in answer.splitlines() if line.lower().startswith("www-authenticate"))
        assert ("invalid_token" in challenge) is bool(bad)
        assert why not in answer.rpartition("\r\n\r\n")[2]
        assert why in mesh.explain(answer), why
    assert mesh.ask(path=f"/?access_token={token}")[0] == 401
    assert mesh["app"].metrics().total("mesh_tokens_total", issuer="login", result="ok") == 1
    records = (mesh.folder / "app.access").read_text() + mesh["app"].process.text()
    assert token not in records
    assert token.split(".")[2] not in records
    assert '"token":{"issuer":"login"' in records.replace(" ", "")


def test_a_rotated_key_is_fetched_at_once_and_an_invented_one_does_not_flood(
    mesh: Guarded, provider: Provider
) -> None:
    assert mesh.ask(provider.token(AUDIENCE))[0] == 200
    before = provider.seen()
    provider.rotate(algorithm="ES256")
    assert mesh.ask(provider.token(AUDIENCE))[0] == 200
    assert provider.seen() == before + 1
    good = provider.token(AUDIENCE)
    provider.rotate()
    unknown = provider.token(AUDIENCE)
    provider.rotate(keep=False)  # what has signed `unknown` was never published, as far as the sidecar can see
    statuses = [mesh.ask(unknown)[0] for _ in range(8)]
    assert set(statuses) <= {401, 503}
    assert provider.seen() <= before + 3
    assert mesh.ask(good)[0] in (200, 401)  # its key was withdrawn: gone with the next set


def test_an_issuer_that_is_slow_or_sends_far_too_much_holds_nobody_else_up(mesh: Guarded, provider: Provider) -> None:
    token = provider.token(AUDIENCE)
    assert mesh.ask(token)[0] == 200
    provider.rotate()
    unknown = provider.token(AUDIENCE)
    modes: tuple[tuple[Mode, str], ...] = (("huge", "larger than"), ("slow", "did not answer within 1 s"))
    for mode, problem in modes:
        provider.mode(mode)
        assert mesh.ask(unknown)[0] == 503
        assert problem in mesh.keys()["problem"]
        assert mesh.ask(token)[0] == 200


def test_an_outage_leaves_the_last_good_keys_even_across_a_restart(mesh: Guarded, provider: Provider) -> None:
    token = provider.token(AUDIENCE)
    assert mesh.ask(token)[0] == 200
    stranger = provider.rotate() and provider.token(AUDIENCE)
    provider.mode("down")
    assert mesh.ask(token)[0] == 200
    status, answer = mesh.ask(stranger)
    assert (status, "retry-after" in answer.lower()) == (503, True), answer
    assert "keys of login" in mesh.explain(answer)
    mesh["app"].stop()
    mesh["app"].start()
    eventually("the kept keys are read", lambda: mesh.keys()["keys"])
    assert mesh.ask(token)[0] == 200
    assert mesh.ask(stranger)[0] == 503
    eventually("an alarm", lambda: mesh.keys()["alarm"] == "failing")
    provider.mode("up")
    eventually("the issuer is heard again", lambda: not mesh.keys()["alarm"])
    assert mesh.ask(stranger)[0] == 200


SVIDS = """\
trust_domain: demo.mesh
ca: {{address: "127.0.0.1:{p.ca}"}}
issuers: {{mesh: {{trust_domain: demo.mesh}}}}
services:
  web:
    workload_api: {{listen: "unix:{place}/web/w.sock"}}
    outbound: [{{to: app, listen: "127.0.0.1:{p.door}"}}]
    health: {{listen: off}}
  app:
    inbound:
      - {{port: {p.app_in}, bind: 127.0.0.1, app: "127.0.0.1:{p.app}", tokens: {{from: mesh, audience: [one, two]}}}}
    allow: [{{from: web}}]
    health: {{listen: off}}
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="mesh-tk-") as name:
        yield Path(name)


def test_a_jwt_svid_is_believed_by_the_keys_of_the_trust_bundle_and_no_longer(tmp_path: Path, place: Path) -> None:
    ports = Ports()
    with Fleet(tmp_path, SVIDS.format(p=ports, place=place)) as mesh, echo_app(tmp_path, ports.app):
        mesh.start_all()
        socket = f"unix:{place}/web/w.sock"

        def status(token: str) -> int:
            answer = curl("-i", "-H", f"Authorization: Bearer {token}", f"http://127.0.0.1:{ports.door}/").text
            return int(answer.split()[1])

        token = ask(socket, "jwt", "one")["token"]
        assert status(token) == 200
        assert status(ask(socket, "jwt", "somebody-else")["token"]) == 401
        done = mesh.mesh("ca", "renew-jwt-key", "--revoke", "--passphrase-file", str(tmp_path / "passphrase"),
                         "--dir", str(tmp_path / "ca"))  # fmt: skip
        assert done.returncode == 0, done.stderr
        eventually("the withdrawn key verifies nothing", lambda: status(token) == 401)
        fresh = ask(socket, "jwt", "two")["token"]
        eventually("one by the new key is good", lambda: status(fresh) == 200)


# ---- the end of a token ------------------------------------------------------------------------------------------


def test_a_websocket_ends_with_its_token_on_a_real_clock(tmp_path: Path) -> None:
    signer, keys = Signer(), tmp_path / "keys.json"
    keys.write_bytes(key_set(signer))
    issuers = f'\n  login: {{issuer: "{ISSUER}", file: "{keys}", audience: "{AUDIENCE}", leeway: 0s}}'
    with Pair(tmp_path, issuers=issuers, tokens="{from: login}") as mesh:

        def echo(connection: ServerConnection) -> None:
            for message in connection:
                connection.send(message)

        with serve(echo, "127.0.0.1", mesh.ports.app) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            mesh.start_all()
            eventually("the keys", lambda: mesh["app"].status()["tokens"][0]["keys"] == 1)
            until = time.time() + 4.0
            bearer = signer.token(aud=AUDIENCE, at=time.time(), exp=until).decode()
            where = mesh.url.replace("http://", "ws://")
            with connect(where, additional_headers={"Authorization": f"Bearer {bearer}"}, ping_interval=None) as line:
                line.send("a")
                assert line.recv(5) == "a"
                with pytest.raises(ConnectionClosed):
                    line.recv(30)
            assert time.time() >= until - 0.1, "not before its end"
            with pytest.raises(InvalidStatus):
                connect(where, additional_headers={"Authorization": f"Bearer {bearer}"})
            server.shutdown()
        ended = mesh["app"].metrics().total("mesh_connections_ended_early_total", reason="token_end")
        assert ended == 1

"""Sidecars whose identity somebody else keeps: behind a Workload API (our own, of another sidecar), or in files."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from certs.bundle import BundleSet
from certs.source import Source
from certs.spiffe import SpiffeId
from certs.svid import X509Svid
from sidecar.cli.root import run_command
from sidecar.identity.from_workload_api import FromWorkloadApi
from sidecar.identity.given import Held, NotOurs
from sidecar.identity.status import IdentityStatus
from sidecar.net.clock import SystemClock
from sidecar.net.grpc_client import CallFailed
from tests.kit.fleet import MESH
from tests.kit.identities import a_bundle, a_root, an_issuer, an_svid
from tests.kit.processes import Process, eventually
from tests.kit.workloads import ServedApi, ask
from tests.sidecar.identity.test_from_files import contents, write

pytestmark = pytest.mark.integration
WEB = SpiffeId.parse("spiffe://demo.mesh/ns/default/sa/web")


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mesh-is-") as name:
        yield Path(name)


class Client:
    """A FromWorkloadApi and its sources, for as long as a story lasts."""

    def __init__(self, api: ServedApi, who: SpiffeId = WEB) -> None:
        self.svids: Source[X509Svid] = Source("SVID")
        self.bundles: Source[BundleSet] = Source("bundle")
        self.status: Source[IdentityStatus] = Source("status")
        held = Held(who, self.svids, self.bundles, SystemClock(), self.status)
        self.keeper = FromWorkloadApi(held, str(api.path), lambda: 0.2)

    async def until(self, holds: Any) -> None:
        with trio.fail_after(15):
            while not holds():
                await trio.sleep(0.02)


def play(api: ServedApi, story: Any, who: SpiffeId = WEB) -> None:
    async def whole() -> None:
        client = Client(api, who)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.keeper.run)
            await story(client)
            nursery.cancel_scope.cancel()

    trio.run(whole)


def test_an_agents_identity_is_ours_and_its_rotations_too(place: Path) -> None:
    with ServedApi(place, time.time()) as api:

        async def story(client: Client) -> None:
            await client.until(lambda: client.svids.number)
            first = client.svids.current
            assert (first.serial, first.spiffe_id) == (api.svids.current.serial, WEB)
            await client.until(lambda: [key.kid for one in client.bundles.current for key in one.jwt_keys] == ["k1"])
            renewed, other = api.an_svid(), a_root("other.mesh", now=api.now)
            await trio.to_thread.run_sync(api.publish, renewed, BundleSet((api.bundle(), a_bundle(other))))
            await client.until(lambda: client.svids.current.serial == renewed.serial)
            await client.until(lambda: len(client.bundles.current) == 2)
            token = await client.keeper.fetch_jwt(("reports",))
            assert (token.spiffe_id, token.audience) == (WEB, ("reports",))
            with pytest.raises(CallFailed, match="INVALID_ARGUMENT"):
                await client.keeper.fetch_jwt(())

        play(api, story)


def test_what_an_agent_must_not_hand_us_changes_nothing(place: Path) -> None:
    with ServedApi(place, time.time()) as api:

        async def story(client: Client) -> None:
            await client.until(lambda: client.svids.number)
            good = client.svids.current.serial
            foreign = an_svid(an_issuer(a_root(now=api.now), now=api.now), "web", now=api.now)
            for bad, words in ((api.an_svid("api"), "has no identity"), (foreign, "does not hold")):
                await trio.to_thread.run_sync(api.publish, bad)
                await client.until(lambda words=words: words in client.status.current.last_error)
                assert client.svids.current.serial == good
            back = api.an_svid()
            await trio.to_thread.run_sync(api.publish, back)
            await client.until(lambda: client.svids.current.serial == back.serial)
            assert client.status.current.last_error == ""

        play(api, story)


def test_an_agent_that_comes_late_and_goes_is_waited_for(place: Path) -> None:
    late = ServedApi(place, time.time(), quiet=True)

    async def story(client: Client) -> None:
        await client.until(lambda: "No such file" in client.status.current.last_error)
        await trio.to_thread.run_sync(late.__enter__)
        try:
            await client.until(lambda: "UNAVAILABLE" in client.status.current.last_error)
            await trio.to_thread.run_sync(late.publish, late.an_svid(), BundleSet((late.bundle(),)))
            await client.until(lambda: client.svids.number)
            assert client.status.current.consecutive_failures == 0
        finally:
            await trio.to_thread.run_sync(late.__exit__)
        await client.until(lambda: client.status.current.last_error)
        assert client.svids.current.spiffe_id == WEB

    play(late, story)


def test_a_token_for_somebody_else_is_not_passed_on(place: Path) -> None:
    with ServedApi(place, time.time()) as api:

        async def story(client: Client) -> None:
            await client.until(lambda: client.svids.number)

            async def wrong(audience: tuple[str, ...]) -> Any:
                return await ServedApi._jwt(api, ("another",))

            api.jwt = wrong  # type: ignore[method-assign]
            with pytest.raises(NotOurs, match="another identity or audience"):
                await client.keeper.fetch_jwt(("reports",))

        play(api, story)


# ---- whole sidecars --------------------------------------------------------------------------------------------------


def sidecar(place: Path, source: str) -> Process:
    config = place / "mesh.yaml"
    config.write_text(
        "trust_domain: demo.mesh\nservices:\n  web:\n"
        f"    identity_source: {source}\n    health: {{listen: off}}\n"
        f"    workload_api: {{listen: 'unix:{place}/w/w.sock'}}\n"
    )
    command = [*MESH, "run", "-f", str(config), "--state", str(place / "state"), "--run-dir", str(place / "run")]
    return Process("web", command, place / "web.log")


def test_a_sidecar_lives_on_files_and_takes_over_what_is_put_there(place: Path) -> None:
    now = time.time()
    root = a_root(now=now)
    issuer = an_issuer(root, now=now)
    first, second = an_svid(issuer, now=now), an_svid(issuer, now=now)
    (place / "id").mkdir()
    write(place / "id", contents(first, root))
    at = place / "id"
    process = sidecar(place, f"{{files: {{cert: {at}/tls.crt, key: {at}/tls.key, bundle: {at}/ca.crt}}}}")
    try:
        process.until("its socket is there", (place / "w/w.sock").is_socket)
        eventually("the first", lambda: ask(f"unix:{place}/w/w.sock", "x509").get("serial") == first.serial)
        write(place / "id", contents(second, root))
        eventually("the second", lambda: ask(f"unix:{place}/w/w.sock", "x509").get("serial") == second.serial)
        assert "identity from files" not in process.text()
    finally:
        assert process.stop() == 0


def test_a_sidecar_lives_on_another_agent(place: Path) -> None:
    (place / "agent").mkdir()
    with ServedApi(place / "agent", time.time()) as api:
        process = sidecar(place, f"{{workload_api: 'unix:{api.path}'}}")
        try:
            process.until("its socket is there", (place / "w/w.sock").is_socket)
            served = f"unix:{place}/w/w.sock"
            eventually("the agent's", lambda: ask(served, "x509").get("serial") == api.svids.current.serial)
            token = ask(served, "jwt", "reports")
            assert token["spiffe_id"] == WEB.text
            assert ask(served, "validate", "reports", token["token"])["spiffe_id"] == WEB.text
        finally:
            assert process.stop() == 0


def test_two_places_are_a_mistake(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = place / "mesh.yaml"
    for source in ("{}", "{workload_api: 'unix:/a', files: {cert: a, key: b, bundle: c}}"):
        config.write_text(f"trust_domain: demo.mesh\nservices:\n  web: {{identity_source: {source}}}\n")
        assert run_command(["check", "-f", str(config)]) != 0
        captured = capsys.readouterr()
        assert "an identity comes from one place" in captured.out + captured.err


def test_an_agent_that_says_nothing_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.identity.from_workload_api.ANSWER_SECONDS", 0.2)
    api = ServedApi(place, time.time())
    api.path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(api.path))
        silent.listen()

        async def story(client: Client) -> None:
            await client.until(lambda: "says nothing" in client.status.current.last_error)

        play(api, story)
    api._log.close()

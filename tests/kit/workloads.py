"""A Workload API of ours in a thread, and the `spiffe` library as its client.

    with ServedApi(folder) as api:
        assert ask(api, "x509")["spiffe_id"] == ...
        api.publish(an_svid(...))
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec

from certs.bundle import BundleSet, JwtKey, TrustBundle
from certs.denylist import Denylist
from certs.jwt_svid import JwtSvid, make_jwt_svid, read_jwt_svid
from certs.keys import new_key, public_bytes
from certs.source import Source
from certs.svid import X509Svid
from sidecar.admin.workload_socket import serve_workload_api
from sidecar.config.schema import WorkloadApi
from sidecar.config.terms import Address
from sidecar.net.clock import SystemClock
from sidecar.telemetry.log import Log
from tests.kit.identities import Authority, a_bundle, a_root, an_issuer, an_svid

ROOT = Path(__file__).parents[2]
PATIENCE = 15.0


class ServedApi:
    """A sidecar's Workload API, with whatever identity the test publishes. `now` is when its certificates are from."""

    def __init__(self, folder: Path, now: float, *, allow_uids: tuple[int, ...] = (), quiet: bool = False) -> None:
        self.path = folder / "api" / "w.sock"
        self.root: Authority = a_root(now=now)
        self.issuer: Authority = an_issuer(self.root, now=now)
        self.jwt_key: ec.EllipticCurvePrivateKey = new_key()
        self.now = now
        self.asked: list[tuple[str, ...]] = []
        self.acted: list[tuple[object, ...]] = []  # what the audit is told
        self.jwt = self._jwt
        self.svids: Source[X509Svid] = Source("SVID")
        self.bundles: Source[BundleSet] = Source("bundle")
        self.denylists: Source[Denylist] = Source("denylist")
        self._spoken = WorkloadApi(Address(f"unix:{self.path}", 0), allow_uids)
        self._log = (folder / "api.log").open("ab")
        self._ready = threading.Event()
        self._quiet = quiet  # publish nothing at the start
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def socket(self) -> str:
        return f"unix:{self.path}"

    def bundle(self, *roots: Authority, kids: tuple[str, ...] = ("k1",)) -> TrustBundle:
        keys = tuple(JwtKey(kid, public_bytes(self.jwt_key.public_key())) for kid in kids)
        known = a_bundle(*(roots or (self.root,)))
        return TrustBundle(known.trust_domain, known.roots, known.sequence, known.refresh_hint, keys)

    def an_svid(self, who: str = "web", **options: Any) -> X509Svid:
        return an_svid(self.issuer, who, now=self.now, **options)

    def publish(self, svid: X509Svid | None = None, bundles: BundleSet | None = None) -> None:
        """The next generation."""
        trio.from_thread.run_sync(self._publish, svid, bundles, trio_token=self._token)

    def _publish(self, svid: X509Svid | None, bundles: BundleSet | None) -> None:
        if bundles is not None:
            self.bundles.publish(bundles)
        if svid is not None:
            self.svids.publish(svid)

    def deny(self, **denied: Any) -> None:
        """The next denylist: `serials`, `spiffe_ids` or `issuers`."""
        sequence = self.denylists.number + 1
        drawn = Denylist(self.svids.current.spiffe_id.trust_domain, sequence, self.now, **denied)
        trio.from_thread.run_sync(self.denylists.publish, drawn, trio_token=self._token)

    async def _jwt(self, audience: tuple[str, ...]) -> JwtSvid:
        self.asked.append(audience)
        svid = self.svids.current
        return read_jwt_svid(make_jwt_svid(svid.spiffe_id, audience, "k1", self.jwt_key, self.now, 300.0))

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._scope = trio.CancelScope()
        if not self._quiet:
            self._publish(self.an_svid(), BundleSet((self.bundle(),)))
        with self._scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(
                    serve_workload_api, self._spoken, self.svids, self.bundles, self.denylists,
                    lambda audience: self.jwt(audience), SystemClock(), Log(fd=self._log.fileno(), human=False),
                    acted=lambda *told: self.acted.append(told),
                ))  # fmt: skip
                self._ready.set()

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as failure:  # the test's thread raises it
            self._failure = failure
        finally:
            self._log.close()
            self._ready.set()

    def __enter__(self) -> ServedApi:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        trio.from_thread.run_sync(self._scope.cancel, trio_token=self._token)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure


def need_spiffe() -> None:
    """Skip where the library is not installed, or fail under MESH_REQUIRE_TOOLS=1."""
    if importlib.util.find_spec("spiffe") is None:
        if os.environ.get("MESH_REQUIRE_TOOLS") == "1":
            pytest.fail("the spiffe library is not installed")
        pytest.skip("the spiffe library is not installed")


def _command(socket: str, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "tests.kit.spiffe_client", socket, *arguments]


def ask(socket: str, *arguments: str) -> dict[str, Any]:
    """One command of the `spiffe` library: its answer."""
    need_spiffe()
    done = subprocess.run(_command(socket, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@contextmanager
def watching(socket: str, command: str = "watch") -> Iterator[Iterator[dict[str, Any]]]:
    """A stream of the `spiffe` library: what it hears, as it hears it."""
    need_spiffe()
    process = subprocess.Popen(
        _command(socket, command), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield map(json.loads, process.stdout)
    finally:
        process.kill()
        process.communicate()

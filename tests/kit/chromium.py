"""Chromium without a window, with a client certificate of the mesh, told what to do over its DevTools protocol.

Its certificate database and the policy that picks the certificate live in a folder of the test's; the policy is laid
over /etc/chromium in a mount namespace of the browser's own, so nothing on the machine changes.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.kit.processes import Process
from tests.kit.tools import need

POLICIES = "/etc/chromium/policies/managed"


class Page:
    """One page of a browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            said = json.loads(self._socket.recv(30))
            if said.get("id") == number:
                assert "error" not in said, said
                return dict(said["result"])

    def visit(self, url: str) -> None:
        """Go there, and wait until it is there."""
        found = self.call("Page.navigate", url=url)
        assert "errorText" not in found, found
        self.run("new Promise(done => document.readyState == 'complete' ? done() : onload = () => done())")

    def run(self, script: str) -> Any:
        """The value of an expression, once it has settled."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")


def need_chromium() -> str:
    """The browser, with all that it takes to give it a certificate; a skip or a failure where anything is missing."""
    for tool in ("certutil", "pk12util", "openssl", "unshare"):
        need(tool)
    if os.getuid():
        pytest.skip("only root can lay a policy over Chromium's in a mount namespace")
    return need("chromium")


@contextmanager
def chromium(folder: Path, certificate: Path | None = None, key: Path | None = None) -> Iterator[Page]:
    """A browser that presents this certificate, if any, to whoever asks on loopback, and takes any server's."""
    program = need_chromium()
    home = folder / "browser"
    if certificate is not None and key is not None:
        _import(home, certificate, key)
    policies = home / "policies"
    policies.mkdir(parents=True)
    choice = {"AutoSelectCertificateForUrls": ['{"pattern": "https://127.0.0.1", "filter": {}}']}
    (policies / "mesh.json").write_text(json.dumps(choice))
    # An empty tree over /etc/chromium first, so that the folder of policies need not be there.
    over = f"mount -t tmpfs none /etc/chromium && mkdir -p {POLICIES} && mount --bind {policies} {POLICIES}"
    flags = (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--ignore-certificate-errors",
        "--remote-debugging-port=0", "--no-first-run", "--disable-background-networking", "--disable-extensions",
        "--disable-component-update", "--no-proxy-server", f"--user-data-dir={home / 'profile'}", "about:blank",
    )  # fmt: skip
    script = f'mkdir -p /etc/chromium && {over} && exec "$@"'
    command = [need("unshare"), "--mount", "--", "sh", "-c", script, "sh", program, *flags]
    process = Process("chromium", command, home / "log", env={"HOME": str(home), "DBUS_SESSION_BUS_ADDRESS": "off:"})
    told = home / "profile" / "DevToolsActivePort"
    try:
        process.until("listening for DevTools", lambda: told.exists() and "\n" in told.read_text(), seconds=60)
        port = int(told.read_text().splitlines()[0])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=20) as answer:
            pages = [page for page in json.load(answer) if page["type"] == "page"]
        with connect(pages[0]["webSocketDebuggerUrl"], proxy=None, max_size=1 << 24, compression=None) as socket:
            yield Page(socket)
    finally:
        process.stop()


def _import(home: Path, certificate: Path, key: Path) -> None:
    """Certificate and key into the database that Chromium reads."""
    database = home / ".pki" / "nssdb"
    database.mkdir(parents=True)
    bundle = home / "client.p12"
    make = ["openssl", "pkcs12", "-export", "-in", str(certificate), "-inkey", str(key), "-out", str(bundle)]
    for command in (
        [*make, "-passout", "pass:mesh", "-name", "web"],
        [need("certutil"), "-N", "--empty-password", "-d", f"sql:{database}"],
        [need("pk12util"), "-i", str(bundle), "-d", f"sql:{database}", "-W", "mesh"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (command, done.stderr)

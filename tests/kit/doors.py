"""The doors of a mesh under a battery of raw bytes: web's sidecar and app's, in this process, in front of any origin.

    with Doors(tmp_path, origin_port) as doors:
        doors.inbound      # mTLS, straight into app's sidecar, with web's certificate
        doors.outbound     # plaintext, web's listener for app
        doors.forward      # plaintext, through web's forward proxy by CONNECT
"""

from __future__ import annotations

import shutil
import ssl
import tempfile
from contextlib import ExitStack
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from sidecar.config.load import load_text
from sidecar.conformance.runner import Target
from tests.kit.free_ports import Ports
from tests.kit.identities import a_bundle_set, a_root, an_issuer, an_svid
from tests.kit.sidecars import LocalSidecar

CONFIG = """\
trust_domain: demo.mesh
ca: {{address: "127.0.0.1:{ports.ca}"}}
defaults: {{timeouts: {{drain: 1s}}}}
services:
  web:
    forward_proxy: 127.0.0.1:{ports.proxy}
    outbound:
      - {{to: app, listen: "127.0.0.1:{ports.door}"}}
    access_log: {{mode: errors, path: {folder}/web.access}}
    health: {{listen: off}}
  app:
    inbound:
      - {{name: main, port: {ports.app_in}, bind: 127.0.0.1, app: "127.0.0.1:{app}", protocol: http}}
    allow: [{{name: web-may, from: web, path: /**}}, {{name: server-wide, from: web, method: OPTIONS}}]
    access_log: {{mode: errors, path: {folder}/app.access}}
    health: {{listen: off}}
"""


class Doors:
    """See the module."""

    def __init__(self, folder: Path, app: int) -> None:
        self._folder = folder
        self._app = app
        self.ports = Ports()
        self._stack = ExitStack()

    def __enter__(self) -> Doors:
        root = a_root()
        issuer = an_issuer(root)
        bundles = a_bundle_set(root)
        text = CONFIG.format(ports=self.ports, folder=self._folder, app=self._app)
        config = load_text(text, str(self._folder / "mesh.yaml"))
        run_dir = Path(tempfile.mkdtemp(prefix="mesh-cf-"))
        self._stack.callback(shutil.rmtree, run_dir, ignore_errors=True)
        self.app, self.web = (
            self._stack.enter_context(
                LocalSidecar(self._folder, run_dir, config, name, an_svid(issuer, name), bundles)
            )
            for name in ("app", "web")
        )
        caller = an_svid(issuer, "web")
        self.certificate, self.key, self.ca = (self._folder / name for name in ("web.crt", "web.key", "ca.crt"))
        self.certificate.write_bytes(caller.chain_pem())
        self.key.touch(mode=0o600)
        self.key.write_bytes(
            caller.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.ca.write_bytes(root.certificate.public_bytes(serialization.Encoding.PEM))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def inbound(self) -> Target:
        """mTLS into app's sidecar."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.check_hostname = False  # SPIFFE identities have no DNS names
        context.load_cert_chain(self.certificate, self.key)
        return Target(f"https://127.0.0.1:{self.ports.app_in}", host="app", tls=context)

    @property
    def outbound(self) -> Target:
        """web's own listener for app: it rewrites Host to the name that it declares."""
        return Target(f"http://127.0.0.1:{self.ports.door}", origin_host="app")

    @property
    def forward(self) -> Target:
        """web's forward proxy: the same upstream, inside a CONNECT."""
        return Target("http://app:80", host="app", through=("127.0.0.1", self.ports.proxy))

    def assert_well(self) -> None:
        """Nothing inside either sidecar broke."""
        self.app.assert_well()
        self.web.assert_well()

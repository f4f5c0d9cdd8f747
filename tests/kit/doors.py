"""The doors of a mesh under a battery of raw bytes: web's sidecar and app's, in this process, in front of any origin.

    with Doors(tmp_path, origin_port) as doors:
        doors.inbound      # mTLS, straight into app's sidecar, with web's certificate
        doors.outbound     # plaintext, web's listener for app
        doors.forward      # plaintext, through web's forward proxy by CONNECT
        doors.into("node") # mTLS, into a further inbound listener with another application behind it
"""

from __future__ import annotations

import shutil
import ssl
import tempfile
from collections.abc import Container, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from certs.svid import X509Svid
from sidecar.config.load import load_text
from sidecar.conformance.runner import Target
from tests.kit.free_ports import Ports
from tests.kit.identities import a_bundle_set, a_root, an_issuer, an_svid
from tests.kit.sidecars import LocalSidecar

CONFIG = """\
trust_domain: demo.mesh
ca: {{address: "127.0.0.1:{ports.ca}"}}
defaults: {{timeouts: {{drain: 1s{timeouts}}}}}
services:
  web:
    forward_proxy: 127.0.0.1:{ports.proxy}
    outbound:
      - {{to: app, port: {ports.app_in}, listen: "127.0.0.1:{ports.door}", upgrade: {upgrade}, breaker: off}}
    access_log: {{mode: errors, path: {folder}/web.access}}
    health: {{listen: off}}
  app:
    inbound:
      - {{name: main, port: {ports.app_in}, bind: 127.0.0.1, app: "127.0.0.1:{app}", protocol: http}}
{more}    allow: {allow}
    access_log: {{mode: errors, path: {folder}/app.access}}
    health: {{listen: off}}
"""


ALLOW = "[{name: web-may, from: web, path: /**}, {name: server-wide, from: web, method: OPTIONS}]"


class Doors:
    """See the module. `more` are further applications of app: name → port; those in `http2` are asked by HTTP/2.

    `upgrade` is what web's upstream says: `h2` asks app's sidecar by HTTP/2 whatever came in.
    """

    def __init__(
        self, folder: Path, app: int, *, more: Mapping[str, int] | None = None, allow: str = ALLOW,
        timeouts: str = "", upgrade: str = "none", http2: Container[str] = (),
    ) -> None:  # fmt: skip
        self._folder = folder
        self._app = app
        self._more = more or {}
        self._allow = allow
        self._timeouts = timeouts
        self._upgrade = upgrade
        self._http2 = http2
        self.ports = Ports()
        self._stack = ExitStack()

    def __enter__(self) -> Doors:
        root = self.root = a_root()
        issuer = an_issuer(root)
        bundles = a_bundle_set(root)
        more = "".join(
            f'      - {{name: {name}, port: {getattr(self.ports, name)}, bind: 127.0.0.1, '
            f'app: "127.0.0.1:{port}", protocol: http, app_http: {"http2" if name in self._http2 else "auto"}}}\n'
            for name, port in self._more.items()
        )
        text = CONFIG.format(
            ports=self.ports, folder=self._folder, app=self._app, more=more, allow=self._allow,
            timeouts=self._timeouts, upgrade=self._upgrade,
        )  # fmt: skip
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
        save(caller, self.certificate, self.key)
        self.ca.write_bytes(root.certificate.public_bytes(serialization.Encoding.PEM))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def inbound(self) -> Target:
        """mTLS into app's sidecar."""
        return self._mtls(self.ports.app_in)

    def into(self, name: str) -> Target:
        """mTLS into app's sidecar, by the listener of a further application."""
        return self._mtls(getattr(self.ports, name))

    def over_http2(self, door: str) -> Target:
        """The door `inbound`, `outbound` or `forward`, or a further application of app, asked over HTTP/2."""
        target: Target = getattr(self, door) if door in ("inbound", "outbound", "forward") else self.into(door)
        if target.tls is not None:
            target.tls.set_alpn_protocols(["h2"])
        return replace(target, http2=True)

    def _mtls(self, port: int) -> Target:
        context = ssl.create_default_context(cafile=str(self.ca))
        context.check_hostname = False  # SPIFFE identities have no DNS names
        context.load_cert_chain(self.certificate, self.key)
        return Target(f"https://127.0.0.1:{port}", host="app", tls=context)

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


def save(svid: X509Svid, certificate: Path, key: Path) -> None:
    """Write chain and private key for programs that want files."""
    certificate.write_bytes(svid.chain_pem())
    key.touch(mode=0o600)
    key.write_bytes(
        svid.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )

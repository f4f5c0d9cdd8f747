"""How to reach a cluster's API server: as a pod, by a kubeconfig, or through `kubectl proxy`.

Of a kubeconfig's ways to log in those are read that need nobody else: tokens and client certificates. Where a program
has to be run for it (exec, auth-provider), `kubectl proxy` does that better than we could. A server whose certificate
is not to be verified is refused: who answers there would decide what we believe.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import trio
import yaml

from sidecar.net.https import HttpsUrl, connect
from sidecar.net.kube_api import CannotAsk, load_ca, load_token

IN_POD: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PROXY_HINT: Final = "run `kubectl proxy` and give --api http://127.0.0.1:8001, or what `kubectl get` prints with -f"
_NOT_READ: Final = ("proxy-url", "tls-server-name", "exec", "auth-provider")
_LARGEST: Final = 4 * 1024 * 1024  # bytes of a kubeconfig


@dataclass(frozen=True, slots=True)
class Access:
    """Where an API server is and who we are there. `token_file` is read anew for each request."""

    host: str
    port: int
    path: str = ""
    tls: bool = True
    ca_pem: str = field(default="", repr=False)
    token: bytes = field(default=b"", repr=False)
    token_file: str = ""
    certificate: tuple[bytes, bytes] | None = field(default=None, repr=False)  # PEM: chain, key

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.path}"

    @property
    def authority(self) -> str:
        """What goes into a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def fields(self) -> list[tuple[bytes, bytes]]:
        """What every request says. Raises CannotAsk."""
        token = load_token(self.token_file) if self.token_file else self.token
        return [(b"accept", b"application/json"), *([(b"authorization", b"Bearer " + token)] if token else [])]

    async def connect(self) -> trio.abc.Stream:
        """A connection. Raises OSError, ssl.SSLError, trio.BrokenResourceError, CannotAsk."""
        if not self.tls:
            return await trio.open_tcp_stream(self.host, self.port)
        return await connect(HttpsUrl(self.host, self.port, self.path), self.ca_pem, self._own())

    def _own(self) -> ssl.SSLContext | None:
        """A context that shows our certificate, where we have one."""
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with tempfile.TemporaryDirectory(prefix="mesh-") as folder:  # 0700, and gone at once: ssl reads files only
            chain, key = Path(folder, "chain.pem"), Path(folder, "key.pem")
            chain.write_bytes(self.certificate[0])
            key.write_bytes(self.certificate[1])
            try:
                context.load_cert_chain(chain, key)
            except ssl.SSLError as error:
                raise CannotAsk(f"the client certificate of the kubeconfig cannot be used: {error}") from None
        return context


def find(api: str, kubeconfig: str, context: str, environment: Mapping[str, str]) -> Access:
    """What was said, or else what there is: a pod's own access, $KUBECONFIG, ~/.kube/config. Raises CannotAsk."""
    if api:
        return proxied(api)
    if not kubeconfig and environment.get("KUBERNETES_SERVICE_HOST") and (IN_POD / "token").exists():
        return of_pod(environment)
    named = kubeconfig or environment.get("KUBECONFIG", "").split(os.pathsep)[0]
    return of_kubeconfig(Path(named) if named else Path.home() / ".kube" / "config", context)


def of_pod(environment: Mapping[str, str], folder: Path = IN_POD) -> Access:
    """As every pod knows it. Raises CannotAsk."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not port.isdigit():
        raise CannotAsk("this is no pod: KUBERNETES_SERVICE_HOST is not set")
    return Access(host, int(port), ca_pem=load_ca(str(folder / "ca.crt")), token_file=str(folder / "token"))


def proxied(url: str) -> Access:
    """Through `kubectl proxy` on this machine, which logs in for us. Raises CannotAsk."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname or "", parts.port or 80
        ours = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        host, port, ours = "", 0, False
    if parts.scheme != "http" or not ours or parts.query or parts.fragment or parts.username is not None:
        raise CannotAsk(f"--api is where `kubectl proxy` listens here, http://127.0.0.1:8001, not {url[:120]!r}")
    return Access(host, port, parts.path.rstrip("/"), tls=False)


def of_kubeconfig(path: Path, context: str = "") -> Access:
    """The cluster and user of a context, the current one unless named. Raises CannotAsk."""
    said = _read(path)
    name = context or said.get("current-context")
    chosen = _named(said, "contexts", name, path).get("context", {})
    cluster = _named(said, "clusters", chosen.get("cluster"), path).get("cluster", {})
    user = _named(said, "users", chosen.get("user"), path).get("user", {}) if chosen.get("user") else {}
    if cluster.get("insecure-skip-tls-verify"):
        raise CannotAsk(f"{path}: insecure-skip-tls-verify: nobody knows who answers; name its certificates instead")
    if way := next((key for key in _NOT_READ if key in {**cluster, **user}), ""):
        raise CannotAsk(f"{path}: `{way}` is not read here; {PROXY_HINT}")
    try:
        url = HttpsUrl.parse(str(cluster.get("server", "")))
    except ValueError as error:
        raise CannotAsk(f"{path}: {error}") from None
    ca = _content(cluster, "certificate-authority", path)
    chain, key = _content(user, "client-certificate", path), _content(user, "client-key", path)
    return Access(
        url.host, url.port, url.path.rstrip("/"),
        ca_pem=ca.decode("ascii", "replace") if ca else "",
        token=str(user.get("token", "")).encode(),
        token_file=str(path.parent / user["tokenFile"]) if user.get("tokenFile") else "",
        certificate=(chain, key) if chain and key else None,
    )  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            said = yaml.safe_load(file.read(_LARGEST))
    except (OSError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", None) or "it is not YAML"
        raise CannotAsk(f"no kubeconfig: {path}: {why}; {PROXY_HINT}") from None
    if not isinstance(said, dict):
        raise CannotAsk(f"{path} is no kubeconfig")
    return said


def _named(said: dict[str, Any], what: str, name: Any, path: Path) -> dict[str, Any]:
    listed = [each for each in said.get(what) or () if isinstance(each, dict)]
    found = next((each for each in listed if each.get("name") == name and name), None)
    if found is None:
        names = ", ".join(str(each.get("name")) for each in listed) or "none"
        raise CannotAsk(f"{path}: {what} has no {str(name)[:80]!r}; it has: {names}")
    return found


def _content(said: dict[str, Any], key: str, path: Path) -> bytes:
    """What stands in KEY-data, or in the file that KEY names; empty where neither is there. Raises CannotAsk."""
    try:
        if said.get(f"{key}-data"):
            return base64.b64decode(str(said[f"{key}-data"]), validate=True)
        return (path.parent / str(said[key])).read_bytes() if said.get(key) else b""
    except (OSError, binascii.Error) as error:
        raise CannotAsk(f"{path}: {key}: {error}") from None

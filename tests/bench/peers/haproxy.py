"""HAProxy: one thread. It cannot read a SPIFFE ID (2.6 has no sample for a URI SAN), so it verifies the chain only."""

from __future__ import annotations

from tests.bench.scene import CLIENT, SERVER, Scene
from tests.kit.tools import find

LOG = (
    '{"timestamp":"%[date,utime(%Y-%m-%dT%H:%M:%SZ)]","client.addr":"%ci:%cp","client.id":"%[ssl_c_s_dn,json]",'
    '"method":"%HM","uri":"%[capture.req.uri,json]","version":"%HV","status":%ST,"request_bytes":%U,'
    '"response_bytes":%B,"total_ms":%Ta,"processing_ms":%Tr,"endpoint":"%si:%sp","listener":"%f","flags":"%ts",'
    '"tls.version":"%sslv","tls.cipher":"%sslc","peer.cert_serial":"%[ssl_c_serial,hex]",'
    '"trace_id":"%[capture.req.hdr(0),json]","host":"%[capture.req.hdr(1),json]"}'
)


def haproxy(scene: Scene) -> list[list[str]] | None:
    """None where it is not installed."""
    if find("haproxy") is None:
        return None
    bind = (
        f"bind 127.0.0.1:{scene.inbound('haproxy')} ssl crt {scene.both(SERVER)} ca-file {scene.root} verify required"
        " no-tls-tickets ssl-min-ver TLSv1.3" + (" alpn http/1.1" if scene.row.shape == "http" else "")
    )
    commands = [_command(scene, "haproxy", bind, f"server app 127.0.0.1:{scene.backend}", log=scene.row.log)]
    if scene.row.hops == 2:
        upstream = (
            f"server peer 127.0.0.1:{scene.inbound('haproxy')} ssl crt {scene.both(CLIENT)} ca-file {scene.root}"
            f" verify required verifyhost {SERVER} sni str({SERVER}) ssl-min-ver TLSv1.3 no-ssl-reuse alpn http/1.1"
        )
        commands.append(_command(scene, "haproxy-out", f"bind 127.0.0.1:{scene.entry('haproxy')}", upstream))
    return commands


def _command(scene: Scene, name: str, bind: str, server: str, *, log: bool = False) -> list[str]:
    path = scene.file(f"{name}.cfg")
    logging = (
        f"""
    log fd@3 format raw local0
    capture request header traceparent len 64
    capture request header host len 64
    log-format '{LOG}'"""
        if log
        else ""
    )
    reuse = "http-reuse always" if scene.row.shape == "http" else ""
    path.write_text(f"""
global
    maxconn 8000
    nbthread 1
    tune.ssl.cachesize 0
    ssl-server-verify required
defaults
    mode {scene.row.shape}
    timeout connect 2s
    timeout client 1h
    timeout server 1h
    timeout http-request 10s
    timeout http-keep-alive 1h
frontend in
    {bind}{logging}
    default_backend out
backend out
    {reuse}
    {server}
""")
    command = [str(find("haproxy")), "-q", "-db", "-f", str(path)]
    if not log:
        return command
    return ["sh", "-c", 'out=$1; shift; exec "$@" 3>>"$out"', "sh", str(scene.file(f"{name}.log")), *command]

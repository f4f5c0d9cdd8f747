"""The health port of a sidecar in a pod: on the pod's own address, with the application's probes behind it.

`mesh inject` leads the application's probes to `/app-health/<container>/{livez,readyz,startupz}` on this port and says
in `MESH_POD` what each of them was:

    {"health": {"port": 17090, "probes": {"app/livez": {"http": {"port": 8080, "path": "/ok"}, "timeout": 1}}}}

Each is asked on loopback as the kubelet would have asked (Kubernetes' pkg/probe): any status from 200 to 399 is well,
up to ten redirects to the same host are followed, one to another host is well; certificates are not looked at; `tcp` is
well once it connects, `grpc` where Check of grpc.health.v1 says SERVING. The answer tells nothing of the application
but its status, for anybody may ask.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import trio

from certs.errors import MeshError
from sidecar.http import protobuf
from sidecar.net.grpc_client import CallFailed, call
from sidecar.net.http_client import HttpClient
from sidecar.net.http_message import Answer, BadHttp, Request, Response

PREFIX: Final = "/app-health/"
MAX_REDIRECTS: Final = 10  # as Go's http.Client, which is the kubelet's
_LOOPBACK: Final = ("127.0.0.1", "::1")
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?\Z")
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_TARGET = re.compile(r"/[!-~]*\Z")
_CHECK: Final = "/grpc.health.v1.Health/Check"
_SERVING: Final = 1
_HEADERS: Final = ((b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store"))


class BadPodHealth(MeshError):
    """MESH_POD is not what `mesh inject` writes."""

    name = "bad_pod_health"


class Unwell(Exception):
    """The application does not answer as it should; says how."""


@dataclass(frozen=True, slots=True)
class AppProbe:
    """One question to the application. `timeout` is in seconds."""

    kind: str  # "http", "tcp" or "grpc"
    port: int
    timeout: float
    target: str = "/"
    tls: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()
    service: str = ""


@dataclass(frozen=True, slots=True)
class PodHealth:
    """Where the health port is, and what lies behind it."""

    port: int
    probes: Mapping[str, AppProbe]  # "container/livez"

    @classmethod
    def parse(cls, text: str) -> PodHealth:
        """Read MESH_POD. Raises BadPodHealth."""
        try:
            health = json.loads(text)["health"]
            probes = {str(name): _probe(said) for name, said in health.get("probes", {}).items()}
            return cls(_port(health["port"]), probes)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise BadPodHealth(f"MESH_POD is not what `mesh inject` writes: {error!r:.200}") from None

    async def listen(self) -> list[trio.SocketListener]:
        """Listen on every address of the pod. Raises OSError."""
        return await trio.open_tcp_listeners(self.port, host=None)

    async def answer(self, request: Request) -> Response:
        """Ask the application what a probe wants to know."""
        probe = self.probes.get(request.path.removeprefix(PREFIX))
        if probe is None:
            return Response.error(404, "not_found", "there is no such probe")
        host = _HOST.match(request.header(b"host") or b"")
        try:
            with trio.fail_after(probe.timeout):
                await _ask(probe, host[1].decode() if host else "127.0.0.1")
        except trio.TooSlowError:
            return _unwell(f"no answer within {probe.timeout:g} s")
        except Unwell as error:
            return _unwell(str(error))
        except (OSError, ssl.SSLError, trio.BrokenResourceError, BadHttp, CallFailed, protobuf.InvalidMessage) as error:
            return _unwell(str(error) or type(error).__name__)
        return Response(200, _HEADERS, b"ok\n")


def _unwell(why: str) -> Response:
    return Response(503, _HEADERS, f"the application: {why}\n".encode())


def _probe(said: Any) -> AppProbe:
    kinds = said.keys() & {"http", "tcp", "grpc"}
    (kind,) = kinds
    what, timeout = said[kind], said["timeout"]
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= 86400:
        raise ValueError("timeout")
    target = what.get("path", "/")
    target = target if target.startswith("/") else f"/{target}"
    if not _TARGET.match(target.partition("#")[0]):
        raise ValueError("path")
    headers = tuple(_field(name, value) for name, value in what.get("headers", ()))
    return AppProbe(
        kind, _port(what["port"]), float(timeout), target.partition("#")[0], what.get("scheme") == "https", headers,
        str(what.get("service", "")),
    )  # fmt: skip


def _field(name: str, value: str) -> tuple[bytes, bytes]:
    if not _FIELD_NAME.match(name) or any(ord(each) < 0x20 or ord(each) > 0x7E for each in value):
        raise ValueError("headers")
    return name.lower().encode(), value.strip().encode()


def _port(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise ValueError("port")
    return value


async def _ask(probe: AppProbe, host: str) -> None:
    """Raises Unwell and whatever the way there raises."""
    match probe.kind:
        case "http":
            await _ask_http(probe, host)
        case "grpc":
            await _ask_grpc(probe)
        case _:
            async with _dialled(probe.port):
                pass


async def _ask_http(probe: AppProbe, host: str) -> None:
    scheme, port, target = "https" if probe.tls else "http", probe.port, probe.target
    for _ in range(MAX_REDIRECTS + 1):
        async with _dialled(port, tls=scheme == "https") as stream:
            answer = await _get(stream, probe, f"{host}:{port}", target)
        if not 200 <= answer.status < 400:
            raise Unwell(f"it answers {answer.status}")
        location = answer.header(b"location")
        if answer.status not in (301, 302, 303, 307, 308) or not location:
            return
        there = urlsplit(urljoin(f"{scheme}://{host}:{port}{target}", location.decode("latin-1")))
        if there.scheme not in ("http", "https") or f"{there.hostname}" != host.strip("[]").lower():
            return  # to somebody else: that it leads there is an answer
        scheme, port = there.scheme, there.port or (443 if there.scheme == "https" else 80)
        target = (there.path or "/") + (f"?{there.query}" if there.query else "")
        if not _TARGET.match(target):
            raise Unwell("it redirects to what is no path")
    raise Unwell(f"more than {MAX_REDIRECTS} redirects")


async def _get(stream: trio.abc.Stream, probe: AppProbe, authority: str, target: str) -> Answer:
    said = dict(probe.headers)
    own = said.get(b"host", authority.encode()).decode()
    fields = [(name, value) for name, value in probe.headers if name not in (b"host", b"connection")]
    for name, value in ((b"user-agent", b"kube-probe/mesh"), (b"accept", b"*/*")):
        if name not in said:
            fields.append((name, value))
    return await HttpClient(stream, own).request("GET", target, headers=[*fields, (b"connection", b"close")])


async def _ask_grpc(probe: AppProbe) -> None:
    asked = protobuf.text(1, probe.service)
    async with _dialled(probe.port) as stream, aclosing(call(stream, _CHECK, asked, [])) as answers:
        async for message in answers:
            status = dict(protobuf.fields(message)).get(1, 0)
            if status != _SERVING:
                raise Unwell(f"its health service says {status!r}, not SERVING")
            return
    raise Unwell("its health service says nothing")


@asynccontextmanager
async def _dialled(port: int, *, tls: bool = False) -> AsyncIterator[trio.abc.Stream]:
    """A connection to the application on loopback, whichever family it listens on. Raises OSError, ssl.SSLError."""
    stream: trio.abc.Stream = await _connect(port)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # as the kubelet: the question is whether it answers, on our own loopback
        stream = trio.SSLStream(stream, context, https_compatible=True)
    try:
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


async def _connect(port: int) -> trio.SocketStream:
    failure: OSError | None = None
    for address in _LOOPBACK:
        family = trio.socket.AF_INET6 if ":" in address else trio.socket.AF_INET
        try:
            sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
        except OSError:
            continue  # this machine does not have the family
        try:
            await sock.connect((address, port))
            return trio.SocketStream(sock)
        except OSError as error:
            sock.close()
            failure = failure or error
        except BaseException:
            sock.close()
            raise
    raise Unwell(f"nobody listens on loopback, port {port}") from failure

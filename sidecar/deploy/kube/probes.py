"""The application's probes, moved to the sidecar's health port (pain 22 of docs/kubernetes.md).

The kubelet probes from outside the mesh, in plaintext, so under default deny it is refused. Its probe is led to
`/app-health/<container>/{livez,readyz,startupz}` on the sidecar's health port, and the sidecar asks the application on
loopback as the kubelet would have: same path and query, headers, scheme, service. What it has to ask goes to it in one
environment variable (`sidecar.admin.pod_health` reads it). Probes by `exec` run in the container and stay. So does one
with a `host` of its own: it asks somebody else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from sidecar.deploy.kube.problems import Findings, Place
from sidecar.deploy.kube.record import HANDLERS, PROBES, with_handler

PATHS: Final = {"livenessProbe": "livez", "readinessProbe": "readyz", "startupProbe": "startupz"}
_AS_IT_IS: Final = "!#$%&'()*+,/:;=?@[]~{}|^`<>\"\\"  # in a path: what goes over the wire unchanged
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
DEFAULT_TIMEOUT: Final = 1  # seconds; Kubernetes' own for `timeoutSeconds`


@dataclass(slots=True)
class Moved:
    """What was moved: the probes as they were, and what the sidecar has to ask in their place."""

    originals: dict[str, Any] = field(default_factory=dict)  # "container/livenessProbe" → {"httpGet": {…}}
    asked: dict[str, Any] = field(default_factory=dict)  # "container/livez" → {"http": {…}, "timeout": 1}


def move(containers: list[Any], place: Place, port: int, moved: Moved, findings: Findings) -> None:
    """Lead every probe of these containers to `port`, in place, and note in `moved` what was there."""
    for index, container in enumerate(containers):
        for kind in PROBES:
            probe = container.get(kind) or {}
            handler = _handler(probe)
            if handler is None or _elsewhere(probe, handler):
                continue
            asked = _asked(probe, handler, container, (*place, index, kind), findings)
            if asked is None:
                continue
            name = container["name"]
            moved.originals[f"{name}/{kind}"] = {handler: probe[handler]}
            moved.asked[f"{name}/{PATHS[kind]}"] = asked
            path = f"/app-health/{name}/{PATHS[kind]}"
            container[kind] = with_handler(probe, {"httpGet": {"path": path, "port": port}})
        _hooks(container, (*place, index), findings)


def _handler(probe: dict[str, Any]) -> str | None:
    return next((each for each in HANDLERS if isinstance(probe.get(each), dict)), None)


def _elsewhere(probe: dict[str, Any], handler: str) -> bool:
    return bool(probe[handler].get("host")) and probe[handler]["host"] not in ("127.0.0.1", "::1", "localhost")


def _asked(
    probe: dict[str, Any], handler: str, container: dict[str, Any], place: Place, findings: Findings
) -> dict[str, Any] | None:
    """What the sidecar has to ask; None where that cannot be told."""
    said = probe[handler]
    port = _port(said.get("port"), container, (*place, handler, "port"), findings)
    if port is None:
        return None
    timeout = probe.get("timeoutSeconds")
    what: dict[str, Any] = {"port": port}
    match handler:
        case "httpGet":
            what["path"] = quote(said.get("path") or "/", safe=_AS_IT_IS)
            if str(said.get("scheme") or "HTTP").upper() == "HTTPS":
                what["scheme"] = "https"
            headers = [[each.get("name") or "", each.get("value") or ""] for each in said.get("httpHeaders") or []]
            for number, (name, value) in enumerate(headers):
                if not _NAME.match(name) or not (value.isascii() and value.isprintable()):
                    findings.refuse(
                        (*place, handler, "httpHeaders", number), f"{name[:60]!r} is no header that can be sent",
                        "write a name of letters, digits and -, and a value in ASCII",
                    )  # fmt: skip
                    return None
            if headers:
                what["headers"] = headers
            kind = "http"
        case "grpc":
            what["service"] = said.get("service") or ""
            kind = "grpc"
        case _:
            kind = "tcp"
    return {kind: what, "timeout": timeout if isinstance(timeout, int) and timeout > 0 else DEFAULT_TIMEOUT}


def _port(port: Any, container: dict[str, Any], place: Place, findings: Findings) -> int | None:
    """The number behind a port that may be a name of one of the container's."""
    if isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536:
        return port
    for each in container.get("ports") or []:
        if port is not None and each.get("name") == port and isinstance(each.get("containerPort"), int):
            return int(each["containerPort"])
    if isinstance(port, str) and port.isdigit() and 0 < int(port) < 65536:
        return int(port)
    findings.refuse(place, f"no port of container {container.get('name')!r} is named {port!r}", "name one of its ports")
    return None


def _hooks(container: dict[str, Any], place: Place, findings: Findings) -> None:
    """Say so where the kubelet would call a hook from outside the mesh."""
    for hook, said in (container.get("lifecycle") or {}).items():
        if isinstance(said, dict) and "httpGet" in said:
            findings.warn(
                (*place, "lifecycle", hook, "httpGet"),
                "the kubelet calls this hook from outside the mesh and is refused",
                "use exec, or exclude its port with sidecar.mesh/exclude-inbound-ports",
            )

"""Can any service of a running project be reached in plaintext? What to knock at, and what the answers mean.

Whom to ask comes from docker's own view of the project, not from the file: a container that somebody added by hand is
knocked at too. The knocking itself is done from outside, by a container of no service on each of the networks, for a
dial from inside goes over loopback and proves nothing (decision D28).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.config import ports
from sidecar.deploy.compose.engine import Container, Docker, EngineFailed
from sidecar.deploy.compose.places import PART
from sidecar.deploy.names import PREFIX

OURS: Final = (ports.CAPTURE_IN, ports.CAPTURE_OUT, ports.HEALTH)  # a sidecar's own ports are knocked at too
PASSED: Final = frozenset(("tls", "closed", "refused", "unreachable"))
MEANS: Final = {
    "plaintext": "answers in plaintext", "tls": "mTLS only", "closed": "closes at once", "refused": "nobody listens",
    "unreachable": "no way there", "silent": "takes a connection and stays silent: neither TLS nor a refusal",
    "published": "published on the host past the mesh",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One port of one service, knocked at from one network."""

    service: str
    network: str
    address: str
    port: int
    answer: str
    detail: str = ""
    declared: bool = False  # outside the mesh, by the user's own label

    @property
    def good(self) -> bool:
        """Whether nobody gets in there without an identity, or the user has said that they may."""
        return self.declared or self.answer in PASSED

    def to_json(self) -> dict[str, Any]:
        """For `-o json`."""
        return {"service": self.service, "network": self.network, "address": self.address, "port": self.port,
                "answer": self.answer, "detail": self.detail, "declared_outside": self.declared,
                "good": self.good}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Door:
    """A published port of a door: plaintext on the host by intent, with an identity of its own behind it."""

    service: str
    host: str
    port: int
    inside: int


def doors(containers: Iterable[Container]) -> list[Door]:
    """The published ports of doors."""
    return [Door(each.of, *binding) for each in containers if each.part == "door" for binding in each.published]


def targets(containers: Sequence[Container], listening: Callable[[Container], list[int]]) -> list[dict[str, Any]]:
    """What to knock at: each address of each namespace of the user's, at each port that somebody listens on there.

    `listening` tells the ports of a namespace. CA and doors are ours: they speak TLS, or are a door.
    """
    found = []
    for each in containers:
        if each.status != "running" or each.part not in ("", "holder") or not each.addresses:
            continue
        outside = each.labels.get(f"{PREFIX}/inject", "").lower() == "false"
        numbers = sorted({*listening(each), *(inside for *_, inside in each.published), *(OURS if each.part else ())})
        found += [
            {"service": each.of or each.service, "network": network, "host": address, "port": number,
             "declared": outside}
            for network, address in each.addresses.items() for number in numbers
        ]  # fmt: skip
    return found


def past_the_mesh(containers: Sequence[Container]) -> list[Finding]:
    """Ports that anything but a door publishes on the host, and containers that use the host's own network."""
    found = []
    for each in containers:
        outside = each.labels.get(f"{PREFIX}/inject", "").lower() == "false"
        if each.part == "door" or each.status != "running":
            continue
        for host, number, inside in each.published:
            found.append(Finding(each.service, "host", host, number, "published", f"its port {inside}", outside))
        if each.mode == "host":
            found.append(Finding(each.service, "host", "", 0, "published", "network_mode: host", outside))
    return found


def judge(answers: Iterable[dict[str, Any]]) -> list[Finding]:
    """What came of the knocking."""
    found = []
    for each in answers:
        detail = ""
        if each["answer"] == "plaintext":
            detail = f"to {each['asked']}: {each['spoke']!r}"
        elif each.get("certificate"):
            detail = identity_in(bytes.fromhex(each["certificate"]))
        found.append(Finding(each["service"], each["network"], each["host"], each["port"], each["answer"], detail,
                             each["declared"]))  # fmt: skip
    return found


def identity_in(certificate: bytes) -> str:
    """The SPIFFE ID in a certificate; who the other side says they are. Nothing is verified."""
    from cryptography import x509

    try:
        names = x509.load_der_x509_certificate(certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except (ValueError, x509.ExtensionNotFound):
        return "a certificate without a SPIFFE ID"
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    return next((uri for uri in uris if uri.startswith("spiffe://")), "a certificate without a SPIFFE ID")


def verify(docker: Docker, project: str) -> tuple[list[Finding], list[Door]]:
    """Knock at everything, from each network of the project. Raises EngineFailed."""
    containers = docker.containers(project)
    running = [each for each in containers if each.status == "running"]
    if not running:
        raise EngineFailed(f"nothing of project {project!r} is running")
    image = next((each.image for each in running if each.part), None)
    if image is None:
        raise EngineFailed(f"project {project!r} has no sidecar at all: it runs as it was before `mesh compose inject`")
    wanted = targets(running, lambda each: _listening(docker, each, running))
    answers: list[dict[str, Any]] = []
    for network in dict.fromkeys(each["network"] for each in wanted):
        here = [each for each in wanted if each["network"] == network]
        answers += _knock(docker, image, network, here)
    return [*past_the_mesh(running), *judge(answers)], doors(running)


def _listening(docker: Docker, container: Container, running: Sequence[Container]) -> list[int]:
    """The ports of a namespace, told by our own program in it; for what has none of ours, those of its image."""
    mine = (each for each in running if each.part == "sidecar" and each.mode == f"container:{container.id}")
    inside = next(mine, container if container.part else None)
    if inside is not None:
        return [int(each) for each in json.loads(docker("exec", inside.id, "mesh", "compose", "sockets"))]
    exposed = json.loads(docker("inspect", "-f", "{{json .Config.ExposedPorts}}", container.id)) or {}
    return sorted(int(each.partition("/")[0]) for each in exposed if each.endswith("/tcp"))


def _knock(docker: Docker, image: str, network: str, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """From a throw-away container on this network, which has no rights and no identity."""
    command = ["run", "--rm", "-i", "--network", network, "--read-only", "--cap-drop", "ALL", "--security-opt",
               "no-new-privileges", "--label", f"{PART}=knocker", image, "compose", "dial"]  # fmt: skip
    answers: list[dict[str, Any]] = json.loads(docker(*command, text=json.dumps(wanted), seconds=120))
    return answers

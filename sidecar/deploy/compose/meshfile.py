"""The mesh.yaml of a compose project: strict, by the services' own names and ports, each permission with its reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from sidecar.config import ports
from sidecar.deploy.compose.model import Member, Project
from sidecar.deploy.compose.places import CA, DOOR
from sidecar.deploy.compose.ports import Port

HEAD = """\
# Who may call whom in this project, made by `mesh compose inject` from {file}.
# Whatever no line here allows is refused. `mesh check -f` reads it back in plain English; docs/config.md has every key.
trust_domain: {trust_domain}
namespace: {namespace}
ca: {{address: "{ca}:{port}"}}
"""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller of `mesh compose inject` may choose besides."""

    trust_domain: str
    metrics_to: str = ""  # the service that may read the metrics of every sidecar


def mesh_yaml(project: Project, file: str, wishes: Wishes) -> str:
    """The whole file."""
    head = HEAD.format(
        file=file, trust_domain=wishes.trust_domain, namespace=project.name, ca=CA, port=ports.CA
    )
    lines = [*head.splitlines(), "services:"]
    for member in project.members.values():
        lines += _member(project, member, wishes)
        if member.doors:
            lines += _door(member)
    return "\n".join(lines) + "\n"


def _member(project: Project, member: Member, wishes: Wishes) -> Iterator[str]:
    yield f"  {member.name}:"
    yield f"    address: {member.name}"
    networks = ", ".join(json.dumps(each) for each in member.told.networks)
    yield "    redirect: {%s}" % (f"passthrough: [{networks}]" if networks else "")
    inbound = [_listener(port) for port in sorted(member.ports.values(), key=lambda port: port.number)]
    if wishes.metrics_to:  # the sidecar's own page is the application of this listener
        yield f'    health: {{listen: "127.0.0.1:{ports.HEALTH}"}}'
        inbound.append(f'      - {{name: metrics, port: {ports.HEALTH}, app: "127.0.0.1:{ports.HEALTH}"}}')
    yield from _block("inbound", inbound)
    yield from _block("outbound", [*_outbound(project, member, wishes)])
    yield from _block("allow", [*_allow(member, wishes)])


def _block(name: str, lines: list[str]) -> list[str]:
    return [f"    {name}:", *lines] if lines else []


def _listener(port: Port) -> str:
    protocol = "" if port.protocol == "http" else f", protocol: {port.protocol}"
    return (f'      - {{name: {port.listener}, port: {port.number}, app: "127.0.0.1:{port.number}"{protocol}}}'
            f"  # {_words(port.told_by)}")  # fmt: skip


def _outbound(project: Project, member: Member, wishes: Wishes) -> Iterator[str]:
    for other in project.members.values():
        reasons = _reasons(other, member.name)
        for number, why in sorted(reasons.items()):
            yield f"      - {{to: {other.name}, port: {other.ports[number].listener}}}  # {why}"
        if wishes.metrics_to == member.name and other is not member:
            yield f"      - {{to: {other.name}, port: metrics}}"
    seen = set()
    for target, port, why in project.outside_calls.get(member.name, []):
        if (target, port.number) not in seen:
            seen.add((target, port.number))
            yield _passthrough(target, target, port.number, port.protocol) + f"  # {_words(why)}: outside the mesh"
    for host, number in member.told.hosts:
        yield _passthrough(host.replace(".", "-") + f"-{number}", host, number, "tcp") + "  # label"


def _passthrough(name: str, host: str, number: int, protocol: str) -> str:
    return (f"      - {{to: {name}, host: {host}, unmeshed: passthrough, protocol: {protocol}, "
            f'endpoints: "{host}:{number}"}}')  # fmt: skip


def _allow(member: Member, wishes: Wishes) -> Iterator[str]:
    callers = sorted({call.caller for call in member.called_by})
    for caller in callers:
        reasons = _reasons(member, caller)
        listeners = ", ".join(member.ports[number].listener for number in sorted(reasons))
        why = "; ".join(dict.fromkeys(reasons.values()))
        yield f"      - {{name: {caller}, from: {caller}, port: [{listeners}]}}  # {why}"
    if member.doors:
        numbers = sorted({door.number for door in member.doors})
        listeners = ", ".join(member.ports[number].listener for number in numbers)
        yield f"      - {{name: {member.name}{DOOR}, from: {member.name}{DOOR}, port: [{listeners}]}}  # ports"
    if wishes.metrics_to and wishes.metrics_to != member.name:
        yield (f"      - {{name: metrics, from: {wishes.metrics_to}, port: metrics, method: GET, path: /metrics}}")


def _reasons(callee: Member, caller: str) -> dict[int, str]:
    """Port → why this caller may use it."""
    found: dict[int, list[str]] = {}
    for call in callee.called_by:
        if call.caller == caller:
            found.setdefault(call.port.number, []).append(_words(call.why))
    return {number: ", ".join(dict.fromkeys(why)) for number, why in found.items()}


def _door(member: Member) -> Iterator[str]:
    """A sidecar of its own for what the host publishes: whoever reaches it speaks as the door, and as nobody else."""
    yield f"  {member.name}{DOOR}:"
    yield "    outbound:"
    for number in sorted({door.number for door in member.doors}):
        listener = member.ports[number].listener
        yield f'      - {{to: {member.name}, port: {listener}, listen: "0.0.0.0:{number}", edge: true}}'


def _words(text: str) -> str:
    """One line for a comment."""
    return text.replace("\n", " ")[:80]

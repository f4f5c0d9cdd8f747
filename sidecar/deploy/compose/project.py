"""What a compose file says of its services, read once: who gets a sidecar, on which ports it listens, who may call it.

Reading takes the whole file and notes every mistake with its line; nothing is changed here. What Compose itself would
refuse (unknown keys, say) is left for Compose to refuse: it is not touched by what we do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ruamel.yaml.comments import CommentedMap

from sidecar.config.mistakes import Book, ConfigErrors, TooMany, nearest
from sidecar.deploy.compose.calls import Calls
from sidecar.deploy.compose.document import place
from sidecar.deploy.compose.labels import read_labels
from sidecar.deploy.compose.model import Member, Project
from sidecar.deploy.compose.places import CA, DOOR, HOLDER, KEYS, PART, SIDECAR
from sidecar.deploy.compose.ports import TCP_PORTS, Port, Published, UnreadablePort, known, port_numbers, published
from sidecar.deploy.names import PREFIX, PROXY_UID

MAX_REPLICAS = 50
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\Z", re.ASCII)
_NET_ADMIN: Final = frozenset(("NET_ADMIN", "CAP_NET_ADMIN", "ALL", "SYS_ADMIN", "CAP_SYS_ADMIN"))
_FLATTEN: Final = "run `docker compose config > flat.yml`, which writes everything out, and inject that"


def read_project(
    document: CommentedMap,
    file: str,
    name: str,
    *,
    scale: Mapping[str, int] | None = None,
    env_files: Mapping[str, str] | None = None,
) -> Project:
    """Read a compose file. `env_files` has the texts of `env_file` entries. Raises ConfigErrors with all mistakes."""
    reader = Reader(document, file, Project(name), Book(), dict(scale or {}), dict(env_files or {}))
    try:
        reader.read()
    except TooMany:
        pass
    if reader.book.mistakes:
        raise ConfigErrors(reader.book.mistakes)
    return reader.project


@dataclass(slots=True)
class Reader:
    """What has been read so far, and the book of mistakes."""

    document: CommentedMap
    file: str
    project: Project
    book: Book
    scale: dict[str, int]
    env_files: dict[str, str]
    hosts: dict[str, str] = field(default_factory=dict)

    def read(self) -> None:
        """Read all of it. Raises TooMany."""
        services = self.document.get("services")
        if not isinstance(services, CommentedMap) or not services:
            what = "has no services" if not services else "services: is a mapping of names"
            self.book.add(place(self.document, "services", self.file), "services", what, "is this a compose file?")
            return
        if "include" in self.document:
            self.wrong(self.document, "include", "include", "other files are not followed", _FLATTEN)
        for name in services:
            self._service(services, str(name))
        self._companions(services)
        self._links(services)
        for member in self.project.members.values():
            self._published(member)
            self._own_ports(member)
        Calls(self).read(services)
        self._protocols()
        for name in self.scale.keys() - self.project.members.keys():
            self.wrong(self.document, "services", "--scale", f"there is no service {name!r} to scale", self.near(name))
        self._conflicts()

    def wrong(self, holder: Any, key: Any, path: str, message: str, hint: str = "") -> None:
        """Note a mistake where this key of a mapping, or item of a list, stands."""
        self.book.add(place(holder, key, self.file), path, message, hint)

    def near(self, name: str) -> str:
        """The hint for a name that is no service."""
        found = nearest(name, self.project.members)
        return f'did you mean "{found}"?' if found else ""

    # ---- one service -----------------------------------------------------------------------------------------------

    def _service(self, services: CommentedMap, name: str) -> None:
        spec, path = services[name], f"services.{name}"
        if not isinstance(spec, CommentedMap):
            self.wrong(services, name, path, "a service is a mapping", "give it an `image:` or a `build:`")
            return
        told = read_labels(spec)
        for label, problem, hint in told.problems:
            self.wrong(spec, "labels", f"{path}.labels", f"{label}: {problem}", hint)
        if any(key == PART for key in _label_keys(spec)):
            self.wrong(spec, "labels", f"{path}.labels", "this service was made by `mesh compose inject`, but the "
                       "original is not at the end of the file", "start from your own file")  # fmt: skip
            return
        if not told.inject:
            self.project.outsiders[name] = {port.number: port for port in told.ports or ()}
            self.project.notes.append(f"{name} stays outside the mesh (label {PREFIX}/inject): plaintext, no identity")
            self._names(name, spec)
            return
        if not _NAME.match(name):
            self.wrong(services, name, path, "a SPIFFE ID has no room for this name",
                       "use small letters, digits and dashes")  # fmt: skip
        self._refuse(spec, path)
        mode = str(spec.get("network_mode") or "")
        if mode == "none":
            self.project.notes.append(f"{name} has no network, and needs no sidecar")
            return
        if mode.startswith("service:"):
            return  # it lives with another one; see _companions
        if mode:
            hint = {"host": "the host's namespace cannot be redirected: use a bridge network and `ports:`"}.get(
                mode, f'take it out, or leave the service outside: labels: {{{PREFIX}/inject: "false"}}'
            )
            self.wrong(spec, "network_mode", f"{path}.network_mode", f"{mode!r} has no namespace of its own", hint)
        member = Member(name, spec, told, self._replicas(name, spec, path))
        self.project.members[name] = member
        self._names(name, spec)
        if spec.get("container_name"):
            member.aliases.append(str(spec["container_name"]))

    def _refuse(self, spec: CommentedMap, path: str) -> None:
        """What would be a hole, or what we cannot carry over."""
        if "extends" in spec:
            self.wrong(spec, "extends", f"{path}.extends", "what it inherits is not in sight", _FLATTEN)
        if "external_links" in spec:
            self.wrong(spec, "external_links", f"{path}.external_links", "other projects have no identity here",
                       f"use a shared network and the label {PREFIX}/outside")  # fmt: skip
        if str(spec.get("user") or "").partition(":")[0] == str(PROXY_UID):
            self.wrong(spec, "user", f"{path}.user", f"{PROXY_UID} is the sidecar's own user, which nothing redirects",
                       "run it as any other")  # fmt: skip
        grown = [str(each).upper() for each in spec.get("cap_add") or []]
        if spec.get("privileged") is True or _NET_ADMIN & set(grown):
            key = "privileged" if spec.get("privileged") is True else "cap_add"
            hint = f'take it away, or leave the service outside: labels: {{{PREFIX}/inject: "false"}}'
            self.wrong(spec, key, f"{path}.{key}", "with this right it could remove the rules that protect it", hint)

    def _replicas(self, name: str, spec: CommentedMap, path: str) -> int:
        deploy = spec.get("deploy")
        said = deploy.get("replicas") if isinstance(deploy, Mapping) else None
        said = self.scale.get(name, spec.get("scale", said))
        if said is None:
            return 1
        if isinstance(said, bool) or not isinstance(said, int) or not 0 <= said <= MAX_REPLICAS:
            key = "scale" if "scale" in spec else "deploy"
            self.wrong(spec, key, path, f"{said!r} replicas: a number up to {MAX_REPLICAS}, written out, is needed",
                       f"each replica gets a namespace of its own: mesh compose inject --scale {name}=3")  # fmt: skip
            return 1
        if said > 1 and spec.get("container_name"):
            self.wrong(spec, "container_name", f"{path}.container_name", f"{said} replicas cannot share one name",
                       "take container_name out")  # fmt: skip
        return max(1, said)

    def _names(self, name: str, spec: CommentedMap) -> None:
        """By which hosts others know it."""
        self.hosts.setdefault(name, name)
        if spec.get("container_name"):
            self.hosts.setdefault(str(spec["container_name"]), name)
        networks = spec.get("networks")
        for network in networks if isinstance(networks, Mapping) else ():
            own = networks[network]
            for alias in (own.get("aliases") or []) if isinstance(own, Mapping) else []:
                self.hosts.setdefault(str(alias), name)

    def _companions(self, services: CommentedMap) -> None:
        for name in services:
            spec = services[name]
            mode = str(spec.get("network_mode") or "") if isinstance(spec, CommentedMap) else ""
            if not mode.startswith("service:") or not read_labels(spec).inject:
                continue
            host = self.project.members.get(mode.partition(":")[2])
            path = f"services.{name}.network_mode"
            if host is None:
                self.wrong(spec, "network_mode", path, f"{mode!r} is no service that gets a sidecar",
                           "name a service of this file that has networks of its own")  # fmt: skip
            elif host.replicas > 1:
                self.wrong(spec, "network_mode", path, f"{host.name} has {host.replicas} replicas: which one?",
                           "give it networks of its own")  # fmt: skip
            else:
                host.companions.append(str(name))
                self.hosts.setdefault(str(name), host.name)
                self.project.notes.append(f"{name} lives in the namespace of {host.name}, and speaks as {host.name}")

    def _links(self, services: CommentedMap) -> None:
        """`db:database` makes another name for db; its holder has it as an alias, for all who share a network."""
        for name in services:
            spec = services[name]
            for link in (spec.get("links") or []) if isinstance(spec, CommentedMap) else []:
                target, _, alias = str(link).partition(":")
                member = self.project.members.get(target)
                if member is not None and alias and alias not in (target, *member.aliases):
                    member.aliases.append(alias)
                    self.hosts.setdefault(alias, target)

    # ---- ports -----------------------------------------------------------------------------------------------------

    def _published(self, member: Member) -> None:
        entries = member.spec.get("ports") or []
        for index, entry in enumerate(entries):
            try:
                member.doors += published(entry)
            except UnreadablePort as error:
                self.wrong(entries, index, f"services.{member.name}.ports[{index}]", str(error), error.hint)
        if member.told.publish:
            off = member.told.publish == "off"
            member.doors = [] if off else [
                Published(each.number, member.told.publish, each.host_port, each.app_protocol) for each in member.doors
            ]  # fmt: skip

    def _own_ports(self, member: Member) -> None:
        """From the label alone where there is one; else from expose, ports and the image."""
        if member.told.ports is not None:
            for port in member.told.ports:
                member.ports[port.number] = port
            for door in member.doors:
                if door.number not in member.ports:
                    self.wrong(member.spec, "ports", f"services.{member.name}.ports", f"{door.number} is published, "
                               f"and the label {PREFIX}/port does not have it", "add it there")  # fmt: skip
            return
        exposed = member.spec.get("expose") or []
        for index, each in enumerate(exposed):
            try:
                for number in port_numbers(str(each).partition("/")[0]):
                    member.ports[number] = Port(number, "http", "expose")
            except UnreadablePort as error:
                self.wrong(exposed, index, f"services.{member.name}.expose[{index}]", str(error), error.hint)
        for door in member.doors:
            spoken = "tcp" if door.app_protocol and not door.app_protocol.startswith(("http", "grpc")) else "http"
            member.ports[door.number] = Port(door.number, spoken, "app_protocol" if door.app_protocol else "ports")  # type: ignore[arg-type]
        found = known(str(member.spec.get("image") or ""))
        if found is not None and not member.ports:
            member.ports[found.number] = found

    def _protocols(self) -> None:
        """What nobody has said is HTTP, but for ports that are known to be something else."""
        for member in self.project.members.values():
            for number, port in member.ports.items():
                if port.told_by in ("label", "app_protocol"):
                    continue
                spoken = member.told.protocol or ("tcp" if number in TCP_PORTS else port.protocol)
                member.ports[number] = Port(number, spoken, port.told_by)

    # ---- conflicts -------------------------------------------------------------------------------------------------

    def _conflicts(self) -> None:
        services = self.document["services"]
        taken = {CA: "the CA", KEYS: "what makes its keys"}
        for member in self.project.members.values():
            for suffix, what in ((HOLDER, "holder"), (SIDECAR, "sidecar"), (DOOR, "door")):
                taken[member.name + suffix] = f"the {what} of {member.name}"
        for name in services:
            if str(name) in taken:
                self.wrong(services, name, f"services.{name}", f"this is the name of {taken[str(name)]}", "rename it")
        doors: dict[str, str] = {}
        for member in self.project.members.values():
            for door in member.doors:
                if not door.host_port:
                    continue
                other = doors.setdefault(door.host_port, member.name)
                if other != member.name:
                    message = f"port {door.host_port} of the host is published by {other} too"
                    self.wrong(member.spec, "ports", f"services.{member.name}.ports", message, "give one another")


def _label_keys(spec: Mapping[str, Any]) -> list[str]:
    labels = spec.get("labels") or {}
    return [str(each).partition("=")[0] for each in labels]

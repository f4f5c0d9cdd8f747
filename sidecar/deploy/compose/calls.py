"""Who calls whom in a project: what the services name is held against the services that there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.deploy.compose.callers import Reference, outside, references
from sidecar.deploy.compose.model import Call, Member
from sidecar.deploy.compose.ports import Port, known
from sidecar.deploy.names import PREFIX

if TYPE_CHECKING:
    from ruamel.yaml.comments import CommentedMap

    from sidecar.deploy.compose.project import Reader


class Calls:
    """The second reading of a file, when all services and their own ports are known."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def read(self, services: CommentedMap) -> None:
        """Note every call; mistakes go into the reader's book."""
        members = self.reader.project.members.values()
        named = [(owner, name) for owner in members for name in (owner.name, *owner.companions)]
        hosts, env_files = self.reader.hosts, self.reader.env_files
        found = [(owner, name, list(references(services[name], hosts, env_files))) for owner, name in named]
        for owner, name, listed in found:
            for each in listed:  # all ports first: who names none may call all of them
                self._learn(owner, services[name], name, each)
        for owner, name, listed in found:
            precise = {each.to for each in listed if each.port is not None}
            for each in listed:
                if each.port is not None or each.to not in precise:  # else another place says the port
                    self._call(owner, services[name], name, each)
            self._note_outside(owner, services[name], name)
        self._named_callers()

    def _note_outside(self, owner: Member, spec: CommentedMap, name: str) -> None:
        for host, port in sorted(outside(spec, self.reader.env_files)):
            if (host, port) not in owner.told.hosts and host not in self.reader.hosts:
                self.reader.project.notes.append(
                    f"{name} names {host}:{port}, outside the project: refused, unless you say so by the label "
                    f'{PREFIX}/outside: "{host}:{port}"'
                )

    def _learn(self, owner: Member, spec: CommentedMap, name: str, each: Reference) -> None:
        """A port that a caller names is one of the callee's, unless its label says which it has."""
        target = self.reader.hosts.get(each.to, each.to)
        callee = self.reader.project.members.get(target)
        if callee is None or callee is owner or each.port is None or each.port in callee.ports:
            return
        if callee.told.ports is not None:
            key = _key(each)
            self.reader.wrong(spec, key, f"services.{name}.{key}", f"it names {each.to}:{each.port}, and the label "
                              f"{PREFIX}/port of {target} does not have that port", "add it there")  # fmt: skip
            return
        callee.ports[each.port] = Port(each.port, each.protocol or "http", each.where)

    def _call(self, owner: Member, spec: CommentedMap, name: str, each: Reference) -> None:
        target = self.reader.hosts.get(each.to, each.to)
        key = _key(each)
        if target == owner.name:
            return
        if target in self.reader.project.outsiders:
            self._call_outside(owner, spec, key, each, target)
            return
        callee = self.reader.project.members.get(target)
        if callee is None:
            if each.to not in (self.reader.document.get("services") or {}):
                message = f"there is no service {each.to!r}"
                self.reader.wrong(spec, key, f"services.{name}.{key}", message, self.reader.near(each.to))
            return
        if each.port is not None and each.port not in callee.ports:
            return  # a mistake, noted by _learn
        ports = [callee.ports[each.port]] if each.port is not None else list(callee.ports.values())
        if not ports and callee.told.ports is None:
            self._nothing_tells(spec, key, name, each, target)
        callee.called_by += [Call(owner.name, port, each.where) for port in ports]

    def _nothing_tells(self, spec: CommentedMap, key: str, name: str, each: Reference, target: str) -> None:
        path = f"services.{name}.{key}"
        if any(mistake.path == path and target in mistake.message for mistake in self.reader.book.mistakes):
            return
        message = f"{each.where} names {target}, and nothing tells on which port {target} listens"
        hint = f'give {target} the label {PREFIX}/port: "8080", or "none" if it takes no connections'
        self.reader.wrong(spec, key, path, message, hint)

    def _call_outside(self, owner: Member, spec: CommentedMap, key: str, each: Reference, target: str) -> None:
        ports = self.reader.project.outsiders[target]
        if each.port is not None and each.port not in ports:
            ports[each.port] = Port(each.port, each.protocol or "http", each.where)
        if not ports:
            found = known(str(self.reader.document["services"][target].get("image") or ""))
            if found is not None:
                ports[found.number] = found
        chosen = [ports[each.port]] if each.port is not None else list(ports.values())
        if not chosen and not each.order_only:
            self._nothing_tells(spec, key, owner.name, each, target)
        calls = self.reader.project.outside_calls.setdefault(owner.name, [])
        calls += [(target, port, each.where) for port in chosen]

    def _named_callers(self) -> None:
        for member in self.reader.project.members.values():
            path = f"services.{member.name}.labels"
            for caller in member.told.callers:
                if caller not in self.reader.project.members:
                    message = f"{PREFIX}/callers: there is no service {caller!r} in the mesh"
                    self.reader.wrong(member.spec, "labels", path, message, self.reader.near(caller))
                    continue
                if not member.ports:
                    hint = f'add the label {PREFIX}/port: "8080"'
                    self.reader.wrong(member.spec, "labels", path, "it has callers, and nothing tells its port", hint)
                member.called_by += [Call(caller, port, f"label {PREFIX}/callers") for port in member.ports.values()]


def _key(each: Reference) -> str:
    """The key of a service that this reference stands under."""
    return "environment" if each.where.startswith("environment") else each.where

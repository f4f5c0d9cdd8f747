"""A compose file with the mesh in it, made of one without: the services stay where they are, with their comments.

A service loses what belongs to its namespace (networks, ports, names, hosts file), which its holder takes over, and
gets `network_mode` and a `depends_on` for its sidecar. All else in it is not touched. What we add stands at the end.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from ruamel.yaml.comments import CommentedMap

from sidecar.config.mistakes import ConfigErrors, Mistake
from sidecar.config.terms import Where
from sidecar.deploy.compose import parts
from sidecar.deploy.compose.document import inherited, made, merged_from, own_keys, plain, read
from sidecar.deploy.compose.meshfile import Wishes, mesh_yaml
from sidecar.deploy.compose.model import Member, Project
from sidecar.deploy.compose.places import CA, DOOR, FOLDER, HOLDER, KEYS, SIDECAR
from sidecar.deploy.compose.project import read_project
from sidecar.deploy.compose.sealed import seal
from sidecar.deploy.compose.splice import ServiceLines, Splice
from sidecar.deploy.names import IMAGE

# What a container in somebody else's namespace may not have: it belongs to whoever owns the namespace.
CARRIED: Final = ("hostname", "domainname", "mac_address", "dns", "dns_search", "dns_opt", "extra_hosts", "sysctls")
GONE: Final = ("networks", "ports", "expose", "links", "scale")
_REMOVED: Final = frozenset((*CARRIED, *GONE))
_OURS: Final = _REMOVED | {"depends_on", "network_mode", "deploy"}
_STARTED: Final = {"condition": "service_started"}  # what a name in a list of depends_on means


@dataclass(frozen=True, slots=True)
class Options:
    """How a file is made. They stand in the file, so that the same comes of it again."""

    project: str
    trust_domain: str = ""
    image: str = IMAGE
    host: str = "127.0.0.1"
    folder: str = FOLDER
    metrics_to: str = ""
    scale: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For the seal."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Injected:
    """What `inject` makes: the compose file, the mesh.yaml beside it, and what the user should hear."""

    compose: bytes
    mesh: str
    project: Project
    identities: tuple[str, ...]


def inject(original: bytes, file: str, options: Options, env_files: dict[str, str] | None = None) -> Injected:
    """Make a compose file with the mesh in it. Raises ConfigErrors with every mistake; then nothing was made."""
    text = decoded(original, file)
    document = read(text, file)
    project = read_project(document, file, options.project, scale=options.scale, env_files=env_files)
    choices = parts.Choices(options.image, f"./{options.folder}/config", options.host, len(project.members))
    identities = [name for each in project.members.values() for name in _identities(each)]
    networks = list(dict.fromkeys(name for each in project.members.values() for name in each.networks))
    added: dict[str, Any] = {KEYS: parts.keys(choices, identities), CA: parts.ca(choices, networks)}
    for member in project.members.values():
        added |= _around(member, choices)
    splice = Splice(text)
    _change_services(splice, document["services"], project)
    _add_services(splice, document, added)
    _add_volumes(splice, document, added)
    wishes = Wishes(options.trust_domain or f"{options.project}.mesh", options.metrics_to)
    compose = seal(splice.text(), original, options.to_json())
    return Injected(compose, mesh_yaml(project, file, wishes), project, tuple(identities))


def decoded(original: bytes, file: str) -> str:
    """The text of a file. Raises ConfigErrors where it is no UTF-8."""
    try:
        return original.decode("utf-8-sig" if original.startswith(b"\xef\xbb\xbf") else "utf-8")
    except UnicodeDecodeError:
        raise ConfigErrors([Mistake(Where(file, 0), "", "this is not UTF-8 text", "save it as UTF-8")]) from None


def _identities(member: Member) -> list[str]:
    return [member.name, *([member.name + DOOR] if member.doors else [])]


def _around(member: Member, choices: parts.Choices) -> dict[str, Any]:
    """Holders, sidecars, further replicas and the door of a member."""
    added: dict[str, Any] = {}
    carried = {key: plain(member.spec[key]) for key in CARRIED if key in member.spec}
    for number in range(1, member.replicas + 1):
        name = member.name if number == 1 else f"{member.name}-{number}"
        networks = _networks(member, first=number == 1)
        added[name + HOLDER] = parts.holder(choices, name, member.name, networks, dict(carried))
        added[name + SIDECAR] = parts.sidecar(choices, member.name, name + HOLDER)
        if number > 1:
            added[name] = _replica(member, name)
    if member.doors:
        added[member.name + DOOR] = parts.door(choices, member.name, member.networks, member.doors)
    if member.spec.get("profiles"):
        for part in added.values():
            part["profiles"] = plain(member.spec["profiles"])
    return added


def _replica(member: Member, name: str) -> CommentedMap:
    copy = CommentedMap((key, plain(member.spec[key])) for key in member.spec if key not in _REMOVED)
    if "deploy" in copy:
        copy["deploy"].pop("replicas", None)
        if not copy["deploy"]:
            del copy["deploy"]
    copy["network_mode"] = made(f"service:{name}{HOLDER}")
    copy["depends_on"] = _waits(member.spec, name + SIDECAR)
    return copy


def _change_services(splice: Splice, services: CommentedMap, project: Project) -> None:
    joins = {name: member for member in project.members.values() for name in (member.name, *member.companions)}
    names = list(services)
    for index, name in enumerate(names):
        spec = services[name]
        if not isinstance(spec, CommentedMap):
            continue
        below = services.lc.key(names[index + 1])[0] if index + 1 < len(names) else None
        heir = any(each is services[other] for each in merged_from(spec) for other in joins)
        merged = inherited(spec) if heir or any(key in _OURS for key in inherited(spec)) else None
        lines = ServiceLines(splice, services, name, below)
        member = joins.get(str(name))
        if member is None:
            if heir:
                lines.change(frozenset(), {}, {}, merged)
            continue
        top = {"network_mode": made(f"service:{member.name}{HOLDER}")}
        instead = {"depends_on": _waits(spec, member.name + SIDECAR)}
        if member.replicas > 1 and isinstance(spec.get("deploy"), CommentedMap) and "replicas" in spec["deploy"]:
            instead["deploy"] = plain(spec["deploy"]) | {"replicas": 1}
        lines.change(_REMOVED, top, instead, merged)


def _waits(spec: CommentedMap, sidecar: str) -> CommentedMap:
    """What it waited for before, and its sidecar."""
    before = spec.get("depends_on") or []
    waits = CommentedMap()
    for name in before:
        waits[name] = plain(before[name]) if isinstance(before, CommentedMap) else made(_STARTED)
    waits[made(sidecar)] = made({"condition": "service_healthy"})
    return waits


def _add_services(splice: Splice, document: CommentedMap, added: dict[str, Any]) -> None:
    """Below the last of the user's services."""
    services = document["services"]
    column = services.lc.key(next(iter(services)))[1]
    end = splice.reach(*document.lc.key("services"))
    splice.put(end, ["", " " * column + "# ---- the mesh ----"])
    for name, part in added.items():
        block = CommentedMap({name: part if isinstance(part, CommentedMap) else made(part)})
        splice.put(end, splice.like(block, column))


def _networks(member: Member, *, first: bool) -> dict[str, Any]:
    """The user's networks with what stands in them; the service's own names become aliases, those of replicas too."""
    own, found = member.spec.get("networks"), {}
    for name in member.networks:
        settings = plain(own[name]) if isinstance(own, CommentedMap) and own[name] else CommentedMap()
        aliases = dict.fromkeys([member.name, *member.aliases, *map(str, settings.get("aliases") or [])])
        kept = {key: settings[key] for key in settings if key != "aliases" and (first or "address" not in key)}
        found[name] = {"aliases": list(aliases), **kept}
    return found


def _add_volumes(splice: Splice, document: CommentedMap, added: dict[str, Any]) -> None:
    """Below the user's volumes, or at the end of the file."""
    ours = made(parts.volumes(added.values()))
    theirs = document.get("volumes")
    if "volumes" not in document:
        last = max(splice.reach(*document.lc.key(key)) for key in document)
        splice.put(last, ["", *splice.like(CommentedMap({"volumes": ours}), 0)])
    elif isinstance(theirs, CommentedMap) and theirs.fa.flow_style() is not True and own_keys(theirs):
        line, column = document.lc.key("volumes")
        splice.put(splice.reach(line, column), splice.like(ours, theirs.lc.key(own_keys(theirs)[0])[1]))
    else:
        line, column = document.lc.key("volumes")
        whole = plain(theirs) if isinstance(theirs, CommentedMap) else CommentedMap()
        whole.update(ours)
        splice.drop(line, column)
        splice.put(line, splice.like(CommentedMap({"volumes": whole}), column))

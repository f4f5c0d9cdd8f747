"""What we add to a compose file: a CA, what makes its keys, and for each service a holder, a sidecar, perhaps a door.

Only what Compose v2 and docker-compose 1.29 both read is used. Every container is read-only, without capabilities but
for those named here, and cannot gain any.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from sidecar.config import ports
from sidecar.deploy import names
from sidecar.deploy.compose.places import (
    CA,
    CA_DIR,
    CA_VOLUME,
    CONFIG_AT,
    CONFIG_FILE,
    DOOR,
    HOLDER,
    KEY_AT,
    KEY_FILE,
    KEY_VOLUME,
    KEYS,
    KEYS_AT,
    OF,
    PART,
    PASSPHRASE_AT,
    PASSPHRASE_FILE,
    PASSPHRASE_VOLUME,
    STATE_VOLUME,
)
from sidecar.deploy.compose.ports import Published

OWNER: Final = f"{names.PROXY_UID}:{names.PROXY_GID}"
LOOK: Final = {"timeout": "10s", "retries": 60}
SOONEST, LATEST = 2, 5  # seconds from one look to the next
NO_LOOK: Final = {"disable": True}  # the image's own check is for sidecars
STOP: Final = "35s"  # the sidecar's own drain takes 30 s at most (`timeouts.drain`)


@dataclass(frozen=True, slots=True)
class Choices:
    """What the parts are made with."""

    image: str = names.IMAGE
    config: str = "./.mesh/config"  # folder of mesh.yaml, from the project's folder
    host: str = "127.0.0.1"  # of published ports that name none
    services: int = 1  # that get a sidecar

    @property
    def look(self) -> dict[str, object]:
        """How often to look whether a part is well: each look starts a process, so the more parts the less often.

        An engine that compose 1.29 may speak to has no interval of its own for the start.
        """
        return {"interval": f"{min(LATEST, max(SOONEST, self.services // 2))}s", **LOOK}


def holder(choices: Choices, name: str, of: str, networks: Any, carried: dict[str, Any]) -> dict[str, Any]:
    """Owns the namespace: networks, aliases, hosts file, rules. It installs the rules, drops every right, and stays."""
    return {
        **_base(choices, "holder", of), "command": ["redirect", "hold", "--own-ports", "none"], "user": "0:0",
        "cap_add": ["NET_ADMIN", "SETUID", "SETGID"],
        "networks": networks, "healthcheck": NO_LOOK, "restart": "unless-stopped", "stop_grace_period": "1s", **carried,
    }  # fmt: skip


def sidecar(choices: Choices, of: str, holder_name: str) -> dict[str, Any]:
    """The sidecar of one service, or of one of its replicas, in its holder's namespace."""
    return {
        **_proxy(choices, "sidecar", of, of, holder_name.removesuffix(HOLDER)),
        "network_mode": f"service:{holder_name}",
        "depends_on": {CA: {"condition": "service_healthy"}, holder_name: {"condition": "service_started"}},
    }


def door(choices: Choices, of: str, networks: list[str], published: Iterable[Published]) -> dict[str, Any]:
    """What answers on the host's published ports: a sidecar of its own, with an identity of its own."""
    return {
        **_proxy(choices, "door", of, of + DOOR, of + DOOR), "networks": networks,
        "ports": [_mapping(choices, each) for each in published],
        # it opens once the service has let go of the port that it published itself before
        "depends_on": {CA: {"condition": "service_healthy"}, of: {"condition": "service_started"}},
    }  # fmt: skip


def ca(choices: Choices, networks: list[str]) -> dict[str, Any]:
    """The project's CA, on every network of the project, published nowhere."""
    return {
        **_base(choices, "ca", CA), "user": OWNER, "networks": networks,
        "command": ["ca", "serve", "--dir", CA_DIR, "--listen", f"0.0.0.0:{ports.CA}",
                    "--passphrase-file", PASSPHRASE_FILE],
        "volumes": [f"{CA_VOLUME}:{names.STATE_PATH}", f"{PASSPHRASE_VOLUME}:{PASSPHRASE_AT}:ro"],
        "tmpfs": ["/tmp:mode=1777,size=8m"],  # noqa: S108 - the container's own
        "healthcheck": {"test": ["CMD", "mesh", "compose", "listens", str(ports.CA)], **choices.look},
        "depends_on": {KEYS: {"condition": "service_completed_successfully"}}, "restart": "unless-stopped",
    }  # fmt: skip


def keys(choices: Choices, identities: Iterable[str]) -> dict[str, Any]:
    """Runs once at each `up`, without a network: makes or completes the CA, and a key for each identity in its volume.

    It begins as root for no longer than it takes to give the volumes to the sidecar's user, whom it then becomes.
    """
    volumes = [f"{CA_VOLUME}:{names.STATE_PATH}", f"{PASSPHRASE_VOLUME}:{PASSPHRASE_AT}", _config(choices)]
    volumes += [f"{KEY_VOLUME}{identity}:{KEYS_AT}/{identity}" for identity in identities]
    return {
        **_base(choices, "keys", CA), "user": "0:0", "cap_add": ["CHOWN", "SETUID", "SETGID"], "network_mode": "none",
        "command": ["compose", "keys", "-f", CONFIG_FILE, "--ca-address", f"{CA}:{ports.CA}"],
        "volumes": volumes, "tmpfs": ["/tmp:mode=1777,size=8m"], "healthcheck": NO_LOOK, "restart": "no",  # noqa: S108 - the container's own
    }  # fmt: skip


def volumes(added: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The volumes of all these parts, marked as ours so that `mesh down` finds them, and nobody else's."""
    ours = (CA_VOLUME, PASSPHRASE_VOLUME, KEY_VOLUME, STATE_VOLUME)
    mounted = (volume.partition(":")[0] for part in added for volume in part.get("volumes", ()))
    return {name: {"labels": {PART: "volume"}} for name in mounted if name.startswith(ours)}


def _base(choices: Choices, part: str, of: str) -> dict[str, Any]:
    return {
        "image": choices.image, "labels": {PART: part, OF: of}, "read_only": True, "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }  # fmt: skip


def _proxy(choices: Choices, part: str, of: str, service: str, home: str) -> dict[str, Any]:
    """A sidecar of this service. Its state has a volume of its own, which outlives the container: what it knows of the
    roots, and the audit. A root may leave while it runs, and its enrolment file learns of that at the next `up` only.
    """
    mine = f"uid={names.PROXY_UID},gid={names.PROXY_GID}"
    return {
        **_base(choices, part, of), "user": OWNER,
        "command": ["run", "-f", CONFIG_FILE, "--service", service, "--enrolment", f"{KEY_AT}/{KEY_FILE}",
                    "--state", names.STATE_PATH, "--run-dir", names.RUN_PATH],
        "volumes": [_config(choices), f"{KEY_VOLUME}{service}:{KEY_AT}:ro", f"{STATE_VOLUME}{home}:{names.STATE_PATH}"],
        "tmpfs": [f"{names.RUN_PATH}:mode=0700,{mine},size=1m", "/tmp:mode=1777,size=8m"],  # noqa: S108 - the container's own
        "healthcheck": {"test": ["CMD", "mesh", "status", "--service", service, "--ready",
                                 "--run-dir", names.RUN_PATH], **choices.look},
        "restart": "unless-stopped", "stop_grace_period": STOP,
    }  # fmt: skip


def _config(choices: Choices) -> str:
    return f"{choices.config}:{CONFIG_AT}:ro"


def _mapping(choices: Choices, each: Published) -> str:
    """`127.0.0.1:8080:80`; a host that the user wrote stays."""
    host = each.host or choices.host
    return f"{f'[{host}]' if ':' in host else host}:{each.host_port}:{each.number}"

"""What runs inside a project before its CA: the CA's folder, and an enrolment key for each identity in its own volume.

It starts as root with three rights, gives the fresh volumes to the sidecar's user, becomes that user, and only then
makes a key. So no key ever lies in a file of the host, and each sidecar sees its own alone. Running it again completes
what is there: keys stay, a new service gets one, files learn of new roots.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from certs.store import read_private, write_private
from sidecar.deploy import names
from sidecar.deploy.compose import places

if TYPE_CHECKING:
    from sidecar.config.schema import MeshConfig


@dataclass(frozen=True, slots=True)
class Rooms:
    """Where the volumes are mounted; a test has them elsewhere."""

    ca: Path = Path(places.CA_DIR)
    passphrase: Path = Path(places.PASSPHRASE_FILE)
    keys: Path = Path(places.KEYS_AT)

    def volumes(self) -> list[Path]:
        """The roots of all volumes."""
        return [self.ca.parent, self.passphrase.parent, *sorted(self.keys.iterdir())]


def become_sidecar(rooms: Rooms) -> None:
    """Give the volumes to the sidecar's user and be that user from now on. Nothing where we are not root."""
    if os.geteuid() != 0:
        return
    for volume in rooms.volumes():
        if volume.stat().st_uid != names.PROXY_UID:
            volume.chmod(0o700)  # while it is ours: afterwards that would take another right
            os.chown(volume, names.PROXY_UID, names.PROXY_GID)
    os.setgroups([])
    os.setgid(names.PROXY_GID)
    os.setuid(names.PROXY_UID)


def make_keys(config: MeshConfig, ca_address: str, rooms: Rooms) -> list[str]:
    """Make or complete the CA and put each identity's key into its volume; returns whose are new or changed.

    Raises MeshError, OSError. Takes about 100 ms.
    """
    from ca.bootstrap import enrolment_file, prepare
    from ca.entries import NewEntry

    passphrase = _passphrase(rooms.passphrase)
    services = config.services.values()
    entries = [NewEntry(service.identity, (service.name,)) for service in services]
    prepare(rooms.ca, config.trust_domain, passphrase, entries, ca_address)
    changed = []
    for service in services:
        folder = rooms.keys / service.name
        if not folder.is_dir():
            continue  # no volume of this name: a service that somebody wrote into mesh.yaml by hand
        key, target = read_private(enrolment_file(rooms.ca, service.identity)), folder / places.KEY_FILE
        if not target.exists() or read_private(target) != key:
            write_private(target, key)
            changed.append(service.name)
    return changed


def _passphrase(path: Path) -> bytes:
    """The CA's passphrase, a random one made at the first run; it has a volume of its own, apart from the CA's."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32).encode())
    return read_private(path)

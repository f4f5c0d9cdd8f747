"""A service in a container that needs no CA: its identity lies in files, so that what is tested is the container."""

from __future__ import annotations

import os
import time
from pathlib import Path

from certs.keys import key_to_pem
from sidecar.deploy import names
from tests.kit.identities import a_bundle, a_root, an_issuer, an_svid

OWNED = f"uid={names.PROXY_UID},gid={names.PROXY_GID},mode=0700"


def identity_folder(folder: Path, service: str = "web", extra: str = "") -> Path:
    """A folder for /etc/mesh: a config with one service, and its certificate, key and bundle. `extra` are more lines of
    the service, indented by four.
    """
    now = time.time()
    root = a_root(now=now)
    svid = an_svid(an_issuer(root, now=now), service, now=now)
    folder.mkdir(parents=True, exist_ok=True)
    files = {"tls.crt": svid.chain_pem(), "tls.key": key_to_pem(svid.key, None), "ca.crt": a_bundle(root).to_pem()}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    place = Path(names.CONFIG_PATH).parent
    config = (
        f"trust_domain: demo.mesh\nservices:\n  {service}:\n"
        f"    identity_source: {{files: {{cert: {place}/tls.crt, key: {place}/tls.key, bundle: {place}/ca.crt}}}}\n"
        f"    health: {{listen: off}}\n{extra}"
    )
    (folder / Path(names.CONFIG_PATH).name).write_text(config)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o750 if path.is_dir() else 0o640)
        os.chown(path, names.PROXY_UID, names.PROXY_GID)
    return folder


def flags(folder: Path) -> list[str]:
    """What docker and podman are told so that a read-only container runs with this folder."""
    mounts = [f"--tmpfs={place}:rw,{OWNED}" for place in (names.STATE_PATH, names.RUN_PATH)]
    return [*mounts, f"--volume={folder}:{Path(names.CONFIG_PATH).parent}:ro"]

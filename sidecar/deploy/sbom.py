"""What an installation consists of, as a CycloneDX document: `python -m sidecar.deploy.sbom --lock requirements.lock`.

Theory of operation. The list is made from what *is* installed, not from what was asked for: the distributions that the
running interpreter finds, this interpreter itself, and the system's packages where dpkg keeps a list. The lock file
adds the hashes that each distribution was checked against, and is itself checked: whatever is installed beside it, in
it but not installed, or of another version is an error, so an image whose list would be wrong is not built.

The document has no time and no random serial number: the same installation gives the same bytes. Format: CycloneDX 1.5
(ECMA-424); package URLs as in https://github.com/package-url/purl-spec.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import re
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

from certs.errors import MeshError
from sidecar import __version__

OURS = "mesh"
DPKG = Path("/var/lib/dpkg/status")
OS_RELEASE = Path("/etc/os-release")
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_REQUIRED = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*")


class Incomplete(MeshError):
    """What is installed is not what the lock file says."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One line of a lock file: a version, and the SHA-256 of every file that may serve it."""

    version: str
    hashes: tuple[str, ...]


def normal(name: str) -> str:
    """A distribution's name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_lock(text: str) -> dict[str, Pin]:
    """The pins of a lock file as pip-compile writes them, by normal name."""
    pins: dict[str, Pin] = {}
    name = ""
    for line in text.splitlines():
        if found := _PIN.match(line):
            name = normal(found[1])
            pins[name] = Pin(found[2], ())
        if name and not line.lstrip().startswith("#"):
            pins[name] = Pin(pins[name].version, (*pins[name].hashes, *_HASH.findall(line)))
    return pins


def differences(installed: Mapping[str, str], pins: Mapping[str, Pin]) -> list[str]:
    """Where an installation (name → version) is not what the lock says; ourselves aside. One sentence each."""
    found = []
    for name in sorted({*installed, *pins} - {OURS}):
        if name not in pins:
            found.append(f"{name} {installed[name]} is installed, and the lock file has no such package")
        elif name not in installed:
            found.append(f"{name} {pins[name].version} is in the lock file, and is not installed")
        elif installed[name] != pins[name].version:
            found.append(f"{name} {installed[name]} is installed, the lock file says {pins[name].version}")
    return found


def python_component(distribution: Distribution, pin: Pin | None) -> dict[str, Any]:
    """One installed distribution. Its hashes are those that the lock allows, one of which was installed."""
    name, version = normal(distribution.name), distribution.version
    component: dict[str, Any] = {
        "type": "library", "bom-ref": f"pkg:pypi/{quote(name)}@{quote(version)}", "name": name, "version": version,
        "purl": f"pkg:pypi/{quote(name)}@{quote(version)}",
    }  # fmt: skip
    if licence := _licence(distribution):
        component["licenses"] = [{"license": {"name": licence}}]
    if pin is not None:
        component["properties"] = [{"name": "mesh:locked:sha256", "value": each} for each in sorted(pin.hashes)]
    return component


def _licence(distribution: Distribution) -> str:
    """The licence in the distribution's own words: the expression of PEP 639, else a short field, else classifiers."""
    metadata = distribution.metadata
    if "License-Expression" in metadata:
        return str(metadata["License-Expression"])
    short = str(metadata["License"]) if "License" in metadata else ""
    if short and "\n" not in short and len(short) < 100:
        return short
    classes = [str(each) for each in metadata.get_all("Classifier") or [] if str(each).startswith("License ::")]
    return " AND ".join(each.rpartition(" :: ")[2] for each in classes)


def requirements(distribution: Distribution) -> list[str]:
    """The normal names that a distribution asks for whatever extras are chosen; markers of platforms are not judged."""
    names = {
        normal(found[0])
        for line in distribution.requires or []
        if "extra ==" not in line and (found := _REQUIRED.match(line))
    }
    return sorted(names)


def system_components(status: str, os_release: str) -> list[dict[str, Any]]:
    """The installed packages of a dpkg status file, in the order of their names."""
    told = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    vendor = told.get("ID", "debian").strip('"')
    release = f"{vendor}-{told.get('VERSION_ID', '').strip(chr(34))}".rstrip("-")
    found = []
    for block in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(" "))
        if not fields.get("Status", "").endswith(" installed"):
            continue
        name, version = fields["Package"], fields["Version"]
        arch = fields.get("Architecture", "all")
        purl = f"pkg:deb/{vendor}/{quote(name)}@{quote(version)}?arch={arch}&distro={release}"
        found.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl})
    return sorted(found, key=lambda each: str(each["bom-ref"]))


def interpreter() -> dict[str, Any]:
    """Python itself."""
    version = platform.python_version()
    return {"type": "framework", "bom-ref": f"pkg:generic/python@{version}", "name": "python", "version": version,
            "purl": f"pkg:generic/python@{version}"}  # fmt: skip


def document(
    found: Iterable[Distribution], pins: Mapping[str, Pin], system: Iterable[dict[str, Any]] = ()
) -> dict[str, Any]:
    """The whole document. Raises Incomplete where the installation is not what the lock says."""
    installed = {normal(each.name): each for each in found}
    if wrong := differences({name: each.version for name, each in installed.items()}, pins):
        raise Incomplete("; ".join(wrong))
    parts = {name: python_component(each, pins.get(name)) for name, each in sorted(installed.items())}
    ours = parts.pop(OURS, None) or {"name": OURS, "version": __version__, "bom-ref": OURS}
    components = [*parts.values(), interpreter(), *system]
    refs = {name: str(part["bom-ref"]) for name, part in parts.items()} | {OURS: str(ours["bom-ref"])}
    graph = [
        {"ref": refs[name], "dependsOn": sorted(refs[each] for each in requirements(installed[name]) if each in refs)}
        for name in sorted(installed)
    ]
    body = {
        "metadata": {
            "component": {**ours, "type": "application"},
            "tools": {"components": [{"type": "application", "name": "sidecar.deploy.sbom", "version": __version__}]},
        },
        "components": components,
        "dependencies": graph,
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
    head = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}",
    }  # fmt: skip
    return {**head, **body}


def main(arguments: list[str] | None = None) -> int:
    """Print the document of this very installation. Exit code 1, and why, where it is not what the lock says."""
    about = "A CycloneDX list of what is installed."
    parser = argparse.ArgumentParser(prog="python -m sidecar.deploy.sbom", description=about)
    parser.add_argument("--lock", type=Path, required=True, help="The lock file that everything was installed from.")
    lock = parser.parse_args(arguments).lock
    system = system_components(DPKG.read_text(), OS_RELEASE.read_text()) if DPKG.exists() else []
    try:
        made = document(distributions(), parse_lock(lock.read_text()), system)
    except Incomplete as error:
        print(f"sbom: {error}. Install from the lock file, and nothing else.", file=sys.stderr)
        return 1
    print(json.dumps(made, indent=1, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())

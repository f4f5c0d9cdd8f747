"""What we write beside a user's compose file: all of it, or nothing; and what we may remove again."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from certs.errors import MeshError
from sidecar.deploy.compose.places import FOLDER

FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")  # as Compose looks for them
UP_FILE = "docker-compose.yml"  # in our folder: what `mesh up --compose` runs
_STAMP = re.compile(rb"\A# sha256 ([0-9a-f]{64}) of all below; [^\n]*\n")


class EditedByHand(MeshError):
    """A file that we made has been changed since."""

    name = "edited_by_hand"


@dataclass(frozen=True, slots=True)
class Beside:
    """Our folder beside a compose file."""

    path: Path

    @classmethod
    def of(cls, file: Path, name: str = FOLDER) -> Beside:
        """The folder that goes with this compose file."""
        return cls(file.absolute().parent / name)

    @property
    def mesh(self) -> Path:
        """The project's mesh.yaml."""
        return self.path / "config" / "mesh.yaml"

    def write(self, mesh: str, others: Mapping[Path, bytes], *, force: bool = False, keep: bool = False) -> None:
        """Write mesh.yaml and these files besides, each whole. Raises EditedByHand before anything was written.

        With `keep` a mesh.yaml that is there stays; with `force` it is overwritten even if somebody has edited it.
        """
        keep = keep and self.mesh.is_file()
        if not force and not keep:
            self.check_untouched()
        for folder in (self.path, self.mesh.parent):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)  # the sidecars read it as another user; no secret is here
        if self.path.name.startswith("."):  # all that is here can be made again; a folder that somebody names is theirs
            _replace(self.path / ".gitignore", b"*\n")
        if not keep:
            _replace(self.mesh, stamped(mesh.encode()))
        for path, content in others.items():
            _replace(path, content)

    def check_untouched(self) -> None:
        """Raise EditedByHand where the mesh.yaml that is there is not as we made it."""
        try:
            content = self.mesh.read_bytes()
        except FileNotFoundError:
            return
        stamp = _STAMP.match(content)
        if stamp is None or hashlib.sha256(content[stamp.end() :]).hexdigest() != stamp[1].decode():
            raise EditedByHand(f"{self.mesh} has been edited; --force overwrites it, --keep-mesh leaves it as it is")

    def remove(self) -> None:
        """Remove the folder, if all in it is ours."""
        if (self.path / ".gitignore").is_file() and not self.path.is_symlink():
            shutil.rmtree(self.path)


def stamped(content: bytes) -> bytes:
    """With a first line that tells whether somebody has edited the rest."""
    digest = hashlib.sha256(content).hexdigest()
    return f"# sha256 {digest} of all below; `mesh compose inject` overwrites no edits\n".encode() + content


def find(folder: Path) -> Path | None:
    """The compose file of a folder, as Compose would find it."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def project_name(file: Path, said: str | None, document_name: object = None) -> str:
    """The project's name as Compose has it: said, from the environment, in the file, else the folder's name."""
    name = said or os.environ.get("COMPOSE_PROJECT_NAME") or (document_name if isinstance(document_name, str) else "")
    name = name or file.absolute().parent.name
    return re.sub(r"[^a-z0-9_-]", "", name.lower()).lstrip("_-") or "default"


def namespace(project: str) -> str:
    """The namespace of its identities: a SPIFFE ID of ours has no underscores."""
    return project.replace("_", "-").strip("-") or "default"


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole, or not at all; containers read it under another user."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), path.stat().st_mode & 0o777 if path.exists() else 0o644)
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

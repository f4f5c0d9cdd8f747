"""The main file and what it includes: read once, in one consistent generation, into drafts.

Kubernetes swaps the files of a ConfigMap behind a symlink, and people save while we read. So every file is read again
at the end; if one changed meanwhile, the whole is read anew, and what was read is never a mixture of two generations.
"""
# ruff: noqa: PTH118, PTH120, PTH207 - paths stay text: they are quoted in messages as the operator wrote them

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Protocol

from sidecar.config.contracts import attach
from sidecar.config.document import Entries, decode, parse
from sidecar.config.mistakes import Book
from sidecar.config.plain import Scope
from sidecar.config.reader import Draft, read_record
from sidecar.config.schema import MeshConfig
from sidecar.config.terms import Where

MAX_FILES: Final = 256
NO_FILE: Final = "name another with -f, or begin with the demo's: mesh up --show-config > mesh.yaml"
_INCLUDED: Final = ("services", "include")  # what an included file may say


class Shelf(Protocol):
    """Where files come from."""

    def read(self, path: str) -> bytes:
        """The bytes of a file. Raises OSError."""
        ...

    def match(self, folder: str, pattern: str) -> list[str]:
        """The files that this pattern means, seen from the folder, in order."""
        ...

    def real(self, path: str) -> str:
        """One name for each file, whatever way leads to it."""
        ...


@dataclass
class Disk:
    """Files as they are, remembered so that a change meanwhile is noticed."""

    seen: dict[str, bytes] = field(default_factory=dict)

    def read(self, path: str) -> bytes:
        """Read a file, once. Raises OSError."""
        if path not in self.seen:
            self.seen[path] = Path(path).read_bytes()
        return self.seen[path]

    def match(self, folder: str, pattern: str) -> list[str]:
        """A literal name stands for itself, present or not; hidden files match no wildcard."""
        if not glob.has_magic(pattern):
            return [os.path.normpath(os.path.join(folder, pattern))]
        found = sorted(glob.glob(pattern, root_dir=folder or ".", recursive=True))
        paths = [os.path.normpath(os.path.join(folder, name)) for name in found]
        return [path for path in paths if Path(path).is_file()]

    def real(self, path: str) -> str:
        """The path with symlinks resolved."""
        return os.path.realpath(path)

    def unchanged(self) -> bool:
        """Whether every file still has the bytes that were read."""
        try:
            return all(Path(path).read_bytes() == data for path, data in self.seen.items())
        except OSError:
            return False


@dataclass
class Memory:
    """Files in a mapping, for tests and for text that has no file."""

    files: Mapping[str, bytes]

    def read(self, path: str) -> bytes:
        """The bytes under this name. Raises FileNotFoundError."""
        if path not in self.files:
            raise FileNotFoundError(2, "No such file or directory")
        return self.files[path]

    def match(self, folder: str, pattern: str) -> list[str]:
        """Names that match; here `*` crosses slashes."""
        whole = os.path.normpath(os.path.join(folder, pattern))
        return sorted(name for name in self.files if fnmatchcase(name, whole)) if glob.has_magic(pattern) else [whole]

    def real(self, path: str) -> str:
        """The name itself."""
        return path


@dataclass
class Collected:
    """Everything that was read: the main draft, and all services by name."""

    main: Draft
    services: dict[str, Draft] = field(default_factory=dict)
    broken: bool = False  # some file could not be read, so services may be missing
    globs: list[tuple[str, str]] = field(default_factory=list)  # folder and pattern of every include that has wildcards
    digest: str = ""  # SHA-256 over names and bytes: changes exactly when the config does


def collect(path: str, shelf: Shelf, scope: Scope, book: Book) -> Collected:
    """Read the main file and all it includes. Raises TooMany alone; whatever is wrong stands in the book."""
    collector = _Collector(shelf, book)
    collected = collector.collected
    main = collector.file(path, (), Where(path, 0), scope)
    collected.broken = collected.broken or main is None
    collected.main = main or collected.main
    attach(collected.services.values(), collector.bytes_of, book)
    collected.digest = collector.hash.hexdigest()
    return collected


class _Collector:
    def __init__(self, shelf: Shelf, book: Book) -> None:
        self.shelf = shelf
        self.book = book
        self.hash = hashlib.sha256()
        self.collected = Collected(Draft(MeshConfig, "", Where("", 0), incomplete=True))
        self.read: set[str] = set()

    def file(self, path: str, chain: tuple[str, ...], asked: Where, scope: Scope) -> Draft | None:
        """Read one file and those it includes; `asked` is where it was asked for."""
        node = self._parse(path, asked, "include" if chain else "")
        if node is None:
            self.collected.broken = True
            return None
        node = self._without_duplicates(node)
        draft = read_record(MeshConfig, node, "", scope, self.book, only=_INCLUDED if chain else ())
        if not chain:
            scope = _scope_of(draft, scope)
        self.collected.services.update(draft.values.get("services", {}))
        places = {i: self.book.place(f"include[{i}]") for i in range(len(draft.values.get("include", ())))}
        for index, pattern in enumerate(draft.values.get("include", ())):
            self._include(pattern, index, (*chain, path), places[index], scope)
        return draft

    def _parse(self, path: str, asked: Where, key: str) -> Entries | None:
        self.read.add(self.shelf.real(path))
        try:
            data = self.shelf.read(path)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = getattr(error, "strerror", None) or str(error)
            hint = NO_FILE if isinstance(error, FileNotFoundError) and not key else ""
            self.book.add(asked, key, f"cannot read {path}: {reason}" if key else f"cannot read: {reason}", hint)
            return None
        self._digest(path, data)
        text = decode(data, path, self.book)
        if text is None:
            return None
        self.book.sources[path] = text
        return parse(text, path, self.book)

    def bytes_of(self, path: str) -> bytes:
        """A file beside the config that is read with it, and changes what it is. Raises OSError."""
        data = self.shelf.read(path)
        self._digest(path, data)
        return data

    def _digest(self, path: str, data: bytes) -> None:
        name = path.encode("utf-8", "surrogatepass")
        self.hash.update(b"%d %d\0%s%s" % (len(name), len(data), name, data))

    def _include(self, pattern: str, index: int, chain: tuple[str, ...], where: Where, scope: Scope) -> None:
        folder = os.path.dirname(chain[-1])
        paths = self.shelf.match(folder, pattern)
        here = f"include[{index}]"
        if glob.has_magic(pattern):
            self.collected.globs.append((folder, pattern))
            paths = [path for path in paths if self.shelf.real(path) != self.shelf.real(chain[-1])]
            if not paths:
                self.book.add(where, here, f'"{pattern}" matches no file in {folder or "."}')
        for path in paths:
            real = self.shelf.real(path)
            if real in map(self.shelf.real, chain):
                self.book.add(where, here, f"a cycle: {' includes '.join((*chain, path))}")
            elif real in self.read:
                self.book.add(where, here, f"{path} is included already")
            elif len(self.read) >= MAX_FILES:
                self.book.add(where, here, f"more than {MAX_FILES} files")
                return
            else:
                self.file(path, chain, where, scope)

    def _without_duplicates(self, node: Entries) -> Entries:
        """The file without services that another file defines already; those are noted."""
        services = node.get("services")
        if not isinstance(services, Entries):
            return node
        kept = []
        for key, value in services.entries:
            other = self.collected.services.get(key.text)
            if other is None:
                kept.append((key, value))
            else:
                self.book.add(key.where, f"services.{key.text}", "this service is defined twice", f"see {other.where}")
        entries = tuple((k, replace(services, entries=tuple(kept)) if v is services else v) for k, v in node.entries)
        return replace(node, entries=entries)


def _scope_of(draft: Draft, scope: Scope) -> Scope:
    return Scope(draft.values.get("trust_domain", scope.trust_domain), draft.values.get("namespace", scope.namespace))

"""`mesh.yaml` → MeshConfig, or every mistake at once. `mesh check` and a reload run this very same path.

The environment is never read. What is returned is complete (see `assemble`) and was read in one generation (see
`files`); what is raised has every mistake that can be told apart, in the order of the files.

Whether a listener's posture ends soon enough depends on what time it is: `now`, in seconds since the epoch. Without it
a config with such a posture is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.config.advice import advise
from sidecar.config.assemble import assemble
from sidecar.config.files import Disk, Memory, Shelf, collect
from sidecar.config.lint import lint
from sidecar.config.mistakes import Book, ConfigErrors, Mistake, TooMany
from sidecar.config.plain import NOWHERE
from sidecar.config.schema import MeshConfig
from sidecar.config.terms import Where

_ATTEMPTS = 3  # a second change within the milliseconds of reading is rare, a third is somebody writing without end


@dataclass(frozen=True)
class Loaded:
    """A config without mistakes, what is odd about it, and the texts it came from (for quoting lines)."""

    config: MeshConfig
    warnings: tuple[Mistake, ...]
    sources: Mapping[str, str]
    digest: str  # SHA-256 over all files: equal digests are equal configs
    globs: tuple[tuple[str, str], ...] = ()  # (folder, pattern) of every include with wildcards: what to look at again


def load(path: str, now: float | None = None) -> Loaded:
    """Read a config and all it includes. Raises ConfigErrors."""
    for _ in range(_ATTEMPTS):
        disk = Disk()
        try:
            loaded = _load(path, disk, now)
        except ConfigErrors:
            if disk.unchanged():
                raise
            continue
        if disk.unchanged():
            return loaded
    raise ConfigErrors([Mistake(Where(path, 0), "", "the files kept changing while they were read", "try again")])


def load_config(path: str, now: float | None = None) -> MeshConfig:
    """Read a config and all it includes. Raises ConfigErrors with every mistake."""
    return load(path, now).config


def load_bytes(
    data: bytes, file: str = "mesh.yaml", others: Mapping[str, bytes] | None = None, now: float | None = None
) -> Loaded:
    """Read a config that is in memory, as are the files it may include. Raises ConfigErrors."""
    return _load(file, Memory({**(others or {}), file: data}), now)


def load_text(
    text: str, file: str = "mesh.yaml", others: Mapping[str, str] | None = None, now: float | None = None
) -> MeshConfig:
    """Read a config from text, with the texts of files it may include. Raises ConfigErrors."""
    encoded = {name: other.encode("utf-8", "surrogatepass") for name, other in (others or {}).items()}
    return load_bytes(text.encode("utf-8", "surrogatepass"), file, encoded, now).config


def _load(path: str, shelf: Shelf, now: float | None) -> Loaded:
    book = Book()
    try:
        collected = collect(path, shelf, NOWHERE, book)
        book.stage = "MESH002"
        config, views = assemble(collected, NOWHERE, book)
        lint(config, views, book, now)
    except TooMany:
        raise ConfigErrors(_in_order(book.mistakes, book), book.sources) from None
    if book.mistakes:
        raise ConfigErrors(_in_order(book.mistakes, book), book.sources)
    advise(config, views, book, now)
    return Loaded(config, tuple(_in_order(book.warnings, book)), book.sources, collected.digest, tuple(collected.globs))


def _in_order(mistakes: list[Mistake], book: Book) -> list[Mistake]:
    """By file as they were read, then by line and column."""
    order = {file: index for index, file in enumerate(book.sources)}
    return sorted(mistakes, key=lambda each: (order.get(each.where.file, -1), each.where.line, each.where.column))

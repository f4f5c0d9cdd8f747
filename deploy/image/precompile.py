"""Compile Python's modules to bytecode, the same bytes each time: `precompile.py [FOLDER…]`.

Theory of operation. Bytecode usually carries its source's time and is checked against it at each import. Ours carries
the source's hash and is not checked at all (PEP 552, unchecked-hash): the image cannot be written to, and times differ
from build to build. What marshal writes depends on which objects are shared, so files are compiled in one process, in
order, and the caller sets PYTHONHASHSEED. What has bytecode already is left alone; Python's own tests and examples are
left out. Without a folder: the running interpreter's library and its packages.
"""

from __future__ import annotations

import importlib.util
import py_compile
import sys
import sysconfig
from pathlib import Path

NOT_NEEDED = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "tkinter", "pydoc_data", "pip"}


def sources(folder: Path) -> list[Path]:
    """The modules below a folder that have no bytecode yet, in order."""
    found = sorted(path for path in folder.rglob("*.py") if not NOT_NEEDED & set(path.relative_to(folder).parts))
    return [path for path in found if not Path(importlib.util.cache_from_source(str(path))).exists()]


def main(folders: list[str]) -> int:
    """Compile all of it; what is no module (templates are such) is passed over: its import would fail too."""
    done = skipped = 0
    for folder in folders or [sysconfig.get_path("stdlib")]:
        for path in sources(Path(folder)):
            try:
                py_compile.compile(
                    str(path), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
                )
                done += 1
            except py_compile.PyCompileError:
                skipped += 1
    print(f"precompile: {done} modules, {skipped} that are none")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

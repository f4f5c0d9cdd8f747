"""Images for the container tests, made on this machine and kept by content: nothing is pulled from a registry.

`base_tar()` is a Debian with Python from debootstrap, and packages laid upon it; `context()` the folder that our
Dockerfile is built from, with the locked wheels laid in, so that the build itself needs no network. What is made lies
below MESH_CONTAINER_CACHE, else `.cache/containers` of the repository, under a name that is a hash of all that went
into it: several worktrees (and runs of CI) may share one folder. A lock lets only one process make a thing; the others
wait and find it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.kit.tools import need

ROOT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
PACKAGES = ("ca-certificates", "nftables", "python3", "python3-venv")  # besides those that are always there
# Of a Debian this is never read in a test; a release image leaves it out as well.
NEVER_READ = (
    "var/cache", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/locale", "usr/share/man", "usr/share/info",
)  # fmt: skip
# Nor this, of packages that tests ask for: what compiles queries, pages for browsers, locales, a checker of rules.
NEVER_RUN = (
    "usr/lib/*/libLLVM*", "usr/lib/*/libz3*", "usr/share/javascript/*", "usr/share/i18n/*", "usr/bin/promtool",
    "usr/lib/postgresql/*/lib/bitcode",
)  # fmt: skip
PROGRAMS = ("nginx-light", "nodejs", "postgresql", "prometheus", "redis-server")  # of the ready project
RECIPE = "6"  # part of the names; a new number makes all of it anew


def cache_folder() -> Path:
    """Where what was made is kept; the folder exists."""
    folder = Path(os.environ.get("MESH_CONTAINER_CACHE") or ROOT / ".cache" / "containers")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """The file or folder of this name in the cache; `make` writes it where there is none, to the path it is given."""
    wanted = cache_folder() / name
    with _alone(cache_folder() / f".{name}.lock"):
        if not wanted.exists():
            half = cache_folder() / f".{name}.half"
            _remove(half)
            make(half)
            half.rename(wanted)
    return wanted


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _run(command: Sequence[str], seconds: float = 600.0) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


# ---- the base ------------------------------------------------------------------------------------------------


def base_tar(extra: Sequence[str] = ()) -> Path:
    """The root file system of a Debian with Python (and the packages you name), as a tar for `docker import`."""
    named = [RECIPE, SUITE, *PACKAGES, *NEVER_READ, *NEVER_RUN, *sorted(extra)]
    digest = hashlib.sha256(" ".join(named).encode()).hexdigest()[:16]
    make = partial(_add, sorted(extra)) if extra else _bootstrap
    return kept(f"base-{digest}.tar", lambda path: _with_root(path, make))


def _with_root(path: Path, make: Callable[[Path], None]) -> None:
    """Have a root file system made, and write it to this tar."""
    root = path.with_suffix(".root")
    _remove(root)
    try:
        make(root)
        for name in NEVER_READ:
            for below in (root / name).glob("*"):
                _remove(below)
        (root / "etc/hosts").touch()  # engines mount theirs there, and some leave an empty one where there was none
        order = ["--sort=name", "--numeric-owner", "--mtime=@0", "--clamp-mtime"]
        _run(["tar", *order, "--exclude=./dev/*", "-C", str(root), "-cf", str(path), "."])
    finally:
        _remove(root)


def _bootstrap(root: Path) -> None:
    _run([need("debootstrap"), "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root)])


def _add(packages: Sequence[str], root: Path) -> None:
    """The base with more packages: this machine's apt fetches what the base lacks, and the base's dpkg installs it."""
    root.mkdir()
    _run(["tar", "--numeric-owner", "-C", str(root), "-xf", str(base_tar())])
    fetched, status = root / "fetched", root / "var/lib/dpkg/status"
    for folder in (fetched / "partial", root / "var/cache/debconf", root / "var/cache/ldconfig"):
        folder.mkdir(parents=True, exist_ok=True)
    for name, minor in (("null", 3), ("zero", 5), ("urandom", 9)):
        os.mknod(root / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
    asked = ["-qq", "-y", "--download-only", "--no-install-recommends", "install", *packages]
    _run(["apt-get", "-o", f"Dir::State::status={status}", "-o", f"Dir::Cache::archives={fetched}", *asked])
    policy = root / "usr/sbin/policy-rc.d"  # packages of servers start them; the tests want the programs only
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    debs = [f"/fetched/{deb.name}" for deb in sorted(fetched.glob("*.deb"))]
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"]
    inside = ["chroot", str(root), *quiet, "dpkg", "--force-unsafe-io"]
    try:
        _run([*inside, "--unpack", *debs])
        _run([*inside, "--configure", "-a"])
    finally:
        policy.unlink()
        _remove(fetched)
    for pattern in NEVER_RUN:
        for path in root.glob(pattern):
            _remove(path)


# ---- what our image is built from ------------------------------------------------------------------------------------


def sources() -> list[Path]:
    """The files that the Dockerfile copies, as .dockerignore lets them through; in order."""
    tops = ("certs", "ca", "sidecar", "deploy/image")
    files = [ROOT / name for name in ("Dockerfile", "pyproject.toml", "README.md", "LICENSE", "requirements.lock")]
    for top in tops:
        files += [path for path in (ROOT / top).rglob("*") if path.is_file()]
    return sorted(path for path in files if "__pycache__" not in path.parts and path.suffix not in {".pyc", ".whl"})


def sources_hash() -> str:
    """A name for exactly these sources."""
    digest = hashlib.sha256(RECIPE.encode())
    for path in sources():
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(ROOT)} {path.stat().st_mode:o} {content}\n".encode())
    return digest.hexdigest()[:16]


def wheels() -> Path:
    """A folder with every locked wheel, checked by hash as it came."""
    locks = [ROOT / "requirements.lock", ROOT / "deploy" / "image" / "build.lock"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in locks)).hexdigest()[:16]

    def fetch(path: Path) -> None:
        asked = [part for lock in locks for part in ("-r", str(lock))]
        flags = ["-q", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--python-version", "3.11"]
        pip = str(ROOT / ".venv" / "bin" / "python")
        _run([pip, "-m", "pip", "download", *flags, "-d", str(path), *asked])

    return kept(f"wheels-{digest}", fetch)


def context(folder: Path) -> Path:
    """A build context in this folder: our sources and all wheels."""
    for path in (*sources(), ROOT / ".dockerignore"):
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    for wheel in sorted(wheels().glob("*.whl")):
        shutil.copyfile(wheel, folder / "deploy" / "image" / "wheels" / wheel.name)
    return folder


if __name__ == "__main__":  # what `.ci/run` begins early, beside tests that leave the network and the disk alone
    wheels()
    base_tar(PROGRAMS)

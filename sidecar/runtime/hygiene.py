"""What the proxy process gives up before it meets a stranger (decision D27).

    no_new_privs   no program that it might start can gain rights by setuid or file capabilities
    undumpable     no core dump, and no debugger of the same user reads the keys in its memory (root still can)
    core_limit     0 bytes, for kernels that write cores by the limit alone
    umask          077: what it creates is its own user's
    open_files     the soft limit on descriptors is raised to the hard one, for it holds two for each connection
    landlock       of the file system it sees Python, libraries, /etc, /proc and its own folders; it writes only in
                   its state, run and log folders; it executes nothing, but where a secret comes from a command

Theory of operation. All of this is inherited by children, and most of it can never be taken back. The command of
`mesh run -- CMD` must not inherit any of it, therefore it is forked *before* (see `sidecar.cli.lifeline`, which holds
it at a gate until the sidecar is ready), and everything here happens between that fork and the first thread: Landlock
and no_new_privs belong to a thread, and threads inherit them from the one that starts them.

Best effort is the default: an old kernel is no reason to refuse to serve. What is not in force is said once in the log
and stands in `mesh status -o json`. Landlock allows whole folders, not files, since files are replaced: by an editor,
by Kubernetes behind a symlink, by log rotation. A reload can therefore read any file beside those that were read at
the start; a folder that comes later needs a restart.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import stat
import struct
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from certs.errors import MeshError

PR_SET_DUMPABLE = 4  # linux/prctl.h
PR_SET_NO_NEW_PRIVS = 38
MAX_OPEN_FILES = 1 << 20  # fs.nr_open of a Linux that nobody has tuned; container engines set hard limits of 10^9

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture we run on
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

# linux/landlock.h, LANDLOCK_ACCESS_FS_*
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_DIR, _MAKE_REG, _MAKE_SOCK = 1 << 7, 1 << 8, 1 << 9
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SOCK | _REFER

SYSTEM = (  # read only; /etc for name resolution, which replaces its files as networks change
    "/etc", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/proc", "/sys/fs/cgroup",
    "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager",
)  # fmt: skip
PROGRAMS = ("/bin", "/usr/bin", "/lib", "/lib64", "/usr/lib", "/usr/lib64")  # shells, interpreters and their loader
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


class Mode(Enum):
    """How much an operator insists."""

    REQUIRED = "required"  # do not serve unless all of it is in force
    BEST_EFFORT = "best-effort"
    UNSAFE_OFF = "unsafe-off"  # for debuggers and profilers


class NotConfined(MeshError):
    """Something of the process's hygiene could not be put in force, and the operator asked for all of it."""

    name = "not_confined"


@dataclass(frozen=True, slots=True)
class Folders:
    """What of the file system the process needs after its start, beside Python and the system's libraries."""

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    run: tuple[Path, ...] = ()  # programs that it starts; with any, what lies in PROGRAMS may be executed too

    @classmethod
    def around(
        cls, *, read: Iterable[str | Path] = (), write: Iterable[str | Path] = (), folders: Iterable[Path] = (),
        run: Iterable[str] = (),
    ) -> Folders:  # fmt: skip
        """The folders that hold these files, and whole folders to write in; `run` are programs, as a shell finds them.
        """
        readable = tuple(folder for file in read for folder in holding(file))
        found = (shutil.which(program) for program in run)
        programs = tuple(dict.fromkeys(Path(path).resolve() for path in found if path is not None))
        return cls(readable, (*folders, *(place for file in write for place in _written(file))), programs)

    def missing(self) -> tuple[Path, ...]:
        """What would be written and is not there: nothing can be allowed for it."""
        return tuple(path for path in self.write if not os.path.exists(path))  # noqa: PTH110 - never raises


@dataclass(frozen=True, slots=True)
class Hygiene:
    """What is in force; a failure is the reason why one of them is not."""

    in_force: dict[str, Any]
    failures: dict[str, str]
    off: bool = False

    def to_json(self) -> dict[str, Any]:
        """For `mesh status`."""
        return {**self.in_force, "failures": self.failures, "off": self.off, "note": self.note()}

    def lacking(self) -> dict[str, str]:
        """What is not in force, for one line of the log; empty where nothing is lacking."""
        if self.off:
            return {"not_in_force": "all of it: --hygiene unsafe-off"}
        found = "; ".join(f"{name}: {why}" for name, why in self.failures.items())
        return {"not_in_force": found} if found else {}

    def note(self) -> str:
        """What deserves an eye in the status table; empty where all is well or the kernel is merely old."""
        if self.off:
            return "unsafe: process hygiene is off"
        telling = [f"{name}: {why}" for name, why in self.failures.items() if why != NO_LANDLOCK]
        return f"not confined ({'; '.join(telling)})" if telling else ""


NO_LANDLOCK = "this kernel has no Landlock"
_of_this_process: Hygiene | None = None


def of_this_process() -> Hygiene | None:
    """What `apply` put in force in this process; None where it was never called."""
    return _of_this_process


def apply(folders: Folders, mode: Mode = Mode.BEST_EFFORT, *, kernel: Kernel | None = None) -> Hygiene:
    """Put all of it in force, for good. Call it in the main thread, before any other starts. Raises NotConfined."""
    global _of_this_process
    found = Hygiene({}, {}, off=True) if mode is Mode.UNSAFE_OFF else _apply(folders, kernel or Kernel())
    _of_this_process = found
    if mode is Mode.REQUIRED and found.failures:
        reasons = "; ".join(f"{name}: {why}" for name, why in found.failures.items())
        raise NotConfined(f"--hygiene required, but {reasons}")
    return found


def holding(file: str | Path) -> tuple[Path, ...]:
    """The folders that hold this file: as it is named, and where its symlinks lead."""
    path = Path(file)
    return tuple(dict.fromkeys((path.absolute().parent, path.resolve().parent)))


def _written(file: str | Path) -> tuple[Path, ...]:
    """What must be writable for this log: its folder, since logs are moved away; a pipe or device itself."""
    special = os.path.exists(file) and not os.path.isfile(file)  # noqa: PTH110, PTH113 - pathlib's raise
    return (Path(file).resolve(),) if special else holding(file)


# ---- the measures -------------------------------------------------------------------------------------------------


class Kernel:
    """The calls that the standard library does not have."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.syscall.restype = ctypes.c_long

    def prctl(self, option: int, value: int) -> bool:
        """prctl(2); True. Raises OSError."""
        return _checked(self._libc.prctl(option, ctypes.c_ulong(value), *(ctypes.c_ulong(0),) * 3)) == 0

    def landlock_abi(self) -> int:
        """The version of Landlock that this kernel speaks, at least 1. Raises OSError where there is none."""
        return self._syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_CREATE_RULESET_VERSION))

    def create_ruleset(self, handled: int) -> int:
        """A ruleset that forbids these kinds of access wherever no rule allows them; a descriptor. Raises OSError."""
        attributes = struct.pack("=Q", handled)
        return self._syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))

    def allow_beneath(self, ruleset: int, descriptor: int, rights: int) -> None:
        """Allow these kinds of access to a file, or to a folder and all beneath it. Raises OSError."""
        rule = struct.pack("=Qi", rights, descriptor)
        self._syscall(
            _ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), rule, ctypes.c_uint32(0)
        )

    def restrict_self(self, ruleset: int) -> None:
        """Confine this thread, and those that it starts, for good. Raises OSError."""
        self._syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))

    def _syscall(self, number: int, *arguments: Any) -> int:
        return _checked(self._libc.syscall(ctypes.c_long(number), *arguments))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _apply(folders: Folders, kernel: Kernel) -> Hygiene:
    measures: dict[str, Callable[[], Any]] = {
        "no_new_privs": lambda: kernel.prctl(PR_SET_NO_NEW_PRIVS, 1),
        "undumpable": lambda: kernel.prctl(PR_SET_DUMPABLE, 0),
        "core_limit": _no_core,
        "open_files": _more_files,
        "umask": _private_files,
        "landlock": lambda: _landlock(folders, kernel),
    }
    in_force: dict[str, Any] = {}
    failures: dict[str, str] = {}
    for name, measure in measures.items():
        try:
            in_force[name] = measure()
        except (OSError, ValueError) as error:
            failures[name] = getattr(error, "strerror", None) or str(error)
    if "landlock" in in_force and (missing := folders.missing()):
        failures["folders"] = f"not there at the start, so not to be written before a restart: {_names(missing)}"
    return Hygiene(in_force, failures)


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(map(str, paths))


def _no_core() -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return 0


def _more_files() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def _private_files() -> str:
    os.umask(0o077)
    return "077"


# ---- Landlock -----------------------------------------------------------------------------------------------------


def handled_rights(abi: int) -> int:
    """All kinds of file access that this version of Landlock knows (landlock(7), "Landlock ABI versions")."""
    bits = 13 if abi < 2 else 14 if abi < 3 else 15 if abi < 5 else 16
    return (1 << bits) - 1


def _landlock(folders: Folders, kernel: Kernel) -> str:
    """Confine the process; returns what is in force. Raises OSError."""
    if threading.active_count() > 1:
        raise OSError(0, "other threads were running already, and would stay free")
    try:
        abi = kernel.landlock_abi()
    except OSError:
        raise OSError(0, NO_LANDLOCK) from None
    handled = handled_rights(abi)
    ruleset = kernel.create_ruleset(handled)
    try:
        for path in (*_python(), *map(Path, SYSTEM), *folders.read):
            _allow(kernel, ruleset, path, _READ & handled)
        for path in (*map(Path, PROGRAMS), *folders.run) if folders.run else ():
            _allow(kernel, ruleset, path, (_READ | _EXECUTE) & handled)
        for path in (*map(Path, DEVICES), *folders.write):
            _allow(kernel, ruleset, path, _WRITE & handled)
        kernel.restrict_self(ruleset)
    finally:
        os.close(ruleset)
    return f"ABI {abi}"


def _allow(kernel: Kernel, ruleset: int, path: Path, rights: int) -> None:
    """Allow this access; a path that is not there, or that is not ours to see, needs no allowance."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        kernel.allow_beneath(ruleset, descriptor, rights if folder else rights & _FILE_RIGHTS)
    finally:
        os.close(descriptor)


def _python() -> tuple[Path, ...]:
    """Where modules, ours included, may still be imported from."""
    ours = str(Path(__file__).resolve().parents[2])
    return tuple(map(Path, dict.fromkeys((sys.prefix, sys.base_prefix, *filter(None, sys.path), ours))))

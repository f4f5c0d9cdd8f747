"""Running nft and iptables, and saying what their complaints mean."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from certs.errors import MeshError
from sidecar.deploy.redirect_rules import Redirection

PLACES = ("/usr/sbin", "/sbin", "/usr/local/sbin")  # where they are, if a user's PATH leaves them out
SECONDS = 30.0  # for one call; iptables waits 10 of them for its lock
CAP_NET_ADMIN = 12  # linux/capability.h

RIGHTS = """Rules need CAP_NET_ADMIN in this network namespace: on a host run it as root.
Compose: user: "0:0", cap_drop: [ALL], cap_add: [NET_ADMIN, SETUID, SETGID].
Kubernetes: an init container with runAsUser: 0 and capabilities {drop: [ALL], add: [NET_ADMIN]}."""
MODULES = """The kernel lacks a part of netfilter. On the node, for nft:
modprobe -a nf_tables nf_conntrack nft_ct nft_redir nft_fib_inet nft_reject_inet
or for iptables:
modprobe -a xt_REDIRECT xt_owner xt_addrtype xt_conntrack xt_comment ipt_REJECT ip6t_REJECT"""
OF_THE_KERNEL = (  # what nft and both iptables say where a module or an option is missing
    "No such file or directory", "not supported", "does not exist", "can't initialize", "No chain/target/match",
)  # fmt: skip


class RedirectFailed(MeshError):
    """The rules could not be read or changed; what was there before is still there."""

    name = "redirect_failed"

    def __init__(self, what: str, advice: str = "", *, kernel: bool = False) -> None:
        super().__init__(what)
        self.advice = advice
        self.kernel = kernel  # it is for want of something in the kernel: another backend may do


@dataclass(frozen=True, slots=True)
class Found:
    """Rules of ours that are in force."""

    backend: str
    digest: str  # of the script they were made from; empty where they do not say
    whole: bool  # nobody has changed them since

    def same(self, wanted: str) -> bool:
        """Whether they are these, untouched."""
        return self.whole and self.digest == wanted


class Backend(Protocol):
    """One way to talk to netfilter."""

    name: str

    @property
    def here(self) -> bool:
        """Whether its programs are there."""

    def script(self, what: Redirection) -> dict[str, str]:
        """What would be loaded, by the program that loads it."""

    def wanted(self, what: Redirection) -> str:
        """The digest that `found` has of these rules, once they are there."""

    def found(self) -> Found | None:
        """The rules that are there; None where there are none. Raises RedirectFailed."""

    def install(self, what: Redirection) -> None:
        """Put these rules in force. Raises RedirectFailed."""

    def remove(self) -> bool:
        """Take our rules away; False where there were none. Raises RedirectFailed."""


def find(program: str) -> str | None:
    """Where a program is; None where it is not installed."""
    return shutil.which(program) or shutil.which(program, path=os.pathsep.join(PLACES))


def may_change() -> bool:
    """Whether we have CAP_NET_ADMIN, as far as /proc tells."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> CAP_NET_ADMIN & 1)
    return True


def run(command: Sequence[str], text: str | None = None) -> str:
    """Run it with this input; what it prints. Raises RedirectFailed, which says what to do."""
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=SECONDS, env={**os.environ, "LC_ALL": "C"}
        )
    except subprocess.TimeoutExpired:
        raise RedirectFailed(
            f"{name} did not end within {SECONDS:.0f} s", "Is another program changing rules?"
        ) from None
    except OSError as error:
        raise RedirectFailed(f"{name} could not be run: {error.strerror}") from None
    if done.returncode:
        raise _failed(name, done.stderr.strip() or f"exit code {done.returncode}")
    return done.stdout


def _failed(name: str, said: str) -> RedirectFailed:
    """What this complaint means."""
    first = said.splitlines()[0]
    if not may_change() or "Permission denied" in said or "you must be root" in said:
        return RedirectFailed(f"{name} may not change the rules here: {first}", RIGHTS)
    if any(word in said for word in OF_THE_KERNEL):
        return RedirectFailed(f"{name}: {first}", MODULES, kernel=True)
    if "Operation not permitted" in said:
        return RedirectFailed(f"{name} may not change the rules here: {first}", RIGHTS)
    return RedirectFailed(f"{name}: {first}", "`mesh redirect show` prints the script; load it by hand to see more.")

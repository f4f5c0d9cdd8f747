"""Installing the redirect rules once, replacing those of an older version, taking them away; by what works here."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sidecar.deploy.redirect_iptables import Iptables
from sidecar.deploy.redirect_kernel import Backend, Found, RedirectFailed, find
from sidecar.deploy.redirect_nft import Nft
from sidecar.deploy.redirect_rules import Redirection
from sidecar.net.proc_net import listening

BACKENDS = ("nft", "iptables", "iptables-nft", "iptables-legacy")
SSH = 22
LOCK = "\0mesh-redirect"  # an abstract address, unix(7)
PATIENCE = 30.0  # seconds for somebody else's installation, which takes less than one
TICK = 0.05


@dataclass(frozen=True, slots=True)
class Installed:
    """What an installation has done."""

    backend: str
    changed: bool
    replaced: tuple[str, ...] = ()  # by which backends others had been there before


def backend(name: str) -> Backend:
    """The backend of this name. `iptables` is the variant it means here, where that has a name of its own."""
    if name == "nft":
        return Nft()
    variant = name.removeprefix("iptables").removeprefix("-")
    return Iptables(variant or _meant())


def _meant() -> str:
    """Which variant plain `iptables` is: all of them are links to one program for each."""
    program = Path(find("iptables-restore") or "").resolve().name
    variant = {"xtables-nft-multi": "nft", "xtables-legacy-multi": "legacy"}.get(program, "")
    return variant if find(f"iptables-{variant}-restore") else ""


def present() -> list[Backend]:
    """The backends whose programs are there, the best first."""
    variants = [name for name in BACKENDS[2:] if find(f"{name}-restore")]
    return [each for name in ("nft", *(variants or ["iptables"])) if (each := backend(name)).here]


@contextmanager
def _alone() -> Iterator[None]:
    """Be the only one who changes our rules in this network namespace, to which the name of such a socket belongs.

    Raises RedirectFailed.
    """
    ends = time.monotonic() + PATIENCE
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        while True:
            try:
                lock.bind(LOCK)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > ends:
                    raise RedirectFailed(
                        f"another `mesh redirect` has been at work here for {PATIENCE:.0f} s", "Wait for it, or end it."
                    ) from None
            time.sleep(TICK)
        yield


def install(what: Redirection, wanted: str = "auto") -> Installed:
    """Put these rules in force, and take away what other backends have left; nothing is done twice.

    Raises RedirectFailed; the rules that were there are then still there.
    """
    with _alone():
        return _install_by_any(what, wanted)


def _install_by_any(what: Redirection, wanted: str) -> Installed:
    found = {each.name: each.found() for each in present()} if wanted == "auto" else {}
    choices = _choices(wanted)
    for last, choice in ((each is choices[-1], each) for each in choices):
        try:
            done = _install(what, choice, found.get(choice.name) or choice.found())
        except RedirectFailed as failure:
            if last or not failure.kernel:
                raise
            continue
        others = [each for each in present() if each.name != choice.name and each.found() is not None]
        for other in others:
            other.remove()
        return Installed(choice.name, done or bool(others), tuple(other.name for other in others))
    raise AssertionError("there was a last one")


def _choices(wanted: str) -> Sequence[Backend]:
    choices = present() if wanted == "auto" else [each for each in [backend(wanted)] if each.here]
    if not choices:
        raise RedirectFailed(
            "neither nft nor iptables is installed" if wanted == "auto" else f"{wanted} is not installed",
            "Install the package nftables (Debian, Fedora, Alpine have it under this name).",
        )
    return choices


def _install(what: Redirection, choice: Backend, found: Found | None) -> bool:
    if found is not None and found.same(choice.wanted(what)):
        return False
    choice.install(what)
    return True


def remove() -> tuple[str, ...]:
    """Take all our rules away; by which backends there were some. Raises RedirectFailed."""
    if not present():
        raise RedirectFailed("neither nft nor iptables is installed", "Install the package nftables.")
    with _alone():
        return tuple(each.name for each in present() if each.found() is not None and each.remove())


def found() -> list[Found]:
    """Our rules in this network namespace, backend by backend. Raises RedirectFailed."""
    return [rules for each in present() if (rules := each.found()) is not None]


def cuts_off(what: Redirection) -> bool:
    """Whether logins by ssh would be captured unasked: somebody listens on port 22 beyond loopback."""
    unasked = what.captures(SSH) and SSH not in what.inbound
    return unasked and any(each.port == SSH and each.beyond for each in listening())

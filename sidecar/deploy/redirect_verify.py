"""Whether outsiders get a word in plaintext: dials from outside; and what can be seen of the rules from inside.

Only a dial from another network namespace proves anything: one from our own goes over loopback, past the rules for what
comes from outside (decision D28), and is refused here. The dialler waits for a greeting, then asks in HTTP, and looks
at the first bytes that come back. Nothing, an end, or an alert of TLS is what it should get.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal, TypeVar

from certs.errors import MeshError
from sidecar.deploy.redirect_kernel import Found
from sidecar.deploy.redirect_rules import Redirection
from sidecar.net.proc_net import Row

Result = TypeVar("Result")
Word = Literal["plaintext", "alert", "closed", "refused", "silent", "no answer"]

QUESTION: Final = b"GET / HTTP/1.0\r\n\r\n"
GREETING_SECONDS: Final = 0.5  # for servers that speak first: SMTP, MySQL, SSH
ALERT: Final = b"\x15\x03"  # a TLS record of type alert, RFC 8446 section 5.1
CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
NAMED: Final = Path("/run/netns")  # where ip-netns(8) keeps names
SHOWN: Final = 60  # bytes of an answer


class CannotVerify(MeshError):
    """The dial would prove nothing, or cannot be made."""

    name = "cannot_verify"

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(what)
        self.advice = advice


@dataclass(frozen=True, slots=True)
class Met:
    """What a dial from outside met."""

    address: str
    port: int
    word: Word
    said: str = ""

    @property
    def proof(self) -> bool | None:
        """True: nothing in plaintext; False: something; None: nobody was there to say."""
        return None if self.word == "no answer" else self.word != "plaintext"


def dial(address: str, port: int, patience: float) -> Met:
    """Dial, and look at what comes back. Raises CannotVerify where that is one of our own addresses."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    place = socket.getaddrinfo(address, port, family, socket.SOCK_STREAM)[0][4]
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(patience)
        try:
            sock.connect(place)
        except ConnectionRefusedError:
            return Met(address, port, "refused")
        except OSError as error:
            return Met(address, port, "no answer", "" if isinstance(error, TimeoutError) else str(error.strerror))
        if ip_address(address.partition("%")[0]).is_loopback or sock.getsockname()[0] == sock.getpeername()[0]:
            raise CannotVerify(
                f"{address} is an address of this very machine: a dial to ourselves goes past the rules",
                "Run it on another host or in another container, or say --from-netns.",
            )
        return _ask(sock, address, port, patience)


def _ask(sock: socket.socket, address: str, port: int, patience: float) -> Met:
    try:
        sock.settimeout(min(GREETING_SECONDS, patience))
        try:
            answer = sock.recv(SHOWN)
        except TimeoutError:
            sock.settimeout(patience)
            sock.sendall(QUESTION)
            answer = sock.recv(SHOWN)
    except TimeoutError:
        return Met(address, port, "silent")
    except OSError:
        return Met(address, port, "closed")
    if not answer:
        return Met(address, port, "closed")
    return Met(address, port, "alert" if answer.startswith(ALERT) else "plaintext", ascii(answer)[2:-1])


def dial_all(targets: Iterable[tuple[str, int]], patience: float) -> list[Met]:
    """Dial one after the other."""
    return [dial(address, port, patience) for address, port in targets]


# ---- from another namespace ------------------------------------------------------------------------------------------


def namespace(said: str) -> Path:
    """The namespace that is meant by a process id, a path, or a name of ip-netns(8). Raises CannotVerify."""
    path = Path(f"/proc/{said}/ns/net") if said.isdigit() else Path(said) if "/" in said else NAMED / said
    try:
        found = path.stat()
    except PermissionError:
        raise CannotVerify(f"{path} may not be looked at", "Run it as root.") from None
    except OSError:
        raise CannotVerify(
            f"there is no network namespace {said!r} ({path})", "Say a process id, a path, or a name of `ip netns`."
        ) from None
    if os.path.samestat(found, Path("/proc/self/ns/net").stat()):
        raise CannotVerify(
            f"{said} is this very namespace, and a dial to ourselves goes past the rules",
            "Name the namespace of a neighbour.",
        )
    return path


def within(path: Path, function: Callable[[], Result]) -> Result:
    """Run it in a thread that is in this network namespace. Raises CannotVerify, and what the function raises."""
    results: list[Result] = []
    failures: list[BaseException] = []

    def play() -> None:
        try:
            _enter(path)
            results.append(function())
        except BaseException as failure:  # noqa: BLE001 - it is raised again, where it is waited for
            failures.append(failure)

    thread = threading.Thread(target=play)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _enter(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
            why = os.strerror(ctypes.get_errno())
            raise CannotVerify(f"{path} cannot be entered: {why}", "That takes CAP_SYS_ADMIN: run it as root.")
    finally:
        os.close(descriptor)


def targets(rows: Sequence[Row], own: Sequence[str], what: Redirection) -> list[tuple[str, int]]:
    """What a neighbour could dial here: each captured port that somebody listens on, at each of our addresses.

    Link-local ones are called otherwise there, and left out.
    """
    ours = (what.capture_in, what.capture_out)
    ports = sorted({row.port for row in rows if row.beyond and what.captures(row.port) and row.port not in ours})
    return [(address, port) for address in own if "%" not in address for port in ports]


# ---- from inside -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that was looked at."""

    what: str
    well: bool
    detail: str


def inside(
    found: Sequence[Found], wanted: Callable[[str], str] | None, rows: Sequence[Row], what: Redirection
) -> list[Seen]:
    """What the rules and the listening sockets say; `wanted` is the digest by backend, None where nothing was asked."""
    return [_rules(found, wanted), *(_door(rows, port, name, what) for port, name in _doors(what))]


def _doors(what: Redirection) -> list[tuple[int, str]]:
    """Where the sidecar has to listen; nowhere where rules only keep outsiders from an application in explicit mode."""
    return [(what.capture_in, "the way in"), (what.capture_out, "the way out")] if what.outbound else []


def _rules(found: Sequence[Found], wanted: Callable[[str], str] | None) -> Seen:
    if not found:
        return Seen("rules", False, "there are none here; run `mesh redirect install`")
    if len(found) > 1:
        names = " and ".join(each.backend for each in found)
        return Seen("rules", False, f"two sets of them, by {names}; run `mesh redirect install` again")
    (one,) = found
    if not one.whole:
        return Seen("rules", False, f"somebody has changed them ({one.backend}); run `mesh redirect install` again")
    if wanted is not None and one.digest != wanted(one.backend):
        return Seen("rules", False, f"they were made with other options ({one.backend}); `mesh redirect install` these")
    return Seen("rules", True, f"in force and unchanged ({one.backend})")


def _door(rows: Sequence[Row], port: int, name: str, what: Redirection) -> Seen:
    """Whether the sidecar, and nobody else, listens there."""
    here = [row for row in rows if row.port == port]
    if not here:
        return Seen(f"port {port}", False, f"nobody listens on {name}: is the sidecar running, with `redirect: {{}}`?")
    if strange := {row.uid for row in here} - {what.uid}:
        return Seen(
            f"port {port}", False, f"uid {min(strange)} listens on {name}, and the rules let uid {what.uid} pass: "
            "its connections would come back to it for ever",
        )  # fmt: skip
    return Seen(f"port {port}", True, f"uid {what.uid} listens on {name}")

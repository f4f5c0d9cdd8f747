"""The redirect rules by iptables-restore, where there is no nftables: chains MESH_* of our own, a jump to each.

The jumps stand at the front. A restore is atomic for one table of one IP version. `filter` is committed before `nat`,
and taken away after it: as long as NAT is not there, or is that of another version, the filter lets nothing in that is
not captured. IPv6 comes before IPv4; where the kernel has no IPv6 there is nothing to do for it.

Both variants, iptables-nft and iptables-legacy, read the same text. MESH_INSTALLED is on nobody's way and carries the
digests, as the chain `installed` does with nft. The built-in tables, which iptables makes with the first rule in them,
remain when our chains are gone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sidecar.deploy.redirect_kernel import Found, RedirectFailed, find, run
from sidecar.deploy.redirect_rules import Redirection, digest

VERSIONS = (6, 4)
JUMPS = {  # in the order of their commits: table, built-in chain, ours
    "filter": (("INPUT", "MESH_RECEIVE"), ("OUTPUT", "MESH_SEND")),
    "nat": (("PREROUTING", "MESH_PREROUTING"), ("OUTPUT", "MESH_OUTPUT")),
}
LOOPBACK = {4: "127.0.0.0/8", 6: "::1/128"}
LOCAL = "-m addrtype --dst-type LOCAL"
ANSWERS = "-m conntrack --ctdir REPLY"
RESET = "REJECT --reject-with tcp-reset"
MARK = re.compile(r'-A MESH_INSTALLED -m comment --comment "?mesh ([0-9a-f]{16}) ([0-9a-f]{16})"?')


def rules(what: Redirection, version: int) -> dict[str, list[str]]:
    """The rules of each of our chains, for this IP version."""
    networks = what.networks(version)
    exempt = [f"-p tcp --dport {port} -j RETURN" for port in what.left_alone]
    exempt += [f"-d {network} -j RETURN" for network in networks]
    own = f"-m owner --uid-owner {what.uid}"
    output = [f"-d {LOOPBACK[version]} -j RETURN", *_capture(what, f"{own} {LOCAL} ", out=True), f"{own} -j RETURN"]
    if what.outbound:
        output += [f"{LOCAL} -j RETURN", *exempt, f"-p tcp -j REDIRECT --to-ports {what.capture_out}"]
    send = ["-o lo -j RETURN", f"-d {LOOPBACK[version]} -j RETURN", f"{ANSWERS} -j RETURN", f"{own} -j RETURN", *exempt]
    send.append(f"-p tcp -m owner --socket-exists -j {RESET}")
    return {
        "MESH_PREROUTING": ["-i lo -j RETURN", *_capture(what, f"{LOCAL} ")],
        "MESH_OUTPUT": output,
        "MESH_RECEIVE": _receive(what),
        "MESH_SEND": send if what.outbound else [],
    }


def _capture(what: Redirection, match: str, *, out: bool = False) -> list[str]:
    """Send what matches to the inbound side: the listed ports, or all but the open ones."""
    to = f"-j REDIRECT --to-ports {what.capture_in}"
    if what.inbound:
        return [f"-p tcp {match}--dport {port} {to}" for port in what.captured_ports]
    past = [f"-p tcp {match if out else ''}--dport {port} -j RETURN" for port in what.not_captured]
    return [*past, f"-p tcp {match}{to}"]


def _receive(what: Redirection) -> list[str]:
    lines = [
        "-i lo -j RETURN",
        f"{ANSWERS} -j RETURN",
        f"-p tcp --dport {what.capture_in} -m conntrack --ctstate DNAT -j RETURN",
    ]
    if what.inbound:
        closed = [f"--dport {port} " for port in sorted({*what.inbound, what.capture_in, what.capture_out})]
    else:
        closed = [""]
        lines += [f"-p tcp --dport {port} -j RETURN" for port in what.open_ports]
    for ports in closed:
        lines += [f"-p tcp {ports}-m conntrack --ctstate INVALID -j DROP", f"-p tcp {ports}-j {RESET}"]
    return lines


def script(what: Redirection, version: int, saved: str = "") -> str:
    """The text for iptables-restore, given what iptables-save says is there."""
    lines = []
    ours = rules(what, version)
    for table, jumps in JUMPS.items():
        lines += [f"*{table}", *(f":{chain} - [0:0]" for _, chain in jumps)]  # naming a chain empties it
        lines += _without_jumps(saved, table)
        lines += [f"-I {builtin} 1 -j {chain}" for builtin, chain in jumps]
        lines += [f"-A {chain} {rule}" for _, chain in jumps for rule in ours[chain]]
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"


def removal(saved: str) -> str:
    """The text that takes away what is ours of this; empty where nothing is."""
    lines = []
    for table in reversed(JUMPS):
        chains = [chain for chain in _chains(saved, table) if chain.startswith("MESH_")]
        if chains:
            lines += [f"*{table}", *_without_jumps(saved, table)]
            lines += [f"{order} {chain}" for order in ("-F", "-X") for chain in chains]
            lines.append("COMMIT")
    return "\n".join([*lines, ""])


def _lines_of(saved: str, table: str) -> list[str]:
    found, inside = [], False
    for line in saved.splitlines():
        if line.startswith("*"):
            inside = line == f"*{table}"
        elif inside:
            found.append(line)
    return found


def _chains(saved: str, table: str) -> list[str]:
    return [line[1:].split()[0] for line in _lines_of(saved, table) if line.startswith(":")]


def _without_jumps(saved: str, table: str) -> list[str]:
    """Deletions of every jump to us that is there."""
    jump = re.compile(r"-A (?:INPUT|OUTPUT|PREROUTING) .*-j MESH_\w+")
    return ["-D" + line[2:] for line in _lines_of(saved, table) if jump.fullmatch(line)]


def ours(saved: str) -> str:
    """What of this is ours, line by line, but for the digests; a jump that is not at the front is told by its place."""
    lines = []
    for table in JUMPS:
        here = _lines_of(saved, table)
        for builtin in ("PREROUTING", "INPUT", "OUTPUT"):
            front = [line for line in here if line.startswith(f"-A {builtin} ")]
            lines += [f"{table} {place} {line}" for place, line in enumerate(front) if "-j MESH_" in line]
        lines += [f"{table} {line}" for line in here if line.startswith("-A MESH_") and "MESH_INSTALLED" not in line]
    return "\n".join(lines)


class Iptables:
    """One variant of iptables: `nft`, `legacy`, or the one that the plain names mean."""

    def __init__(self, variant: str = "") -> None:
        self.name = f"iptables-{variant}" if variant else "iptables"
        self._middle = f"-{variant}" if variant else ""

    def _program(self, version: int, verb: str) -> str:
        name = f"{'ip6tables' if version == 6 else 'iptables'}{self._middle}-{verb}"
        if (path := find(name)) is None:
            raise RedirectFailed(f"{name} is not installed", "Install the package nftables, or iptables.")
        return path

    @property
    def here(self) -> bool:
        """Whether the programs are there."""
        return find(f"iptables{self._middle}-restore") is not None

    def script(self, what: Redirection) -> dict[str, str]:
        """What would be loaded, by the program that loads it."""
        return {
            f"{'ip6tables' if version == 6 else 'iptables'}{self._middle}-restore --noflush": script(what, version)
            for version in VERSIONS
        }

    def wanted(self, what: Redirection) -> str:
        """The digest that `found` has of these rules, once they are there."""
        return digest(*(script(what, version) for version in _versions()))

    def found(self) -> Found | None:
        """The rules that are there; None where there are none. Raises RedirectFailed."""
        saved = {version: self._saved(version) for version in _versions()}
        if not any(ours(text) or "MESH_INSTALLED" in text for text in saved.values()):
            return None
        marks = {version: MARK.search(text) for version, text in saved.items()}
        scripts = {mark[1] if mark else "" for mark in marks.values()}
        whole = all(mark is not None and mark[2] == digest(ours(saved[version])) for version, mark in marks.items())
        return Found(self.name, scripts.pop() if len(scripts) == 1 else "", whole)

    def install(self, what: Redirection) -> None:
        """Put these rules in force. Raises RedirectFailed."""
        for version in _versions():
            self._restore(version, script(what, version, self._saved(version)))
        for version in _versions():
            mark = f"mesh {self.wanted(what)} {digest(ours(self._saved(version)))}"
            rule = f'-A MESH_INSTALLED -m comment --comment "{mark}" -j RETURN'
            self._restore(version, f"*filter\n:MESH_INSTALLED - [0:0]\n{rule}\nCOMMIT\n")

    def remove(self) -> bool:
        """Take our chains away; False where there were none. Raises RedirectFailed."""
        texts = {version: removal(self._saved(version)) for version in _versions()}
        for version, text in texts.items():
            if text:
                self._restore(version, text)
        return any(texts.values())

    def _saved(self, version: int) -> str:
        if self.name == "iptables-legacy" and not _legacy_tables(version):
            return ""  # asking would make the tables
        return run([self._program(version, "save")])

    def _restore(self, version: int, text: str) -> None:
        run([self._program(version, "restore"), "--noflush", "-w", "10"], text)


def _versions() -> tuple[int, ...]:
    """The IP versions of this network namespace."""
    return VERSIONS if Path("/proc/net/if_inet6").exists() else (4,)


def _legacy_tables(version: int) -> Sequence[str]:
    """The tables that iptables-legacy has made here."""
    try:
        return Path("/proc/net", "ip6_tables_names" if version == 6 else "ip_tables_names").read_text().split()
    except OSError:
        return ()

"""The redirect rules as one transaction of nftables, in a table of their own: `inet mesh`, for IPv4 and IPv6 at once.

`nft -f` is one transaction: the old table goes and the new one comes in the same instant, so no packet finds neither.
The chain `installed` is on nobody's way. Its one rule carries two digests: of the script that was loaded, and of how
nft listed the table right after; a later look tells with them whether these rules are the wanted ones, and whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sidecar.deploy.redirect_kernel import Found, RedirectFailed, find, run
from sidecar.deploy.redirect_rules import Redirection, digest

TABLE = "inet mesh"
PRIORITY = -110  # just before everybody else's NAT (dstnat is -100), so that ours decides; after conntrack (-200)
MARK = re.compile(r'comment "mesh ([0-9a-f]{16}) ([0-9a-f]{16})"')


def script(what: Redirection) -> str:
    """The whole transaction."""
    chains = (_prerouting(what), _output(what), _receive(what), *((_send(what),) if what.outbound else ()))
    body = "\n\n".join(chains)
    return f"add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n{body}\n}}\n"


def _chain(name: str, kind: str, hook: str, priority: int, rules: Iterable[str]) -> str:
    lines = [f"type {kind} hook {hook} priority {priority}; policy accept;", "meta l4proto != tcp return", *rules]
    return "\n".join([f"    chain {name} {{", *(f"        {line}" for line in lines), "    }"])


def _set(some: Iterable[object]) -> str:
    return "{ " + ", ".join(map(str, some)) + " }"


def _captured(what: Redirection) -> str:
    """The match of a port that is captured; a rule with `redirect` has to name TCP anyway."""
    if what.inbound:
        return f"tcp dport {_set(what.captured_ports)}"
    return f"tcp dport != {_set(what.not_captured)}"


def _prerouting(what: Redirection) -> str:
    rules = ['iif "lo" return', f"fib daddr type local {_captured(what)} redirect to :{what.capture_in}"]
    return _chain("prerouting", "nat", "prerouting", PRIORITY, rules)


def _output(what: Redirection) -> str:
    rules = [
        "ip daddr 127.0.0.0/8 return",
        "ip6 daddr ::1 return",
        f"meta skuid {what.uid} fib daddr type local {_captured(what)} redirect to :{what.capture_in}",
        f"meta skuid {what.uid} return",
    ]
    if what.outbound:
        rules += ["fib daddr type local return", *_exempt(what, "return")]
        rules.append(f"meta l4proto tcp redirect to :{what.capture_out}")
    return _chain("output", "nat", "output", PRIORITY, rules)


def _exempt(what: Redirection, verdict: str) -> list[str]:
    rules = [f"tcp dport {_set(what.left_alone)} {verdict}"]
    for version, family in ((4, "ip"), (6, "ip6")):
        if networks := what.networks(version):
            rules.append(f"{family} daddr {_set(networks)} {verdict}")
    return rules


def _receive(what: Redirection) -> str:
    rules = [
        'iif "lo" accept',
        "ct direction reply accept",
        f"ct status dnat tcp dport {what.capture_in} accept",
    ]
    if what.inbound:
        closed = f"tcp dport {_set(sorted({*what.inbound, what.capture_in, what.capture_out}))}"
    else:
        closed = "meta l4proto tcp"
        rules += [f"tcp dport {_set(what.open_ports)} accept"] if what.open_ports else []
    rules += [f"ct state invalid {closed} drop", f"{closed} reject with tcp reset"]
    return _chain("receive", "filter", "input", 0, rules)


def _send(what: Redirection) -> str:
    """What NAT has just redirected has its new address here, but not yet its new interface.

    A packet without a socket (skuid matches neither way) is the kernel's own, and has nothing to tell anybody.
    """
    rules = ['oif "lo" accept', "ip daddr 127.0.0.0/8 accept", "ip6 daddr ::1 accept", "ct direction reply accept"]
    rules += [ f"meta skuid {what.uid} accept", *_exempt(what, "accept")]
    rules.append(f"meta skuid != {what.uid} reject with tcp reset")
    return _chain("send", "filter", "output", 0, rules)


class Nft:
    """The nftables of this network namespace."""

    name = "nft"

    def __init__(self) -> None:
        self._program = find("nft")

    @property
    def here(self) -> bool:
        """Whether the program is there."""
        return self._program is not None

    def script(self, what: Redirection) -> dict[str, str]:
        """What would be loaded, by the program that loads it."""
        return {"nft -f -": script(what)}

    def found(self) -> Found | None:
        """The rules that are there; None where there are none. Raises RedirectFailed."""
        if (listed := self._list()) is None:
            return None
        mark = MARK.search(listed)
        if mark is None:
            return Found(self.name, "", whole=False)
        return Found(self.name, mark[1], whole=mark[2] == digest(_without_mark(listed)))

    def wanted(self, what: Redirection) -> str:
        """The digest that `found` has of these rules, once they are there."""
        return digest(script(what))

    def install(self, what: Redirection) -> None:
        """Replace whatever is there by these rules, at once. Raises RedirectFailed."""
        self._load(script(what))
        listed = self._list() or ""
        mark = f'comment "mesh {self.wanted(what)} {digest(_without_mark(listed))}"'
        self._load(f"add chain {TABLE} installed\nadd rule {TABLE} installed return {mark}\n")

    def remove(self) -> bool:
        """Take our table away; False where there was none. Raises RedirectFailed."""
        if self._list() is None:
            return False
        self._load(f"delete table {TABLE}\n")
        return True

    def _list(self) -> str | None:
        """How nft lists our table, without the counts; None where there is none."""
        tables = run([self._need(), "list", "tables"])
        if f"table {TABLE}" not in tables.splitlines():
            return None
        return run([self._need(), "-s", "-n", "list", "table", "inet", "mesh"])

    def _load(self, text: str) -> None:
        run([self._need(), "-f", "-"], text)

    def _need(self) -> str:
        if self._program is None:
            raise RedirectFailed("nft is not installed", "Install the package nftables, or say --backend iptables.")
        return self._program


def _without_mark(listed: str) -> str:
    """The listing but for the chain that carries the digests."""
    return re.sub(r"\s*chain installed \{[^}]*\}", "", listed)

"""`mesh redirect verify`: dials from outside, or a look from inside, and what came of it."""

from __future__ import annotations

import socket
from typing import Any

import click

from sidecar.cli.console import Code, Failure, print_json, print_table
from sidecar.deploy import redirect_install, redirect_verify
from sidecar.deploy.redirect_rules import Redirection
from sidecar.deploy.redirect_verify import Met
from sidecar.net.proc_net import listening, own_addresses

WORDS = {
    "plaintext": "PLAINTEXT came back",
    "alert": "a TLS alert and no more",
    "closed": "closed without a word",
    "refused": "refused",
    "silent": "nothing came back",
    "no answer": "nobody answers: this proves nothing",
}
COLOURS = {True: "green", False: "red", None: "yellow"}


def from_outside(
    what: Redirection, host: str, ports: tuple[int, ...], namespace: str, patience: float, output: str
) -> int:
    """Dial, from here or from another namespace. Exit code 0: nothing came back in plaintext, 1: something did."""
    places = [(each, port) for each in _addresses(host) for port in ports] if host else _own(what)
    if namespace:
        path = redirect_verify.namespace(namespace)
        met = redirect_verify.within(path, lambda: redirect_verify.dial_all(places, patience))
    else:
        met = redirect_verify.dial_all(places, patience)
    if output == "json":
        print_json({"dials": [_json(each) for each in met], "proved": all(each.proof for each in met)})
    else:
        print_table(
            ("address", "port", "a neighbour gets", "first bytes"),
            [(each.address, str(each.port), WORDS[each.word], each.said) for each in met],
            colour=lambda number: COLOURS[met[number].proof],
        )
    if any(each.proof is False for each in met):
        return Code.NEGATIVE
    return Code.OK if all(each.proof for each in met) else Code.UNREACHABLE


def _json(met: Met) -> dict[str, Any]:
    return {"address": met.address, "port": met.port, "result": met.word, "said": met.said, "proof": met.proof}


def _addresses(host: str) -> list[str]:
    """Every address of a host: each of them is a way in."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Failure(f"{host} has no address: {error.strerror}", "Say an address, or a name.", Code.USAGE) from None
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def _own(what: Redirection) -> list[tuple[str, int]]:
    places = redirect_verify.targets(listening(), own_addresses(), what)
    if not places:
        raise Failure(
            "nobody listens beyond loopback here on a port that is captured, so there is nothing to dial",
            "Start the application, or name HOST and PORT.",
        )
    return places


def from_inside(what: Redirection, asked: bool, output: str) -> int:
    """Look at rules and listening sockets. Exit code 0 where all is well."""

    def digest(backend: str) -> str:
        return redirect_install.backend(backend).wanted(what)

    seen = redirect_verify.inside(redirect_install.found(), digest if asked else None, listening(), what)
    well = all(each.well for each in seen)
    if output == "json":
        print_json({"well": well, "checks": [{"what": s.what, "well": s.well, "detail": s.detail} for s in seen]})
        return Code.OK if well else Code.NEGATIVE
    print_table(
        ("", "", ""), [("ok" if each.well else "NO", each.what, each.detail) for each in seen],
        colour=lambda number: COLOURS[seen[number].well],
    )  # fmt: skip
    click.echo("Only a dial from outside proves that nobody gets past the sidecar: mesh redirect verify HOST PORT")
    return Code.OK if well else Code.NEGATIVE

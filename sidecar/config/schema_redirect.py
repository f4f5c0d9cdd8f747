"""What an operator can say of transparent interception: connections that rules of the kernel bring to the sidecar.

The rules are those of `mesh redirect install`; here stands what the sidecar does with what they bring.
"""
# ruff: noqa: RUF009 - `described` only wraps dataclasses.field; its defaults are immutable

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config import ports
from sidecar.config.destinations import Outside
from sidecar.config.terms import PortNumber, described


@dataclass(frozen=True, slots=True)
class Redirect:
    """Connections are brought to the sidecar by the rules of `mesh redirect install`, and it finds out by their
    original destination whom they are for; see docs/redirect.md. `redirect: {}` is enough.

    Inbound listeners then bind no port of their own: each is found by its `port`, and a connection to any other port
    is refused. An upstream is found by its endpoints and `addresses`.
    """

    capture_in: PortNumber = described(
        "Port to which the rules send what comes from outside. Whoever connects to it directly is refused.",
        ports.CAPTURE_IN,
    )
    capture_out: PortNumber = described(
        "Port on loopback to which they send what the application sends out.", ports.CAPTURE_OUT
    )
    passthrough: tuple[Outside, ...] = described(
        "Where the application may connect in plaintext besides its upstreams: networks or addresses, on any port or "
        "on one, as in `[10.0.0.0/8, 10.9.0.7:5432, '[fd00::/8]:443']`. Its bytes go there as they are. All else that "
        "no upstream holds is refused.",
        (),
        filled="nowhere",
    )

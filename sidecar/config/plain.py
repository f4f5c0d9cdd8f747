"""What plain text may mean to a YAML reader, and when that is a trap.

YAML readers take plain words and numbers for many things: `no` for false, `1:30` and `22:22` for numbers in base 60,
`010` for eight, `1.10` for 1.1. We read what is written, but a file that another program would read differently is a
trap, so where text is meant such a value needs quotes. A plain decimal integer (`PORT: 8080`) is the one exception:
every reader gives the same digits back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from certs.spiffe import TrustDomain
from sidecar.config.document import Scalar


class BadValue(Exception):
    """A value cannot be read: what is wrong, and what was probably meant; without a hint the kind's own words do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Scope:
    """Against what short names of identities are read."""

    trust_domain: TrustDomain
    namespace: str


NOWHERE = Scope(TrustDomain("trust-domain.invalid"), "default")  # until a file says; RFC 6761 section 6.4
_BOOLEAN = re.compile(r"(?:y|n|yes|no|true|false|on|off)\Z", re.IGNORECASE)  # YAML 1.1, tag bool
_NULL = re.compile(r"(?:~|null|)\Z", re.IGNORECASE)
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?\Z")
INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\Z")
_OCTAL = re.compile(r"[-+]?0(?:o[0-7_]+|[0-9_]+)\Z")
_NUMBER = re.compile(
    r"[-+]?(?:0x[0-9a-f_]+|0b[01_]+|[0-9][0-9_]*\.?[0-9_]*(?:e[-+]?[0-9]+)?|\.[0-9_]+(?:e[-+]?[0-9]+)?|\.inf|\.nan)\Z",
    re.IGNORECASE,
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?\Z")


def taken_for(text: str) -> str:
    """What some YAML reader takes this plain text for; empty where all agree that it is text, or plain digits."""
    if _NULL.match(text):
        return "no value"
    if _BOOLEAN.match(text):
        return "a boolean"
    if _SEXAGESIMAL.match(text):
        return "a number in base 60"
    if INTEGER.match(text):
        return ""
    if _OCTAL.match(text):
        return "an octal number"
    if _NUMBER.match(text):
        return "a number"
    return "a date" if _DATE.match(text) else ""


def text_of(scalar: Scalar) -> str:
    """The text that is written. Raises BadValue where another YAML reader would see something else."""
    if scalar.plain:
        if not scalar.text:
            raise BadValue("has no value", "remove the key, or give it one")
        seen = taken_for(scalar.text)
        if seen:
            raise BadValue(
                f"YAML readers take {scalar.text} for {seen}", f'if text is meant, quote it: "{scalar.text}"'
            )
    return scalar.text


def quoted(text: str) -> str:
    return f'"{text[:64]}…"' if len(text) > 64 else f'"{text}"'

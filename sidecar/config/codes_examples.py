"""Examples of configs for the codes: two that differ in one place, and say nothing that is not needed."""

from __future__ import annotations

import textwrap
from typing import Final


def services(wrong: str, right: str) -> tuple[str, str]:
    """Two configs that differ in the block of one service, `orders`, which `web` and `cart` call."""
    others = "  web: {outbound: [{to: orders, listen: '127.0.0.1:9001'}]}\n  cart: {}\n"
    made = [f"services:\n{others}  orders:\n{textwrap.indent(textwrap.dedent(text), '    ').strip(chr(10))}\n"
            for text in (wrong, right)]  # fmt: skip
    return made[0], made[1]


def rules(wrong: str, right: str) -> tuple[str, str]:
    """The same, in the rules of an HTTP service."""
    http = "inbound: [{app: '127.0.0.1:8080'}]\n"
    return services(http + textwrap.dedent(wrong).lstrip("\n"), http + textwrap.dedent(right).lstrip("\n"))


HTTP: Final = "inbound: [{app: '127.0.0.1:8080'}]\nallow: [{from: web}]\n"
TCP: Final = "inbound: [{app: '127.0.0.1:5432', protocol: tcp}]\nallow: [{from: web}]\n"

MODE: Final = (
    "services:\n  web: {outbound: [{to: orders, listen: %s%s}]}\n"
    "  orders: {inbound: [{app: '127.0.0.1:8080'}], allow: [{from: web}]}\n"
)

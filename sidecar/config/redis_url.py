"""Where a Redis is, as the config writes it: `redis://10.0.0.9:6379/0`, `rediss://…` by TLS, `unix:/run/redis.sock`.

No user and no password stands in it: a URL ends up in logs and in `mesh explain`, and those two have keys of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sidecar.config.addresses import read_address, read_host, read_socket_path
from sidecar.config.document import Scalar
from sidecar.config.plain import BadValue, Scope, quoted, text_of
from sidecar.config.terms import UNIX, Address

PORT: Final = 6379
REDIS_SCHEMA: Final = {"type": "string", "pattern": r"^(rediss?://[^@/?#]+(/[0-9]{1,4})?|unix:/.{1,106})$"}
_EXAMPLES: Final = "write redis://HOST:6379, rediss://HOST:6379 (by TLS) or unix:/run/redis.sock"
_URL = re.compile(r"(redis|rediss)://([^/?#]*)(?:/([0-9]{0,4}))?\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """One Redis: where, whether by TLS, and which of its databases."""

    address: Address
    tls: bool = False
    database: int = 0

    def __str__(self) -> str:
        if self.address.unix:
            return str(self.address)
        database = f"/{self.database}" if self.database else ""
        return f"redis{'s' if self.tls else ''}://{self.address}{database}"


def read_redis(scalar: Scalar, _: Scope) -> RedisAddress:
    """A Redis by its URL. Raises BadValue, which never repeats a password."""
    text = text_of(scalar)
    if text.startswith(UNIX):
        return RedisAddress(Address(UNIX + read_socket_path(text.removeprefix(UNIX).removeprefix("//")), 0))
    if "@" in text:
        raise BadValue("a user or a password stands in the URL", "say them in username: and password_file:")
    match = _URL.match(text)
    if match is None or not match[2]:
        raise BadValue(f"{quoted(text)} is no Redis", _hint(text))
    return RedisAddress(_address(match[2]), match[1] == "rediss", int(match[3] or "0"))


def _address(text: str) -> Address:
    if re.search(r":[0-9]+\Z", text) and (text.count(":") == 1 or "]:" in text):
        return read_address(text)
    return Address(read_host(text), PORT)


def _hint(text: str) -> str:
    if "?" in text:
        return "options have keys of their own: within:, prefix:, ca_file:"
    bare = text.partition("://")[2] or text
    return f"did you mean redis://{bare[:64]}?" if re.match(r"[A-Za-z0-9.-]+(:[0-9]+)?\Z", bare) else _EXAMPLES

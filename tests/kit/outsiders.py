"""Those whom a sidecar asks on behalf of hops, for scenes in memory: OPA, and who hands out tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sidecar.net.port import Port
from sidecar.policy.ask import Said, Unsaid

Says = Callable[[dict[str, Any]], "Said | str"]  # of an input: what OPA says, or why it says nothing


class MemoryOpa:
    """An OPA that says what it is told to, after so many virtual seconds, and keeps what it was asked."""

    def __init__(self) -> None:
        self.says: Says = lambda _: Said(True)
        self.seconds = 0.0
        self.asked: list[dict[str, Any]] = []

    async def ask(self, port: Port, body: bytes) -> tuple[Said, bool]:
        """What it says. Raises Unsaid."""
        document = json.loads(body)["input"]
        self.asked.append(document)
        if self.seconds:
            await port.sleep(self.seconds)
        said = self.says(document)
        if isinstance(said, str):
            raise Unsaid(said)
        return said, False


class MemoryCredentials:
    """A token for an upstream, or none."""

    def __init__(self) -> None:
        self.tokens: list[bytes] = [b"token-1"]  # the first is the one of now; a refusal takes it away
        self.refused: list[bytes] = []
        self.problem = "the token endpoint is away"

    def ready(self) -> bytes | None:
        """The token of now."""
        return self.tokens[0] if self.tokens else None

    async def wait(self, port: Port) -> bytes | None:
        """The token, once there is one."""
        return self.ready()

    async def renewed(self, port: Port, token: bytes) -> bytes | None:
        """Another token in the place of one that was refused."""
        self.refused.append(token)
        if self.tokens and self.tokens[0] == token:
            del self.tokens[0]
        return self.ready()


class MemoryOutside:
    """Both, for one sidecar in memory."""

    def __init__(self) -> None:
        self.asked_opa = MemoryOpa()
        self.tokens: dict[str, MemoryCredentials] = {}

    def opa(self, _: object) -> MemoryOpa:
        """OPA, whatever is said of it."""
        return self.asked_opa

    def credentials(self, name: str, _: object) -> MemoryCredentials:
        """Who hands out tokens for this upstream."""
        return self.tokens.setdefault(name, MemoryCredentials())

    def in_force(self, _: object) -> None:
        """Nothing: nobody has a task."""

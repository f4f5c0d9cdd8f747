"""The watch: one long exchange with the CA over mTLS that brings trust bundles, denylists and the CA's time (D16).

Each message carries the whole state of its topic, so nothing is lost by reconnecting. A bundle or denylist is
acknowledged after it is in force and kept, never before: the CA waits for these acknowledgements before it moves a
root, and `mesh certs revoke --watch` reads them. One that is refused is not acknowledged, and the watch goes on. The CA
sends its time every 30 s; a watch that says nothing for three such beats is taken for dead.

The watch shows the certificate that we hold, and starts anew when we get another one, so that the CA knows which
certificates are in use.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from certs.bundle import BundleSet, TrustBundle
from certs.spiffe import TrustDomain
from sidecar.identity.answers import parse_bundle, parse_federation, parse_time, parse_wait
from sidecar.identity.errors import BadAnswer, CaUnreachable
from sidecar.net.clock import Clock
from sidecar.net.http_client import BadHttp, Duplex

SILENCE_SECONDS = 90.0  # three missed beats
SEND_SECONDS = 15.0
MAX_LINE_BYTES = 2 * 1024 * 1024  # a bundle of 1 MiB (certs.bundle) in its envelope


class Watch:
    """Reads one open watch. `on_bundle` and `on_denylist` publish and keep, and say whether they did; `on_skew` learns
    our clock minus the CA's.

    `on_renew` is told within how many seconds the CA wants us to renew, where it does; `on_federation` publishes and
    keeps the bundles of all other trust domains.
    """

    def __init__(
        self,
        duplex: Duplex,
        trust_domain: TrustDomain,
        clock: Clock,
        on_bundle: Callable[[TrustBundle], Awaitable[bool]],
        on_skew: Callable[[float], None],
        on_denylist: Callable[[object], Awaitable[bool]] | None = None,
        on_renew: Callable[[float], None] = lambda within: None,
        on_federation: Callable[[BundleSet], Awaitable[None]] | None = None,
    ) -> None:
        self._duplex = duplex
        self._trust_domain = trust_domain
        self._clock = clock
        self._on_bundle = on_bundle
        self._on_skew = on_skew
        self._on_denylist = on_denylist
        self._on_renew = on_renew
        self._on_federation = on_federation
        self._buffer = b""

    async def follow(self, on_message: Callable[[], None]) -> None:
        """Take in messages until the watch ends, which it does by raising CaUnreachable or BadAnswer."""
        try:
            while True:
                await self._take(await self._line())
                on_message()
        except (OSError, BadHttp, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise CaUnreachable(f"the watch broke: {error}") from error
        except trio.TooSlowError:
            raise CaUnreachable("the watch was silent, or would not take our answer, for too long") from None

    async def _line(self) -> bytes:
        with trio.fail_after(SILENCE_SECONDS):
            while b"\n" not in self._buffer:
                if len(self._buffer) > MAX_LINE_BYTES:
                    raise BadAnswer(f"a message of the watch is longer than {MAX_LINE_BYTES} bytes")
                piece = await self._duplex.receive()
                if piece is None:
                    raise CaUnreachable("the CA ended the watch")
                self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    async def _take(self, line: bytes) -> None:
        arrived = self._clock.wall()
        try:
            message = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError) as error:
            raise BadAnswer("a message of the watch is not JSON") from error
        if not isinstance(message, dict):
            raise BadAnswer("a message of the watch is not a JSON object")
        match message.get("topic"):
            case "bundle":
                await self._take_bundle(message)
            case "denylist" if self._on_denylist is not None:
                if await self._on_denylist(message.get("denylist")):
                    await self._acknowledge(message)
            case "federation" if self._on_federation is not None:
                await self._on_federation(parse_federation(self._trust_domain, message.get("bundles")))
                await self._acknowledge(message)
            case "renew":
                self._on_renew(parse_wait(message.get("within")))
                await self._acknowledge(message)
            case "time":
                self._take_time(message, arrived)
            case _:
                pass  # a topic of a later version: not ours to judge

    async def _take_bundle(self, message: dict[str, Any]) -> None:
        bundle = parse_bundle(self._trust_domain, json.dumps(message.get("bundle")).encode())
        if await self._on_bundle(bundle):
            await self._acknowledge(message)

    async def _acknowledge(self, message: dict[str, Any]) -> None:
        ack = {"ack": message.get("topic"), "sequence": message.get("sequence")}
        with trio.fail_after(SEND_SECONDS):
            await self._duplex.send(json.dumps(ack).encode() + b"\n")

    def _take_time(self, message: dict[str, Any], arrived: float) -> None:
        self._on_skew(arrived - parse_time(message.get("now")))

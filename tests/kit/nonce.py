"""The client whose word counts as proof: open-loop, pooled, keep-alive, and it knows every answer beforehand.

Each request carries a nonce in its path, in a header and (POST) in every 32 bytes of its body; the application sends
all of them back, and the answer must hold this request's nonce and no other. Half of the requests are POST without
Idempotency-Key, so nothing between may send them twice. Requests start when the schedule says so, whether or not
earlier ones have been answered, as users do; nothing is ever tried again. A request ends in exactly one of

    ok        the whole, right answer
    crossed   an answer that holds somebody else's nonce: the worst that a proxy can do
    torn      an answer that ended early, or is not what was sent
    failed    no answer, or a status other than 200
    cancelled the client gave up on purpose (tests.kit.nonce_h2 only)

The load runs in a thread with an event loop of its own, so that a test can rotate, reload or kill things meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import re
import secrets
import threading
import time
from asyncio import StreamReader, StreamWriter
from dataclasses import dataclass, field

NONCE_BYTES = 16  # hex digits
_NONCE = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{7}")
IDLE_LIMIT = 30.0  # seconds that a connection may rest in our pool; the sidecar keeps it for 300


class GaveUp(Exception):
    """The client itself has cancelled the request, on purpose."""


class Torn(Exception):
    """The answer ended early or is not HTTP."""


@dataclass
class Tally:
    """What became of all requests."""

    ok: int = 0
    crossed: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    nonces: list[str] = field(default_factory=list)  # every one that was sent, in order
    posts: int = 0
    body_sent: int = 0  # bytes of bodies of requests that ended ok
    body_received: int = 0
    connections: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)  # from the scheduled start to the last byte

    @property
    def sent(self) -> int:
        """How many requests were started."""
        return len(self.nonces)

    def quantile(self, share: float) -> float:
        """A latency in milliseconds."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    def summary(self) -> str:
        """One line for a report."""
        return (
            f"{self.sent} requests ({self.posts} POST) in {self.seconds:.1f} s over {self.connections} connections: "
            f"{self.ok} ok, {len(self.failed)} failed, {len(self.crossed)} crossed, {len(self.torn)} torn; "
            f"p50 {self.quantile(0.5):.2f} ms, p99 {self.quantile(0.99):.2f} ms, max {self.quantile(1.0):.2f} ms"
        )

    def assert_flawless(self) -> None:
        """Every request ended in its own, whole answer."""
        assert self.sent, "nothing was sent"
        problems = [*self.crossed[:5], *self.torn[:5], *self.failed[:5]]
        assert self.ok + len(self.cancelled) == self.sent, f"{self.summary()}\n" + "\n".join(problems)


class NonceLoad:
    """A load on a local port, from entering to `stop`. `rate` is requests a second, by a Poisson process."""

    def __init__(self, port: int, *, rate: float, host: str = "app", seed: int = 1, large_share: float = 0.02) -> None:
        self.tally = Tally()
        self._port = port
        self._host = host
        self._rate = rate
        self._dice = random.Random(seed)
        self._large = large_share
        self._run = secrets.token_hex(4)
        self._pool: list[tuple[StreamReader, StreamWriter, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._in_thread, name="nonce-load")
        self._fault: BaseException | None = None

    def __enter__(self) -> NonceLoad:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> Tally:
        """Start no more requests, wait for the answers to those under way, return what happened."""
        self._stop.set()
        self._thread.join()
        if self._fault is not None:
            raise self._fault
        return self.tally

    # ---- the schedule ----------------------------------------------------------------------------------------------

    def _in_thread(self) -> None:
        try:
            asyncio.run(self._load())
        except BaseException as error:
            self._fault = error

    async def _load(self) -> None:
        began = due = time.monotonic()
        running: set[asyncio.Task[None]] = set()
        while not self._stop.is_set():
            due += self._dice.expovariate(self._rate)
            if (pause := due - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            task = asyncio.create_task(self._one(due))
            running.add(task)
            task.add_done_callback(running.discard)
        if running:
            await asyncio.wait(running, timeout=30)
        self.tally.seconds = time.monotonic() - began
        for _, writer, _ in self._pool:
            writer.close()

    # ---- one request -----------------------------------------------------------------------------------------------

    async def _one(self, due: float) -> None:
        tally = self.tally
        nonce = f"{self._run}-{len(tally.nonces):07x}"
        tally.nonces.append(nonce)
        body = b""
        post = len(tally.nonces) % 2 == 0
        if post:
            tally.posts += 1
            few, many = range(1, 200), range(4000, 20_000)  # times 32 bytes: 6 KiB at most, or 128 KiB and more
            body = self._pattern(nonce) * self._dice.choice(many if self._dice.random() < self._large else few)
        try:
            answer = await asyncio.wait_for(self._ask(nonce, body, post), 30)
            self._judge(nonce, body if post else self._pattern(nonce), answer)
        except GaveUp:
            tally.cancelled.append(nonce)
        except Torn as error:
            tally.torn.append(f"{nonce} at {time.time():.3f}: {error}")
        except (OSError, EOFError, TimeoutError) as error:
            tally.failed.append(f"{nonce} at {time.time():.3f}: {'POST' if post else 'GET'} {error!r}")
        tally.latencies.append(time.monotonic() - due)

    @staticmethod
    def _pattern(nonce: str) -> bytes:
        return f"<{nonce:<30}>".encode()

    async def _ask(self, nonce: str, body: bytes, post: bool) -> tuple[int, bytes, bytes]:
        """Status, head and body of the answer. The connection goes back to the pool only after a whole one."""
        reader, writer = await self._connection()
        try:
            method = "POST" if post else "GET"
            length = f"content-length: {len(body)}\r\n" if post else ""
            head = f"{method} /echo/{nonce} HTTP/1.1\r\nhost: {self._host}\r\nx-nonce: {nonce}\r\n{length}\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            answer = await self._read(reader)
        except BaseException:
            writer.close()
            raise
        if b"connection: close" in answer[1].lower():
            writer.close()
        else:
            self._pool.append((reader, writer, time.monotonic()))
        return answer

    async def _connection(self) -> tuple[StreamReader, StreamWriter]:
        while self._pool:
            reader, writer, since = self._pool.pop()
            if time.monotonic() - since < IDLE_LIMIT and not reader.at_eof():
                return reader, writer
            writer.close()
        self.tally.connections += 1
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def _read(self, reader: StreamReader) -> tuple[int, bytes, bytes]:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise Torn(f"the head ends early: {error.partial[:80]!r}") from None
            raise
        length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)\r\n", head)
        if not head.startswith(b"HTTP/1.1 ") or length is None:
            raise Torn(f"not an answer with a length: {head[:200]!r}")
        try:
            body = await reader.readexactly(int(length[1]))
        except asyncio.IncompleteReadError as error:
            raise Torn(f"{len(error.partial)} of {int(length[1])} bytes") from None
        return int(head[9:12]), head, body

    def _judge(self, nonce: str, expected: bytes, answer: tuple[int, bytes, bytes]) -> None:
        status, head, body = answer
        tally = self.tally
        strange = {found.decode() for found in _NONCE.findall(head + body)} - {nonce}
        if strange:
            tally.crossed.append(f"{nonce} got {sorted(strange)[:3]}, status {status}")
        elif status != 200:
            tally.failed.append(f"{nonce} at {time.time():.3f}: status {status}: {head!r} {body[:200]!r}")
        elif body != expected or f"x-path: {nonce}\r\nx-nonce: {nonce}\r\n".encode() not in head:
            tally.torn.append(f"{nonce}: {len(body)} bytes for {len(expected)}: {head!r}")
        else:
            tally.ok += 1
            tally.body_received += len(body)
            tally.body_sent += len(expected) if b"\r\nx-method: POST\r\n" in head else 0

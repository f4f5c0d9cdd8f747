"""The task that carries events to one receiver until it has them, whatever becomes of either of us.

Syslog has no acknowledgement (RFC 5425 section 4.4 says no more than how to end a session), and what a socket has taken
its receiver may never read. So nothing counts as taken before a connection was *closed in order*: we say that we end
(close_notify), the receiver reads up to that and ends too. This is done after ten seconds or 20,000 events. A
connection that ends in any other way took nothing for certain, and all of it is sent again on the next.

OTLP is taken by its 200, a file by fsync.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import trio

from certs.errors import MeshError
from sidecar.net.http_client import BadHttp, HttpClient
from sidecar.net.http_message import JSON
from sidecar.net.https import cause, tls_context
from sidecar.telemetry.export import ocsf, otlp, syslog
from sidecar.telemetry.export.feed import ALARM, Batch, Event, Feed, Position

if TYPE_CHECKING:
    from sidecar.config.schema_audit import AuditExport
    from sidecar.telemetry.log import Log
    from sidecar.telemetry.metrics import Metrics

POLL_SECONDS: Final = 0.5
CONFIRM_SECONDS: Final = 10.0
CONFIRM_EVENTS: Final = 20_000
ANSWER_SECONDS: Final = 15.0
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
_READ = 4096


class NotTaken(MeshError):
    """A receiver did not take events; they will be sent again."""

    name = "not_taken"


class Way(Protocol):
    """How events come to one kind of receiver."""

    async def carry(self, exporter: Exporter) -> None:
        """Carry events until there are none left that have to wait for another connection. Raises NotTaken, OSError,
        ssl.SSLError, BadHttp, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError.
        """


class Exporter:
    """One export. `dice` gives numbers in [0, 1)."""

    def __init__(
        self, spec: AuditExport, feed: Feed, *, version: str, log: Log, metrics: Metrics, dice: Callable[[], float]
    ) -> None:
        self.spec = spec
        self.feed = feed
        self.version = version
        self.host = socket.gethostname()
        self.problem = ""
        self.sent = 0  # events, each time that they were sent
        self.resent = 0
        self.rejected = 0  # by the receiver, for good
        self._furthest: tuple[str, int] = ("", 0)
        self._log = log
        self._metrics = metrics
        self._dice = dice
        self._alarmed = False
        self._dropped_told = 0
        ways: dict[str, Callable[[AuditExport], Way]] = {"syslog": _Syslog, "otlp": _Otlp, "ocsf": _OcsfFile}
        self._way = ways[spec.kind](spec)

    async def run(self) -> None:
        """Carry until cancelled."""
        failures = 0
        while True:
            before = self.feed.at
            try:
                await self._way.carry(self)
                if self.problem:
                    self._log.info("the audit is exported again", to=self.spec.target)
                self.problem, failures = "", 0
            except (OSError, ssl.SSLError, NotTaken, BadHttp, trio.BrokenResourceError, trio.ClosedResourceError,
                    trio.TooSlowError, ValueError) as error:  # fmt: skip
                failures = 1 if self.feed.at != before else failures + 1
                self._failed(error)
                wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(failures - 1, 10))
                await trio.sleep(wait * (0.5 + self._dice() / 2))

    async def next(self, after: Position) -> Batch:
        """The next events after this position, read in a thread."""
        batch = await trio.to_thread.run_sync(self.feed.read, after)
        self._look()
        return batch

    async def wait(self, after: Position) -> Batch:
        """The next batch that has events, as soon as there is one."""
        while not (batch := await self.next(after)).events:
            after = batch.after
            await trio.sleep(POLL_SECONDS)
        return batch

    async def taken(self, position: Position) -> None:
        """The receiver has everything up to here."""
        await trio.to_thread.run_sync(self.feed.taken, position)
        self.problem = ""

    def count(self, events: tuple[Event, ...], after: Position) -> None:
        """These were sent, whether or not they arrive."""
        self.sent += len(events)
        if after.chain == self._furthest[0] and after.number <= self._furthest[1]:
            self.resent += len(events)
        else:
            self._furthest = (after.chain, after.number)

    def to_json(self) -> dict[str, object]:
        """For `mesh status`."""
        return {
            "kind": self.spec.kind, "to": self.spec.target, "problem": self.problem, "sent": self.sent,
            "resent": self.resent, "dropped": self.feed.dropped, "rejected": self.rejected,
            "waiting_bytes": self.feed.waiting, "full": round(self.feed.full, 3),
        }  # fmt: skip

    def show(self) -> None:
        """Put the figures where Prometheus sees them."""
        labels = (f"{self.spec.kind}:{self.spec.target}",)
        for name, value in (
            ("sent_total", self.sent), ("resent_total", self.resent), ("dropped_total", self.feed.dropped),
            ("rejected_total", self.rejected), ("waiting_bytes", self.feed.waiting), ("full", self.feed.full),
            ("failing", 1 if self.problem else 0),
        ):  # fmt: skip
            self._metrics.counter(f"mesh_audit_export_{name}").set(value, labels)

    def end(self) -> None:
        """It is not asked for any more: nothing of it waits, or fails."""
        self.problem, self.feed.waiting = "", 0
        self.show()

    def _look(self) -> None:
        full = self.feed.full
        if full >= ALARM and not self._alarmed:
            self._log.error(
                "the audit's export is nearly full: soon the oldest is not sent any more", to=self.spec.target,
                waiting=self.feed.waiting, backlog=self.feed.backlog, problem=self.problem or None,
            )  # fmt: skip
        self._alarmed = full >= ALARM
        if self.feed.dropped > self._dropped_told:
            more = self.feed.dropped - self._dropped_told
            self._log.error("lines of the audit are not sent: too many waited", to=self.spec.target, lines=more)
            self._dropped_told = self.feed.dropped

    def _failed(self, error: BaseException) -> None:
        problem = cause(error) if not isinstance(error, trio.TooSlowError) else "it did not answer in time"
        if problem != self.problem:
            self._log.warning("the audit cannot be exported; it waits", to=self.spec.target, problem=problem)
        self.problem = problem


class _Syslog:
    def __init__(self, spec: AuditExport) -> None:
        self._spec = spec

    async def carry(self, exporter: Exporter) -> None:
        """One connection: from the first event that waits to the orderly end."""
        batch = await exporter.wait(exporter.feed.at)
        stream = await self._connect()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_it_ends, stream)
                position = await self._send_for_a_while(exporter, stream, batch)
                nursery.cancel_scope.cancel()
            with trio.fail_after(ANSWER_SECONDS):
                await _end_in_order(stream)
        except BaseExceptionGroup as group:
            raise _first_of(group) from None
        finally:
            await trio.aclose_forcefully(stream)
        await exporter.taken(position)

    async def _send_for_a_while(self, exporter: Exporter, stream: trio.abc.Stream, batch: Batch) -> Position:
        until, events, as_ocsf = trio.current_time() + CONFIRM_SECONDS, 0, self._spec.body == "ocsf"
        while True:
            if batch.events:
                frames = [
                    syslog.message(event, exporter.host, ocsf.encode(event) if as_ocsf else event.text)
                    for event in batch.events
                ]
                with trio.fail_after(ANSWER_SECONDS):
                    await stream.send_all(b"".join(frames))
                exporter.count(batch.events, batch.after)
                events += len(batch.events)
            if events >= CONFIRM_EVENTS or trio.current_time() >= until:
                return batch.after
            if not batch.events:
                await trio.sleep(POLL_SECONDS)
            batch = await exporter.next(batch.after)

    async def _connect(self) -> trio.SSLStream[trio.SocketStream] | trio.SocketStream:
        address = self._spec.address
        assert address is not None  # `lint` sees to it
        with trio.fail_after(ANSWER_SECONDS):
            transport = await trio.open_tcp_stream(address.host, address.port)
            if self._spec.unsafe_plaintext:
                return transport
            context = await trio.to_thread.run_sync(tls_context, await _roots(self._spec.roots))
            stream = trio.SSLStream(transport, context, server_hostname=address.host)
            try:
                await stream.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            return stream


async def _until_it_ends(stream: trio.abc.Stream) -> None:
    """A receiver of syslog has nothing to say; when its end comes before ours, something may be lost."""
    while await stream.receive_some(_READ):
        pass
    raise NotTaken("it has closed the connection")


async def _end_in_order(stream: trio.SSLStream[trio.SocketStream] | trio.SocketStream) -> None:
    """Say that we end, and wait for the other end to have read that. Raises NotTaken where it breaks off."""
    if isinstance(stream, trio.SocketStream):
        await stream.send_eof()
        while await stream.receive_some(_READ):
            pass
        return
    transport = stream.transport_stream
    try:
        await stream.unwrap()
    except trio.BrokenResourceError as error:
        # A plain FIN in answer to our close_notify: many receivers end like that, and they have read up to it. A reset
        # is another matter: what they had not read is gone.
        if not isinstance(error.__cause__, ssl.SSLError):
            raise NotTaken("it broke off at the end of the connection") from None
    finally:
        await trio.aclose_forcefully(transport)  # after `unwrap` the stream has it no more


class _Otlp:
    def __init__(self, spec: AuditExport) -> None:
        self._spec = spec

    async def carry(self, exporter: Exporter) -> None:
        """One connection, for as long as it lasts."""
        batch = await exporter.wait(exporter.feed.at)
        url = self._spec.url
        assert url is not None  # `lint` sees to it
        stream: trio.abc.Stream
        with trio.fail_after(ANSWER_SECONDS):
            stream = transport = await trio.open_tcp_stream(url.address.host, url.address.port)
            if url.tls:
                context = await trio.to_thread.run_sync(tls_context, await _roots(self._spec.roots))
                stream = trio.SSLStream(transport, context, server_hostname=url.address.host, https_compatible=True)
        client = HttpClient(stream, url.authority)
        try:
            while True:
                await self._post(exporter, client, url.path, batch)
                if not client.reusable:
                    return
                batch = await exporter.wait(batch.after)
        finally:
            await trio.aclose_forcefully(stream)

    async def _post(self, exporter: Exporter, client: HttpClient, path: str, batch: Batch) -> None:
        body = otlp.encode(batch.events, exporter.host, exporter.version)
        exporter.count(batch.events, batch.after)
        with trio.fail_after(ANSWER_SECONDS):
            answer = await client.request("POST", path, body, (JSON,))
        if answer.status != 200:
            again = "" if answer.status in otlp.RETRYABLE else "; it does not want them, which needs somebody's eye"
            raise NotTaken(f"it answered {answer.status}{again}")
        exporter.rejected += otlp.rejected(answer.body)
        await exporter.taken(batch.after)


class _OcsfFile:
    def __init__(self, spec: AuditExport) -> None:
        self._path = Path(spec.path)

    async def carry(self, exporter: Exporter) -> None:
        """One batch."""
        batch = await exporter.wait(exporter.feed.at)
        lines = b"".join(ocsf.encode(event) + b"\n" for event in batch.events)
        await trio.to_thread.run_sync(self._append, lines)
        exporter.count(batch.events, batch.after)
        await exporter.taken(batch.after)

    def _append(self, lines: bytes) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab", buffering=0) as file:
            end = os.fstat(descriptor).st_size
            if end and os.pread(descriptor, 1, end - 1) != b"\n":
                file.write(b"\n")  # after a crash in mid-line; the event comes again
            rest = memoryview(lines)
            while rest:
                rest = rest[file.write(rest) or 0 :]
            os.fsync(descriptor)


async def _roots(path: str) -> str:
    return await trio.to_thread.run_sync(Path(path).read_text, "ascii") if path else ""


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception that tells the most: of a nursery whose tasks failed together."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        kinds = [one for one in found.exceptions if not isinstance(one, trio.Cancelled)]
        found = kinds[0] if kinds else found.exceptions[0]
    return found


def cursor_name(spec: AuditExport) -> str:
    """The name of the file, in the state folder, that remembers how far this export is."""
    safe = "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in f"{spec.kind}-{spec.target}")
    return f"audit-export-{safe[:120]}.json"

"""One Open Policy Agent, asked by its REST API (POST, `{"input": …}`): the only code that speaks to it.

Theory of operation. A connection coroutine leaves its question here and waits for a signal; a few trio tasks, each with
a connection of its own, take questions in the order in which they came. A question whose time is up is not asked any
more, and one that is under way then ends with its connection: what comes back late belongs to nobody. So a slow OPA
holds up nobody for longer than `timeout`, and what it says afterwards changes nothing.

Nobody decides here what silence means: that is the configuration's, and `sidecar.proxy.asking` acts on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from sidecar.answer.bridge import Asker
from sidecar.net.port import NEVER, Expired, Signal
from sidecar.net.web import WebClient, WebFailed
from sidecar.policy.ask import MOST_ANSWER_BYTES, AnswerBook, Said, Unsaid, place, read_answer, target

if TYPE_CHECKING:
    from sidecar.answer.bridge import Around
    from sidecar.config.schema_opa import Opa
    from sidecar.net.port import Port

CONNECTIONS: Final = 8  # to OPA; it answers in about a millisecond, so that is thousands of questions a second
MOST_WAITING: Final = 1024  # questions; who comes then hears nothing
KEPT: Final = 20.0  # seconds that a connection is kept without a question
LATE: Final = 0.2  # seconds that the trio tasks may be behind their time before whoever waits goes on without them
HEADERS: Final = ((b"content-type", b"application/json"), (b"accept", b"application/json"))


class _Waiting:
    """Somebody's question."""

    __slots__ = ("answer", "asked", "body", "done")

    def __init__(self, body: bytes, asked: float) -> None:
        self.body = body
        self.asked = asked  # monotonic seconds
        self.answer: Said | str | None = None  # text: why it was not answered
        self.done = Signal()


class OpaAnswers(Asker):
    """Asks one OPA, as one configuration says, for as long as `run` does."""

    def __init__(self, spec: Opa, around: Around) -> None:
        super().__init__(around)
        self.spec = spec
        self._book = AnswerBook(spec.cache.ttl, spec.cache.size) if spec.cache is not None else None
        self._questions, self._incoming = trio.open_memory_channel[_Waiting](MOST_WAITING)
        self._silent = False  # it was when it was asked last: said once

    # ---- a connection's side ---------------------------------------------------------------------------------------

    async def ask(self, port: Port, body: bytes) -> tuple[Said, bool]:
        """What OPA says, and whether it had said so before. Raises Unsaid."""
        if self._book is not None and (known := self._book.find(body, self._clock.monotonic())) is not None:
            return known, True
        mine = _Waiting(body, self._clock.monotonic())
        try:
            self._questions.send_nowait(mine)
        except trio.WouldBlock:
            raise Unsaid(f"{MOST_WAITING} questions wait for it") from None
        self._bridge.awaits(1)
        port.deadline(port.now + self.spec.timeout + LATE)
        try:
            await port.wait(mine.done)
        except Expired:
            pass
        finally:
            self._bridge.awaits(-1)
            answer = mine.answer = mine.answer or self._late()  # and nobody answers it any more
            port.deadline(NEVER)
        if isinstance(answer, str):
            raise Unsaid(answer)
        return answer, False

    def _late(self) -> str:
        return f"no answer within {self.spec.timeout * 1e3:g} ms (opa.timeout)"

    # ---- trio's side -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ask for those who wait, until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(CONNECTIONS):
                nursery.start_soon(self._serve)

    async def _serve(self) -> None:
        client = WebClient(self.spec.url, roots=self.spec.roots, most=MOST_ANSWER_BYTES)
        try:
            while True:
                with trio.move_on_after(KEPT) as kept:
                    each = await self._incoming.receive()
                if kept.cancelled_caught:
                    await client.drop()
                elif each.answer is None:
                    await self._answer(client, each)
        finally:
            with trio.CancelScope(shield=True):
                await client.drop()

    async def _answer(self, client: WebClient, each: _Waiting) -> None:
        began = self._clock.monotonic()
        answer: Said | str = self._late()
        with trio.move_on_after(max(0.001, each.asked + self.spec.timeout - began)):
            try:
                found = await client.post(target(self.spec), each.body, HEADERS)
                answer = read_answer(found.status, found.header(b"content-type"), found.body)
            except (WebFailed, Unsaid) as error:
                answer = str(error)
        if isinstance(answer, str):
            await client.drop()
        elif self._book is not None:
            self._book.keep(each.body, answer, each.asked)
        if each.answer is None:
            each.answer = answer
            each.done.fire()
            self._bridge.nudge()
        self._metrics.histogram("mesh_ask_seconds").observe(self._clock.monotonic() - began, (), began)
        self._tell(answer)

    def _tell(self, answer: Said | str) -> None:
        """Say once that it is silent, and once that it is not any more."""
        silent = isinstance(answer, str)
        if silent == self._silent or self._log is None:
            return
        self._silent = silent
        if silent:
            then = self.spec.silent
            self._log.warning("OPA says neither yes nor no", opa=place(self.spec), problem=answer, then=then)
        else:
            self._log.info("OPA answers", opa=place(self.spec))

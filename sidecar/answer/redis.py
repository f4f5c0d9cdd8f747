"""The Redis that sidecars of a service count in together: the only code that speaks to it.

Theory of operation. A connection coroutine asks and waits; one trio task asks Redis for all who wait, in one pipeline,
one round trip at a time. What comes meanwhile goes with the next, so a busy sidecar asks in larger batches and not more
often. Nobody waits longer than `within`, counted from the oldest question of the batch.

*Away.* One failure (refused, slow, an error of any kind, an answer that is none) and Redis counts as away: everybody
who waits is told so, and from then on nobody asks and nobody waits. We try again by ourselves, on a new connection,
after 100 ms, twice that, up to 5 s, each with a jitter of a quarter; a try is a whole one, script and all. What a limit
does meanwhile its configuration says.

coredis runs on anyio. Its errors come alone or in groups from its nursery; all of them mean the same.
"""

from __future__ import annotations

import ssl
from collections import deque
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from certs.errors import MeshError
from certs.store import read_key
from sidecar.answer.bridge import Asker
from sidecar.net.port import Signal
from sidecar.net.stay import stay
from sidecar.traffic.shared import MICRO, SCRIPT, Answered, Away

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from sidecar.answer.bridge import Around
    from sidecar.config.schema_redis import Redis
    from sidecar.net.port import Port, Wire
    from sidecar.traffic.shared import Question

FIRST_PAUSE, LONGEST_PAUSE, JITTER = 0.1, 5.0, 0.25  # seconds, and a share of them
CONNECT_SECONDS: Final = 2.0  # as for an upstream (decision D8)
MOST_WAITING: Final = 4096  # questions; who comes then is answered as if Redis were away
MOST_AT_ONCE: Final = 256  # in one pipeline
LOOK_SECONDS: Final = 5.0  # without a question, until we look whether it is still there
LATE: Final = 0.2  # seconds that the trio task may be behind its time before whoever waits goes on without it
SHA: Final = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()  # how EVALSHA names a script


class RedisAway(MeshError):
    """Redis does not answer, or not what we understand. `why` is `away`, `slow` or `error`."""

    name = "redis_away"

    def __init__(self, why: str, detail: str) -> None:
        super().__init__(detail)
        self.why = why


class _Waiting:
    """Somebody's question."""

    __slots__ = ("answer", "asked", "done", "question")

    def __init__(self, question: Question, asked: float) -> None:
        self.question = question
        self.asked = asked  # monotonic seconds
        self.answer: Answered | Away | None = None
        self.done = Signal()


class RedisAnswers(Asker):
    """One Redis, through all its absences and reloads."""

    def __init__(self, around: Around) -> None:
        super().__init__(around)
        self._spec: Redis | None = None
        self._scope = trio.CancelScope()  # of what is under way for this spec
        self._changed = trio.Event()
        self._come = trio.Event()  # a question has
        self._waiting: deque[_Waiting] = deque()
        self.up = False
        self._ups = 0  # how often it came
        self.problem = "not asked yet"  # why it is away, in words, while it is
        self._why = "away"

    def use(self, spec: Redis | None) -> None:
        """From now on it is this one; None for none. May be called before `run`."""
        if spec != self._spec:
            self._spec, self.up = spec, False
            self._changed.set()
            self._scope.cancel()

    def to_json(self) -> dict[str, Any] | None:
        """The state of it, for `mesh limits`; None where there is none."""
        spec = self._spec
        if spec is None:
            return None
        return {"url": str(spec.url), "up": self.up, "problem": "" if self.up else self.problem,
                "when_away": spec.when_away}  # fmt: skip

    # ---- a connection's side ---------------------------------------------------------------------------------------

    async def ask(self, port: Port, wire: Wire, question: Question) -> Answered | Away:
        """Ask, and wait for as long as `within` at most. Raises PeerGone once the caller at `wire` has left."""
        spec = self._spec
        if not self.up or spec is None:
            return self._without(self._why)
        if len(self._waiting) >= MOST_WAITING:
            return self._without("full")
        mine = _Waiting(question, self._clock.monotonic())
        self._waiting.append(mine)
        self._bridge.awaits(1)
        self._come.set()
        try:
            await stay(port, wire, port.now + spec.within + LATE, mine.done)
        finally:
            self._bridge.awaits(-1)
            answer = mine.answer = mine.answer or Away("slow")  # and nobody answers it any more
        return answer if isinstance(answer, Answered) else self._without(answer.why)

    def _without(self, why: str) -> Away:
        self._metrics.counter("mesh_ratelimit_redis_fallbacks_total").add((why,))
        return Away(why)

    # ---- trio's side -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep a connection, ask for those who wait, and come back after a failure; until cancelled."""
        while True:
            spec, self._changed = self._spec, trio.Event()
            with trio.CancelScope() as self._scope:
                if spec is None:
                    await self._changed.wait()
                else:
                    await self._keep(spec)
            self._down(RedisAway("away", "another configuration came"), tell=False)

    async def _keep(self, spec: Redis) -> None:
        pause = FIRST_PAUSE / 2.0
        while True:
            ups = self._ups
            try:
                await self._connected(spec)
            except Exception as error:  # noqa: BLE001 - whatever it is, Redis is no help, and that is all
                self._down(_told(error))
            pause = min(2.0 * pause, LONGEST_PAUSE) if self._ups == ups else FIRST_PAUSE
            await trio.sleep(pause * (1.0 + JITTER * (2.0 * self._dice() - 1.0)))

    async def _connected(self, spec: Redis) -> None:
        """One connection's life. Raises whatever ends it."""
        client = await trio.to_thread.run_sync(_client, spec)
        problem: RedisAway | None = None
        with trio.CancelScope() as scope:
            scope.deadline = trio.current_time() + CONNECT_SECONDS
            async with client:
                try:
                    await client.script_load(SCRIPT)
                    await self._look(client, spec)
                    scope.deadline = float("inf")
                    self._is_up(spec)
                    await self._serve(client, spec)
                except Exception as error:  # noqa: BLE001 - see `_keep`
                    problem = _told(error)
                    self._down(problem)  # before the connection is closed, which may take a while
                    scope.cancel()
        raise problem or RedisAway("slow", f"no connection within {CONNECT_SECONDS:g} s")

    async def _serve(self, client: Any, spec: Redis) -> None:
        while True:
            if not self._waiting:
                self._come = trio.Event()
                with trio.move_on_after(LOOK_SECONDS) as idle:
                    await self._come.wait()
                if idle.cancelled_caught:
                    await self._look(client, spec)
                    continue
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
            try:
                await self._answer(client, spec, [each for each in batch if each.answer is None])
            except BaseException:
                self._waiting.extendleft(reversed(batch))  # for `_down`, which tells them
                raise

    async def _look(self, client: Any, spec: Redis) -> None:
        with trio.move_on_after(spec.within) as looking:
            await client.ping()
        if looking.cancelled_caught:
            raise RedisAway("slow", f"no answer within {spec.within * 1e3:g} ms (redis.within)")

    async def _answer(self, client: Any, spec: Redis, batch: Sequence[_Waiting]) -> None:
        """Ask for all of these. Raises RedisAway, and then some of them have no answer."""
        if not batch:
            return
        began = self._clock.monotonic()
        left = min(each.asked for each in batch) + spec.within - began
        with trio.move_on_after(max(0.001, left)) as asking:
            for each, said in zip(batch, await _evaluate(client, batch), strict=True):
                each.answer = _read(said, len(each.question.keys))
                each.done.fire()
        self._bridge.nudge()
        if asking.cancelled_caught:
            raise RedisAway("slow", f"no answer within {spec.within * 1e3:g} ms (redis.within)")
        self._metrics.histogram("mesh_ratelimit_redis_seconds").observe(self._clock.monotonic() - began, (), began)

    # ---- up and down -----------------------------------------------------------------------------------------------

    def _is_up(self, spec: Redis) -> None:
        self.up, self.problem = True, ""
        self._ups += 1
        self._metrics.counter("mesh_ratelimit_redis_up").set(1)
        if self._log is not None:
            self._log.info("limits are counted together", redis=str(spec.url))

    def _down(self, error: RedisAway, *, tell: bool = True) -> None:
        """Redis is away: whoever waits is told, and nobody asks until it is back."""
        was, self.up, self._why = self.up, False, error.why
        changed = was or str(error) != self.problem
        self.problem = str(error)
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            if each.answer is None:
                each.answer = Away(error.why)
                each.done.fire()
        if waiting:
            self._bridge.nudge()
        self._metrics.counter("mesh_ratelimit_redis_up").set(0)
        if tell and changed and self._log is not None and self._spec is not None:
            self._log.warning(
                "limits are not counted together", redis=str(self._spec.url), problem=str(error),
                when_away=self._spec.when_away,
            )  # fmt: skip


async def _evaluate(client: Any, batch: Sequence[_Waiting]) -> Sequence[Any]:
    """The script's answers, in one round trip; where the server has lost it, in three. Raises what coredis raises."""
    from coredis.exceptions import NoScriptError

    said = list(await _pipeline(client, batch))
    lost = [number for number, each in enumerate(said) if isinstance(each, NoScriptError)]
    if lost:  # it was flushed, or this is another server: none of these has counted anything
        await client.script_load(SCRIPT)
        again = await _pipeline(client, [batch[number] for number in lost])
        for number, each in zip(lost, again, strict=True):
            said[number] = each
    return said


async def _pipeline(client: Any, batch: Sequence[_Waiting]) -> Sequence[Any]:
    if len(batch) == 1:  # the usual case, at half the price
        question = batch[0].question
        return [await _said(client.evalsha(SHA, question.keys, question.arguments))]
    async with client.pipeline(transaction=False, raise_on_error=False) as pipe:
        asked = [pipe.evalsha(SHA, each.question.keys, each.question.arguments) for each in batch]
    return [await _said(each) for each in asked]


async def _said(command: Awaitable[Any]) -> Any:
    """What Redis answers; an error that it tells of this command is an answer too."""
    from coredis.exceptions import ResponseError

    try:
        return await command
    except ResponseError as error:
        return error


def _read(said: object, keys: int) -> Answered:
    """What the script has said. Raises RedisAway for whatever it cannot have said."""
    if isinstance(said, Exception):
        raise _told(said)
    fine = isinstance(said, list) and len(said) == keys + 1 and all(isinstance(each, int) for each in said)
    if not fine or not isinstance(said, list) or (said[0] != 1 and max(said[1:]) < 0):
        raise RedisAway("error", "it answers what no script of ours says")
    return Answered(said[0] == 1, tuple(each / MICRO if each >= 0 else None for each in said[1:]))


def _told(error: BaseException) -> RedisAway:
    """What is wrong, in one line. Nothing that coredis says has our password in it; it is cut all the same."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, RedisAway):
        return error
    cause = error.__cause__ or error.__context__
    detail = str(error) or type(error).__name__
    if isinstance(cause, ssl.SSLError | OSError) and str(cause) not in detail:
        detail += f": {cause}"
    kind = "slow" if isinstance(error, TimeoutError) else "away" if "onnect" in type(error).__name__ else "error"
    return RedisAway(kind, " ".join(detail.split())[:200])


def _client(spec: Redis) -> Any:
    """A client for one connection. Reads files, so in a thread. Raises OSError, PrivateFileUnavailable."""
    from coredis import Redis as Client
    from coredis.retry import NoRetryPolicy

    url = spec.url
    more: dict[str, Any] = {}
    if url.address.unix:
        more["unix_socket_path"] = url.address.path
    else:
        more |= {"host": url.address.host, "port": url.address.port}
    if url.tls:
        more["ssl_context"] = ssl.create_default_context(cafile=spec.ca_file or None)
    if spec.password_file:
        more["password"] = read_key(Path(spec.password_file)).decode("utf-8").rstrip("\r\n")
        more["username"] = spec.username or None
    return Client(
        db=url.database, max_connections=1, connect_timeout=CONNECT_SECONDS, stream_timeout=CONNECT_SECONDS,
        decode_responses=False, verify_version=False, retry_policy=NoRetryPolicy(), **more,
    )  # fmt: skip

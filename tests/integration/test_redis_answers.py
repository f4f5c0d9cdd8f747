"""What is asked of a real Redis, and what becomes of those who ask while it is slow, strange, or gone."""

from __future__ import annotations

import gc
import io
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.answer.bridge import Around
from sidecar.answer.redis import RedisAnswers
from sidecar.config.redis_url import RedisAddress
from sidecar.config.schema_inbound import RateLimit
from sidecar.config.schema_redis import Redis
from sidecar.config.terms import Address, Frequency, Per
from sidecar.net.clock import SystemClock
from sidecar.net.port import PeerGone
from sidecar.net.reactor import Reactor
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import Metrics
from sidecar.traffic.gcra import Rate
from sidecar.traffic.limits import Rates
from sidecar.traffic.shared import SCRIPT, Answered, Away, Names, Question
from tests.kit.hops import a_hop
from tests.kit.redis_server import RedisServer, stalling

# coredis 6.9 leaves the memory streams of a connection that has failed to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def swept() -> Iterator[None]:
    """What coredis leaves open after a failed connection is found while it is ignored, and not in another test."""
    yield
    gc.collect()


SLOW_MACHINE = 2.0  # seconds that Redis has here, where the test is not about time


class Nowhere:
    """A caller's wire on which nothing happens, until the test says so."""

    def __init__(self) -> None:
        self.watcher: Any = None
        self.reset = self.half_closed = False


class Kept(Log):
    """A log that is read in the test."""

    def __init__(self, out: io.StringIO) -> None:
        super().__init__()
        self._out = out

    def write(self, level: Any, message: str, fields: dict[str, object]) -> None:
        self._out.write(f"{level} {message} {fields}\n")


class Desk:
    """A reactor, Redis, and questions asked by its coroutines."""

    def __init__(self, reactor: Reactor, answers: RedisAnswers, metrics: Metrics, log: io.StringIO) -> None:
        self.reactor, self.answers, self.metrics, self.log = reactor, answers, metrics, log

    async def ask(self, *questions: Question, wire: Any = None) -> list[Any]:
        """What is answered to questions that are asked at once, in their order; errors too."""
        found: list[Any] = [None] * len(questions)

        async def one(number: int, question: Question) -> None:
            try:
                found[number] = await self.answers.ask(self.reactor, wire or Nowhere(), question)
            except PeerGone as error:
                found[number] = error

        for number, question in enumerate(questions):
            self.reactor.launch(one(number, question))
        with trio.fail_after(10.0):
            while None in found:
                await trio.sleep(0.002)
        return found

    async def until(self, up: bool) -> None:
        with trio.fail_after(15.0):
            while self.answers.up != up:
                await trio.sleep(0.005)


def spec_of(port: int, **more: Any) -> Redis:
    return Redis(url=RedisAddress(Address("127.0.0.1", port)), **{"within": SLOW_MACHINE, **more})


def played(spec: Redis, story: Callable[[Desk], Awaitable[None]]) -> str:
    """Play a story with a reactor and a client of this Redis; returns what was logged."""
    out = io.StringIO()

    async def main() -> None:
        clock, metrics = SystemClock(), Metrics()
        reactor = Reactor(clock)
        answers = RedisAnswers(Around(reactor, clock, metrics, Kept(out), random.random))
        answers.use(spec)
        async with trio.open_nursery() as nursery:
            await nursery.start(reactor.run)
            nursery.start_soon(answers.run)
            await story(Desk(reactor, answers, metrics, out))
            nursery.cancel_scope.cancel()

    trio.run(main)
    return out.getvalue()


def dues_of(*limits: tuple[str, str, int]) -> Any:
    """The dues of one caller under shared limits: name, rate, burst."""
    specs = [
        RateLimit(name=name, limit=Frequency(int(rate[:-2]), rate[-1]), burst=burst, per=Per("caller"),  # type: ignore[arg-type]
                  shared="redis")
        for name, rate, burst in limits
    ]  # fmt: skip
    found = Rates(specs).limits("http")
    assert found is not None
    dues = found.dues(a_hop(), "/**")
    assert dues is not None
    return dues


def question_of(*limits: tuple[str, str, int], who: str = "web", prefix: str = "mesh") -> Question:
    dues = dues_of(*limits)
    return Names(prefix, "spiffe://demo.mesh/ns/default/sa/orders").question(dues, [who] * len(dues.limits))


FEW = ("few", "3/h", 3)
MANY = ("many", "100/s", 100)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> None:
    if "redis" in request.fixturenames:
        assert request.getfixturevalue("redis").do("FLUSHALL") == "OK"


def test_one_script_takes_from_all_or_none(redis: RedisServer) -> None:
    async def story(desk: Desk) -> None:
        await desk.until(up=True)
        both, one = question_of(FEW, MANY), question_of(MANY)
        said = [(await desk.ask(both))[0] for _ in range(5)]
        assert [each.fits for each in said] == [True, True, True, False, False]
        assert said[3].ahead[0] == pytest.approx(3600.0, abs=5.0)
        (after,) = await desk.ask(one)
        assert after.ahead[0] < 0.05  # of the hundred a second, none was taken by the refused ones
        assert redis.do("DBSIZE") == 2
        assert all(0 < int(str(redis.do("PTTL", key.decode()))) <= 3_600_002 for key in both.keys)

    played(spec_of(redis.port), story)


def test_who_asks_at_once_is_asked_for_at_once_and_never_lets_in_more(redis: RedisServer) -> None:
    async def story(desk: Desk) -> None:
        await desk.until(up=True)
        said = await desk.ask(*[question_of(("h", "50/h", 50))] * 300)
        assert sum(each.fits for each in said) == 50

    played(spec_of(redis.port), story)
    assert int(str(redis.do("INFO", "stats")).partition("total_connections_received:")[2].split()[0]) < 60


def test_a_script_that_was_flushed_is_loaded_again(redis: RedisServer) -> None:
    async def story(desk: Desk) -> None:
        await desk.until(up=True)
        assert redis.do("SCRIPT", "FLUSH") == "OK"
        assert [each.fits for each in await desk.ask(*[question_of(FEW)] * 5)] == [True, True, True, False, False]
        assert desk.answers.up

    played(spec_of(redis.port), story)


@pytest.mark.parametrize("value", ["hello", "", "-5", "1e30", "nan", "0x10", "9" * 400])
def test_what_is_not_ours_is_left_alone(redis: RedisServer, value: str) -> None:
    question = question_of(FEW, MANY)
    key = question.keys[0].decode()
    redis.do("SET", key, value)

    async def story(desk: Desk) -> None:
        await desk.until(up=True)
        (said,) = await desk.ask(question)
        assert (said.fits, said.ahead[0]) == (True, None)
        assert said.ahead[1] > 0.0
        assert desk.answers.up
        assert redis.do("GET", key) == value

    played(spec_of(redis.port), story)


def test_another_type_under_our_key_is_left_alone(redis: RedisServer) -> None:
    question = question_of(FEW)
    redis.do("LPUSH", question.keys[0].decode(), "theirs")

    async def story(desk: Desk) -> None:
        await desk.until(up=True)
        assert (await desk.ask(question))[0] == Answered(True, (None,))

    played(spec_of(redis.port), story)
    assert redis.do("LRANGE", question.keys[0].decode(), "0", "-1") == ["theirs"]


def test_a_clock_that_went_back_is_a_full_bucket_and_no_more(redis: RedisServer) -> None:
    """As after a replica took over whose clock is a day behind."""
    question = question_of(("s", "1/s", 1))
    redis.do("SET", question.keys[0].decode(), str(int((time.time() + 86400) * 1e6)))

    async def story(desk: Desk) -> None:
        await desk.until(up=True)
        (said,) = await desk.ask(question)
        assert not said.fits
        assert said.ahead[0] <= 1.01
        await trio.sleep(1.05)
        # What stands there is still far ahead, so it is held, but never for longer than one full bucket at a time.
        (said,) = await desk.ask(question)
        assert said.ahead[0] <= 1.01

    played(spec_of(redis.port), story)


def test_slow_is_away_and_then_nobody_waits(redis: RedisServer) -> None:
    with stalling(redis.port) as (port, stalled):

        async def story(desk: Desk) -> None:
            await desk.until(up=True)
            assert (await desk.ask(question_of(MANY)))[0].fits
            stalled.set()
            began = time.monotonic()
            assert await desk.ask(*[question_of(MANY)] * 20) == [Away("slow")] * 20
            assert time.monotonic() - began < 0.6
            began = time.monotonic()
            for _ in range(200):
                assert isinstance((await desk.ask(question_of(MANY)))[0], Away)
            assert time.monotonic() - began < 2.0  # 200 times `within` is 30 s
            stalled.clear()
            await desk.until(up=True)
            assert (await desk.ask(question_of(MANY)))[0].fits

        log = played(spec_of(port, within=0.15), story)
    assert "no answer within 150 ms (redis.within)" in log
    assert log.count("limits are counted together") == 2


def test_killed_and_started_again(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:

        async def story(desk: Desk) -> None:
            await desk.until(up=True)
            server.kill()
            await desk.until(up=False)
            assert isinstance((await desk.ask(question_of(MANY)))[0], Away)
            await trio.to_thread.run_sync(server.start)
            await desk.until(up=True)
            assert (await desk.ask(question_of(MANY)))[0].fits

        log = played(spec_of(server.port), story)
    assert log.count("limits are not counted together") in (1, 2)  # closed by it, and perhaps refused after that


def test_who_leaves_waits_no_longer(redis: RedisServer) -> None:
    with stalling(redis.port) as (port, stalled):

        async def story(desk: Desk) -> None:
            await desk.until(up=True)
            stalled.set()
            wire = Nowhere()

            async def leave() -> None:
                await trio.sleep(0.05)
                wire.reset = True
                wire.watcher.wake()
                desk.reactor.nudge()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(leave)
                began = time.monotonic()
                (said,) = await desk.ask(question_of(MANY), wire=wire)
                assert isinstance(said, PeerGone)
                assert time.monotonic() - began < 1.0
            stalled.clear()

        played(spec_of(port, within=3.0), story)


def test_a_replica_that_only_reads_is_no_help(redis: RedisServer, tmp_path: Path) -> None:
    options = ("--replicaof", "127.0.0.1", str(redis.port))
    with RedisServer(tmp_path, *options) as replica:

        async def story(desk: Desk) -> None:
            await desk.until(up=True)
            (said,) = await desk.ask(question_of(MANY))
            assert isinstance(said, Away)

        log = played(spec_of(replica.port), story)
    assert "read only replica" in log.lower()


@pytest.mark.parametrize(("password", "fine"), [("right", True), ("wrong", False), ("", False)])
def test_the_password_is_read_from_its_file_and_never_told(tmp_path: Path, password: str, fine: bool) -> None:
    file = tmp_path / "password"
    file.write_text(f"{password}\n")
    file.chmod(0o600)
    with RedisServer(tmp_path, "--requirepass", "right") as server:

        async def story(desk: Desk) -> None:
            if fine:
                await desk.until(up=True)
                assert (await desk.ask(question_of(MANY)))[0].fits
                return
            with trio.fail_after(10.0):
                while "limits are not counted" not in desk.log.getvalue():
                    await trio.sleep(0.01)
            assert isinstance((await desk.ask(question_of(MANY)))[0], Away)

        log = played(spec_of(server.port, password_file=str(file) if password else ""), story)
    assert "wrong" not in log.replace("WRONGPASS", "").replace("wrong number", "")


def test_a_password_file_that_others_can_read_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("right")
    file.chmod(0o644)
    with RedisServer(tmp_path) as server:

        async def story(desk: Desk) -> None:
            with trio.fail_after(10.0):
                while "limits are not counted" not in desk.log.getvalue():
                    await trio.sleep(0.01)

        assert "password" in played(spec_of(server.port, password_file=str(file)), story)


@pytest.mark.parametrize(("host", "fine"), [("localhost", True), ("127.0.0.1", False)])
def test_by_tls_its_certificate_must_be_for_its_name(tmp_path: Path, host: str, fine: bool) -> None:
    ca = trustme.CA()
    cert = ca.issue_cert("localhost")
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    cert.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    cert.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    with RedisServer(tmp_path, tls=(tmp_path / "cert.pem", tmp_path / "key.pem")) as server:
        spec = replace(
            spec_of(server.port, ca_file=str(tmp_path / "ca.pem")),
            url=RedisAddress(Address(host, server.port), tls=True),
        )

        async def story(desk: Desk) -> None:
            if fine:
                await desk.until(up=True)
                assert (await desk.ask(question_of(MANY)))[0].fits
                return
            with trio.fail_after(10.0):
                while "limits are not counted" not in desk.log.getvalue():
                    await trio.sleep(0.01)

        log = played(spec, story)
    assert fine or "certificate" in log.lower()


def test_another_configuration_is_another_connection(redis: RedisServer, tmp_path: Path) -> None:
    with RedisServer(tmp_path) as other:

        async def story(desk: Desk) -> None:
            await desk.until(up=True)
            await desk.ask(question_of(FEW))
            desk.answers.use(spec_of(other.port))
            await desk.until(up=False)
            await desk.until(up=True)
            await desk.ask(question_of(FEW))
            assert (redis.do("DBSIZE"), other.do("DBSIZE")) == (1, 1)
            desk.answers.use(None)
            await desk.until(up=False)
            assert desk.answers.to_json() is None

        played(spec_of(redis.port), story)


# ---- the script, beside the rate that it says once more --------------------------------------------------------------

TIMED = SCRIPT.replace("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}")
STEPS = st.lists(st.tuples(st.integers(0, 700_000), st.sampled_from("ab")), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, st.integers(1, 50), st.integers(1, 6), st.integers(1, 20), st.integers(1, 3))
def test_it_decides_as_the_rate_here_does(
    redis: RedisServer, steps: list[tuple[int, str]], rate: int, burst: int, other: int, other_burst: int
) -> None:
    assert TIMED != SCRIPT
    redis.do("FLUSHALL")
    mine = [Rate("one", rate, burst), Rate("two", other, other_burst)]
    micros, now = 1_700_000_000_000_000, 0.0
    for pause, who in steps:
        now += pause / 1e6
        at = micros + round(now * 1e6)
        arguments = []
        for each in mine:
            interval = 1e6 / each.rate
            arguments += [f"{interval:.6f}", f"{interval * (each.burst - 1 + 1e-3):.6f}"]
        said = redis.do(
            "EVAL", TIMED, "2", f"one{who}", f"two{who}", *arguments, str(at // 1_000_000), str(at % 1_000_000)
        )
        assert isinstance(said, list), said
        waits = [each.standing(now, who).wait for each in mine]
        assert (said[0] == 1) == (max(waits) == 0.0), (said, waits)
        if said[0] == 1:
            for each in mine:
                assert each.take(now, who) == 0.0
        for each, ahead in zip(mine, said[1:], strict=True):
            assert ahead / 1e6 == pytest.approx(each.standing(now, who).reset, abs=1e-5)

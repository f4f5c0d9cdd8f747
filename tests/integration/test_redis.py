"""Redis with redis-cli through two sidecars: pipelines, and a server that speaks unasked."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.meshes import Pair
from tests.kit.processes import Process, eventually
from tests.kit.programs import Done, redis, run
from tests.kit.tools import need


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("redis")
    pair = Pair(folder, protocol="tcp")
    with redis(folder, pair.ports.app), pair:
        pair.start_all()
        yield pair


@pytest.fixture
def pair(served: Pair) -> Iterator[Pair]:
    yield served
    assert cli(served, "PING").text == "PONG\n"
    served.assert_well()


def command(pair: Pair, *arguments: str) -> tuple[str, ...]:
    return (need("redis-cli"), "-h", "127.0.0.1", "-p", str(pair.ports.door), *arguments)


def cli(pair: Pair, *arguments: str, stdin: bytes = b"") -> Done:
    return run(*command(pair, *arguments), stdin=stdin)


def test_set_and_get(pair: Pair) -> None:
    assert cli(pair, "SET", "greeting", "hello world").text == "OK\n"
    assert cli(pair, "GET", "greeting").text == "hello world\n"
    assert "WRONGTYPE" in cli(pair, "LPUSH", "greeting", "x").text


def test_a_value_of_4_mib(pair: Pair) -> None:
    value = hashlib.shake_256(b"redis").hexdigest(2 << 20).encode()
    assert cli(pair, "-x", "SET", "large", stdin=value).text == "OK\n"
    assert cli(pair, "--raw", "GET", "large").out.rstrip(b"\n") == value


def test_a_pipeline_of_100_000_commands(pair: Pair) -> None:
    pieces = []
    for number in range(100_000):
        words = (b"SET", b"key:%d" % number, b"value %d" % number)
        pieces.append(b"*3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
    done = cli(pair, "--pipe", stdin=b"".join(pieces))
    assert "errors: 0, replies: 100000" in done.text
    assert cli(pair, "GET", "key:99999").text == "value 99999\n"


def test_publish_and_subscribe(pair: Pair, tmp_path: Path) -> None:
    listener = Process("subscriber", command(pair, "SUBSCRIBE", "news"), tmp_path / "subscriber.log")
    try:
        eventually("subscribed", lambda: cli(pair, "PUBSUB", "NUMSUB", "news").text.split() == ["news", "1"])
        for number in range(20):
            assert cli(pair, "PUBLISH", "news", f"item {number}").text == "1\n"
        eventually("all have come", lambda: "item 19" in listener.text())
        assert [line for line in listener.text().splitlines() if line.startswith("item")] == [
            f"item {number}" for number in range(20)
        ]
    finally:
        listener.stop()
    eventually("it has been let go", lambda: cli(pair, "PUBSUB", "NUMSUB", "news").text.split() == ["news", "0"])


def test_monitor_sees_what_others_do(pair: Pair, tmp_path: Path) -> None:
    """MONITOR: the server sends for as long as the connection stands, and the client never asks again."""
    monitor = Process("monitor", command(pair, "MONITOR"), tmp_path / "monitor.log")
    try:
        monitor.until("watching", lambda: "OK" in monitor.text())
        cli(pair, "SET", "watched", "yes")
        eventually("it saw that", lambda: '"SET" "watched" "yes"' in monitor.text())
    finally:
        monitor.stop()


def test_a_blocking_read_waits_for_somebody_elses_write(pair: Pair) -> None:
    waiting = subprocess.Popen(command(pair, "BLPOP", "queue", "20"), stdout=subprocess.PIPE)
    try:
        eventually("it waits", lambda: "blocked_clients:1" in cli(pair, "INFO", "clients").text)
        cli(pair, "RPUSH", "queue", "job")
        assert waiting.communicate(timeout=20)[0].split() == [b"queue", b"job"]
    finally:
        waiting.kill()
        waiting.wait()


def test_bad_bytes_are_the_servers_to_judge(pair: Pair) -> None:
    done = run(need("nc"), "-w", "5", "127.0.0.1", str(pair.ports.door), stdin=b"*1\r\n$-9\r\nPING\r\n")
    assert done.out.startswith(b"-ERR Protocol error")

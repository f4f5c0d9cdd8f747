"""gRPC through two sidecars, by grpcio on both ends: every kind of call, metadata, errors, and the rules about them."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.kit.grpc_calls import Calls, grpc_pair
from tests.kit.memory_use import MIB, MemoryWatch
from tests.kit.meshes import Pair

BIG = 64 * MIB
BAR = 32 * MIB  # that a sidecar may grow


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with grpc_pair(tmp_path_factory.mktemp("grpc")) as pair:
        yield pair
        pair.assert_well()


@pytest.fixture(scope="module")
def calls(mesh: Pair) -> Iterator[Calls]:
    with Calls(mesh.ports.door) as calls:
        yield calls


# ---- the four kinds --------------------------------------------------------------------------------------------------


def test_unary(calls: Calls) -> None:
    for body in (b"", b"a", bytes(range(256)) * 4000):
        assert calls.echo(body, timeout=30) == body


def test_client_streaming(calls: Calls) -> None:
    pieces = [bytes([number % 256]) * number for number in range(500)]
    whole = b"".join(pieces)
    answer = calls.collect(iter(pieces), timeout=30).decode()
    assert f'"count": 500, "bytes": {len(whole)}' in answer
    assert hashlib.sha256(whole).hexdigest() in answer


def test_server_streaming(calls: Calls) -> None:
    answers = list(calls.spread(count=500, size=3000))
    assert [int.from_bytes(each[:4], "big") for each in answers] == list(range(500))
    assert {len(each) for each in answers} == {3000}


def test_a_conversation_in_which_nobody_waits_for_an_end(calls: Calls) -> None:
    says: queue.Queue[bytes | None] = queue.Queue()
    answers = calls.talk(iter(says.get, None), timeout=30)
    for number in range(200):
        says.put(b"%d" % number)
        assert next(answers) == b"%d" % number
    says.put(None)
    assert list(answers) == []
    assert answers.code() is grpc.StatusCode.OK


def test_streams_that_are_quiet_for_a_while(calls: Calls) -> None:
    answers = list(calls.spread(count=3, size=10, pause=0.7))
    assert len(answers) == 3


def test_many_calls_at_once_on_one_channel(mesh: Pair, calls: Calls) -> None:
    before = mesh["web"].metrics().total("mesh_connections_opened_total")

    def converse(number: int) -> bool:
        pieces = [b"%d/%d" % (number, at) for at in range(20)]
        return list(calls.talk(iter(pieces), timeout=60)) == pieces

    with ThreadPoolExecutor(40) as threads:
        assert all(threads.map(converse, range(300)))
    assert mesh["web"].metrics().total("mesh_connections_opened_total") - before <= 1


# ---- what travels with them ------------------------------------------------------------------------------------------


def test_metadata_of_both_kinds_in_front_and_in_trailers(calls: Calls) -> None:
    binary = bytes(range(256))
    own = (("x-text", "a, b=c"), ("x-twice", "1"), ("x-twice", "2"), ("x-raw-bin", binary), ("x-empty", ""))
    answer, call = calls.echo.with_call(b"a", timeout=30, metadata=own)
    assert answer == b"a"
    front = [(item.key, item.value) for item in call.initial_metadata()]
    behind = [(item.key, item.value) for item in call.trailing_metadata()]
    assert [item for item in front if item[0].startswith("x-")] == list(own)
    assert [item for item in behind if item[0].startswith("trailing-")] == [("trailing-" + k, v) for k, v in own]


@pytest.mark.parametrize("code", [1, 3, 5, 7, 8, 13, 14, 16])
def test_an_error_with_details_and_no_answer(calls: Calls, code: int) -> None:
    error = calls.fail(code, "grüße, 100% €")
    assert error.code().value[0] == code
    assert error.details() == "grüße, 100% €"
    trailers = {item.key: item.value for item in error.trailing_metadata()}
    assert (trailers["grpc-status-details-bin"], trailers["x-reason"]) == (b"\x00\xff details", "told")
    assert "mesh-decision-id" not in trailers


def test_an_error_behind_a_stream(calls: Calls) -> None:
    stream = calls.spread(count=5, size=100, code=10, details="enough")
    got = []
    with pytest.raises(grpc.RpcError) as failed:
        got.extend(stream)
    assert (len(got), failed.value.code(), failed.value.details()) == (5, grpc.StatusCode.ABORTED, "enough")


def test_compression_is_not_touched(calls: Calls) -> None:
    body = b"again and again " * 10_000
    assert calls.squeeze(body, timeout=30) == body
    assert calls.echo(body, timeout=30, compression=grpc.Compression.Gzip) == body


def test_health_and_reflection(calls: Calls) -> None:
    health = health_pb2_grpc.HealthStub(calls.channel)
    answer = health.Check(health_pb2.HealthCheckRequest(service="kit.Echo"), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    watch = health.Watch(health_pb2.HealthCheckRequest(service="kit.Echo"), timeout=30)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    about = reflection_pb2_grpc.ServerReflectionStub(calls.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (listed,) = about.ServerReflectionInfo(iter([request]), timeout=30)
    assert {service.name for service in listed.list_services_response.service} >= {"kit.Echo", "grpc.health.v1.Health"}


def test_messages_of_64_mib_pass_through_a_small_window(mesh: Pair, calls: Calls) -> None:
    body = hashlib.shake_256(b"mesh").digest(MIB) * (BIG // MIB)
    with MemoryWatch({name: mesh[name].process.pid for name in ("web", "app")}) as memory:
        assert calls.echo(body, timeout=120) == body
        answer = calls.collect(iter([body, body]), timeout=120).decode()
        assert f'"count": 2, "bytes": {2 * BIG}' in answer
        assert [len(each) for each in calls.spread(count=2, size=BIG, timeout=120)] == [BIG, BIG]
    print(memory.report())
    for name in ("web", "app"):
        assert memory[name].grown < BAR, memory.report()


def test_a_slow_reader_holds_up_nobody_else(calls: Calls) -> None:
    slow = calls.spread(count=200, size=MIB, timeout=60)
    next(slow)
    done = threading.Event()

    def others() -> None:
        for _ in range(100):
            assert calls.echo(b"x" * 1000, timeout=5)
        done.set()

    thread = threading.Thread(target=others)
    thread.start()
    thread.join(20)
    assert done.is_set()
    assert sum(1 for _ in slow) == 199

"""gRPC where something ends a call: cancellation, deadlines, refusals, limits, an upstream that dies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.kit.doors import Doors
from tests.kit.free_ports import free_port
from tests.kit.grpc_calls import Calls, failure, grpc_pair
from tests.kit.meshes import Pair
from tests.kit.processes import eventually
from tests.kit.programs import echo_app

METHODS = ("Echo", "Talk", "Wait", "Listen", "Seen", "Spread", "Fail", "Collect")  # all but Squeeze
ALLOW = "".join(f"\n      - {{name: may-{name.lower()}, from: web, path: /kit.Echo/{name}}}" for name in METHODS)
LIMITED = """
          - {path: /kit.Echo/Collect, max_body: 100KiB}"""
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("grpc-failures")
    defaults = "{timeouts: {idle: 1s, response_head: 1s, drain: 2s}}"
    failing = ", breaker: off"  # one failure after the other
    with grpc_pair(folder, allow=ALLOW, routes=LIMITED, defaults=defaults, upstream=failing) as pair:
        yield pair
        pair.assert_well()


@pytest.fixture(scope="module")
def calls(mesh: Pair) -> Iterator[Calls]:
    with Calls(mesh.ports.door) as calls:
        yield calls


def trailers(error: grpc.RpcError) -> dict[str, str]:
    """What came behind the answer, or instead of one."""
    return {item.key: item.value for item in error.trailing_metadata()}


# ---- who gives up ----------------------------------------------------------------------------------------------------


def test_a_unary_call_that_is_cancelled_ends_at_the_server(calls: Calls) -> None:
    call = calls.wait.future(b"cancelled-unary")
    calls.wait_for("cancelled-unary", "began")
    at = time.monotonic()
    call.cancel()
    assert calls.wait_for("cancelled-unary", "ended")["ended"] - at < 1


def test_a_conversation_that_is_cancelled_ends_at_the_server(calls: Calls) -> None:
    call = calls.listen(iter([b"cancelled-stream"]))
    assert next(call) == b"listening"
    at = time.monotonic()
    call.cancel()
    assert calls.wait_for("cancelled-stream", "ended")["ended"] - at < 1


def test_a_caller_that_vanishes_ends_its_calls_at_the_server(mesh: Pair, calls: Calls) -> None:
    with Calls(mesh.ports.door) as other:
        call = other.wait.future(b"vanished")
        calls.wait_for("vanished", "began")
        at = time.monotonic()
    assert calls.wait_for("vanished", "ended")["ended"] - at < 1
    assert call.code() is Code.CANCELLED


def test_a_storm_of_deadlines_ends_no_other_call(calls: Calls) -> None:
    """400 calls that all come to their deadline, as where an application has stopped, are no rapid resets."""
    for wave in range(8):
        storm = [calls.listen(iter([b"storm-%d" % wave]), timeout=0.4) for _ in range(50)]
        assert {failure(lambda: list(call)).code() for call in storm} == {Code.DEADLINE_EXCEEDED}  # noqa: B023
        assert calls.echo(b"beside", timeout=5) == b"beside"


def test_quiet_is_no_reason_to_end_a_call(calls: Calls) -> None:
    """Three seconds of silence, with an idle time and a limit for response heads of one."""
    stream = calls.spread(count=2, size=10, pause=3)
    assert len(list(stream)) == 2
    error = failure(lambda: calls.wait(b"quiet", timeout=3))
    assert error.code() is Code.DEADLINE_EXCEEDED
    assert 2.9 < calls.wait_for("quiet", "ended")["ended"] - calls.seen("quiet")["began"] < 4


# ---- deadlines -------------------------------------------------------------------------------------------------------


def test_the_server_knows_the_deadline(calls: Calls) -> None:
    assert failure(lambda: calls.wait(b"known", timeout=1.5)).code() is Code.DEADLINE_EXCEEDED
    assert 1.2 < calls.seen("known")["left"] < 1.6  # grpcio rounds up


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_what_no_rule_permits(mesh: Pair, calls: Calls) -> None:
    error = failure(lambda: calls.squeeze(b"", timeout=30))
    assert (error.code(), error.details()) == (Code.PERMISSION_DENIED, "Forbidden")
    told = trailers(error)
    assert told["proxy-status"].startswith("mesh; received-status=200")
    assert "rule" not in str(told)
    decision = mesh["app"].decision(told["mesh-decision-id"])
    assert (decision["flag"], decision["error"]) == ("PD", "policy_denied")


def test_a_method_that_nobody_serves(calls: Calls) -> None:
    missing = calls.channel.unary_unary("/kit.Echo/Nothing")
    assert failure(lambda: missing(b"", timeout=30)).code() is Code.PERMISSION_DENIED


def test_a_body_over_its_route_s_limit(calls: Calls) -> None:
    assert calls.collect(iter([bytes(50_000)]), timeout=30)
    error = failure(lambda: calls.collect(iter([bytes(50_000)] * 3), timeout=30))
    assert error.code() is Code.RESOURCE_EXHAUSTED
    assert "mesh-decision-id" in trailers(error)


def test_calls_are_logged_and_counted_by_their_status(mesh: Pair, calls: Calls) -> None:
    calls.echo(b"counted", timeout=30)
    calls.fail(5, "no such thing")
    failure(lambda: calls.squeeze(b"", timeout=30))
    web, app = "spiffe://demo.mesh/ns/default/sa/web", "spiffe://demo.mesh/ns/default/sa/app"

    def count(service: str, **labels: str) -> float:
        return mesh[service].metrics().total("mesh_grpc_calls_total", source=web, destination=app, **labels)

    eventually("counted", lambda: count("app", route="/kit.Echo/Fail", grpc_status="NOT_FOUND") >= 1)
    assert count("app", direction="inbound", route="/kit.Echo/Echo", grpc_status="OK") >= 1
    assert count("app", route="-", grpc_status="PERMISSION_DENIED") >= 1
    assert count("web", direction="outbound", route="/**", grpc_status="PERMISSION_DENIED") >= 1
    for service in ("web", "app"):
        eventually("logged", lambda: logged(mesh, service, "/kit.Echo/Fail"))  # noqa: B023
        assert logged(mesh, service, "/kit.Echo/Fail") == {(200, "NOT_FOUND")}
        assert (200, "PERMISSION_DENIED") in logged(mesh, service, "/kit.Echo/Squeeze")


def logged(mesh: Pair, service: str, path: str) -> set[tuple[int, str]]:
    """HTTP status and gRPC status of all calls of a method."""
    return {(line["status"], line["grpc_status"]) for line in mesh[service].access_log() if line["uri"] == path}


def test_failures_of_the_application_are_logged_as_those_of_http_are(tmp_path: Path) -> None:
    """The default mode, `errors`: what gRPC tells with a 200 and HTTP by 5xx, and nothing else."""
    port = free_port()
    with echo_app(tmp_path, port, "grpc_server.py"), Doors(tmp_path, port) as doors, Calls(doors.ports.door) as calls:
        calls.echo(b"well", timeout=30)
        for code in range(1, 17):
            calls.fail(code, "so it is")
        failures = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
        for sidecar in (doors.web, doors.app):
            eventually("logged", lambda: len(sidecar.access_log()) >= len(failures))  # noqa: B023
            lines = sidecar.access_log()
            assert {line["grpc_status"] for line in lines} == failures
            assert {(line["status"], line["error"], line["uri"]) for line in lines} == {(200, "", "/kit.Echo/Fail")}
            (row,) = [row for row in sidecar.admin("GET", "/hops")[1]["hops"] if row["flag"] == "-"]
            assert (row["requests"], row["failures"]) == (17, len(failures))


# ---- what dies -------------------------------------------------------------------------------------------------------


def test_an_application_that_is_down(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    with pair:
        pair.start_all()
        with Calls(pair.ports.door) as calls:
            error = failure(lambda: calls.echo(b"", timeout=30))
            assert (error.code(), error.details()) == (Code.UNAVAILABLE, "Service Unavailable")
            assert "mesh-decision-id" in trailers(error)
            assert "connect" not in str(trailers(error))


def test_an_application_that_dies_in_the_middle_of_a_stream(tmp_path: Path) -> None:
    """Whole messages come through, then an error; and the next server is found on the same channel."""
    pair = Pair(tmp_path)
    with pair:
        with echo_app(tmp_path, pair.ports.app, "grpc_server.py") as server, Calls(pair.ports.door) as calls:
            pair.start_all()
            stream = calls.spread(count=1000, size=100, pause=0.05)
            big = calls.spread(count=1, size=256 << 20)
            assert len(next(stream)) == 100
            server.kill()
            for cut in (stream, big):
                error = failure(lambda: list(cut))  # noqa: B023
                assert error.code() is Code.UNAVAILABLE, error
                assert "mesh-decision-id" in trailers(error)
            with echo_app(tmp_path, pair.ports.app, "grpc_server.py"):
                assert calls.echo(b"again", timeout=30) == b"again"
            trunks = pair["app"].metrics().total("mesh_trunks_ended_total", direction="inbound", listener="main")
            assert trunks >= 1
        pair.assert_well()


@pytest.mark.parametrize("service", ["web", "app"])
def test_a_sidecar_that_restarts(tmp_path: Path, service: str) -> None:
    """A stream that outlasts the drain is told so; the channel finds the next sidecar by itself."""
    with grpc_pair(tmp_path, defaults="{timeouts: {drain: 1s}}") as pair, Calls(pair.ports.door) as calls:
        stream = calls.spread(count=1000, size=100, pause=0.1)
        next(stream)
        pair[service].stop()
        assert failure(lambda: list(stream)).code() is Code.UNAVAILABLE
        error = failure(lambda: calls.echo(b"", timeout=5))
        assert error.code() is Code.UNAVAILABLE, error
        pair[service].start()
        assert calls.echo(b"again", timeout=30, wait_for_ready=True) == b"again"
        pair.assert_well()


def test_a_drain_lets_calls_end(tmp_path: Path) -> None:
    with grpc_pair(tmp_path, defaults="{timeouts: {drain: 10s}}") as pair, Calls(pair.ports.door) as calls:
        stream = calls.spread(count=20, size=100, pause=0.1)
        next(stream)
        pair["app"].stop()
        assert len(list(stream)) == 19
        assert stream.code() is Code.OK



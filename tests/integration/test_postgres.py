"""PostgreSQL with psql through two sidecars: raw TCP, a protocol of its own, sessions that keep state."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kit.fleet import Sidecar
from tests.kit.meshes import Pair
from tests.kit.processes import eventually
from tests.kit.programs import Done, postgres, run
from tests.kit.tools import need


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    need("psql")
    pair = Pair(tmp_path_factory.mktemp("postgres"), protocol="tcp")
    with postgres(pair.ports.app), pair:
        pair.start_all()
        yield pair


@pytest.fixture
def pair(served: Pair) -> Iterator[Pair]:
    yield served
    assert psql(served, "-c", "select 40 + 2").text.strip() == "42"
    served.assert_well()


def psql(pair: Pair, *arguments: str, stdin: bytes = b"", timeout: float = 60) -> Done:
    """psql without its rc file, printing bare values."""
    where = ("-h", "127.0.0.1", "-p", str(pair.ports.door), "-U", "mesh", "-d", "postgres")
    options = ("-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1")
    return run(need("psql"), *options, *where, *arguments, stdin=stdin, timeout=timeout, env={"PGSSLMODE": "disable"})


def test_queries_keep_the_sessions_state(pair: Pair) -> None:
    script = b"""
        begin; create temporary table t (n int, word text);
        insert into t select n, 'word ' || n from generate_series(1, 1000) n; commit;
        select count(*), sum(n), max(word) from t;
        prepare q(int) as select word from t where n = $1; execute q(7);
    """
    done = psql(pair, stdin=script)
    assert done.code == 0, done.err
    assert done.text.split() == ["1000|500500|word", "999", "word", "7"]


def test_an_error_is_the_servers_own_and_the_session_goes_on(pair: Pair) -> None:
    done = psql(pair, "-v", "ON_ERROR_STOP=0", stdin=b"select 1/0; select 'after';")
    assert "ERROR:  division by zero" in done.err
    assert done.text.strip() == "after"


def test_copy_both_ways(pair: Pair) -> None:
    rows = b"".join(b"%d\trow %d\n" % (number, number) for number in range(50_000))
    script = b"create table copied (n int, word text);\n\\copy copied from stdin\n" + rows + b"\\.\n"
    assert psql(pair, stdin=script).code == 0
    done = psql(pair, "-c", "\\copy (select * from copied order by n) to stdout")
    assert done.out == rows
    assert psql(pair, "-c", "drop table copied").code == 0


def test_a_large_result(pair: Pair) -> None:
    done = psql(pair, "-c", "select md5(n::text) from generate_series(1, 500000) n")
    lines = done.text.split()
    assert len(lines) == 500_000
    assert lines[0] == "c4ca4238a0b923820dcc509a6f75849b"
    assert len(done.out) == 500_000 * 33


def test_concurrent_sessions_do_not_mix(pair: Pair) -> None:
    found: dict[int, str] = {}

    def session(number: int) -> None:
        script = f"select set_config('mesh.me', '{number}', false); select pg_sleep(0.2);\n" + (
            "select current_setting('mesh.me');\n" * 20
        )
        found[number] = psql(pair, stdin=script.encode()).text

    threads = [threading.Thread(target=session, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: set(text.split()) for number, text in found.items()} == {n: {str(n)} for n in range(10)}


def test_notifications_come_unasked(pair: Pair) -> None:
    script = b"listen news; select pg_notify('news', 'fresh'); select pg_sleep(0.1); select 'done';"
    done = psql(pair, stdin=script)
    assert 'notification "news" with payload "fresh"' in done.text + done.err


def test_a_session_that_the_server_ends(pair: Pair) -> None:
    done = psql(pair, "-c", "select pg_terminate_backend(pg_backend_pid())")
    assert done.code != 0
    assert "terminating connection due to administrator command" in done.err


def test_each_session_is_one_hop_with_its_bytes(pair: Pair) -> None:
    psql(pair, "-c", "select repeat('x', 123456)")
    for name, rule in (("web", ""), ("app", "web-may")):
        eventually("it is in the log", lambda: large_sessions(pair[name]))  # noqa: B023
        (line,) = large_sessions(pair[name])
        assert (line["protocol"], line["flags"], line["rule"]) == ("tcp", "-", rule)
        assert line["client.id"] == "spiffe://demo.mesh/ns/default/sa/web"


def large_sessions(sidecar: Sidecar) -> list[dict[str, Any]]:
    """The lines of sessions that brought between 123,456 bytes and a little more."""
    return [line for line in sidecar.access_log() if 123_456 < line["response_bytes"] < 125_000]

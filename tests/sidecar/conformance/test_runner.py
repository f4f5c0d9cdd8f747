"""The suite against proxies whose faults are known: it finds them, and nothing in a proxy without any."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sidecar.cli.root import run_command
from sidecar.conformance.corpus import choose
from sidecar.conformance.judge import Outcome, Verdict
from sidecar.conformance.origin import Origin
from sidecar.conformance.runner import Target, Unreachable, run
from tests.kit.free_ports import free_port

Serve = Callable[[socket.socket, tuple[str, int]], None]


@contextmanager
def proxy(serve: Serve, origin: tuple[str, int]) -> Iterator[str]:
    """A proxy that treats each connection as `serve` does; yields its URL."""
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                sock, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(sock,), daemon=True).start()

    def handle(sock: socket.socket) -> None:
        with sock:
            try:
                serve(sock, origin)
            except OSError:
                pass

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def pass_all(sock: socket.socket, origin: tuple[str, int]) -> None:
    """No proxy at all: bytes go through as they come."""
    with socket.create_connection(origin) as upstream:
        back = threading.Thread(target=_pump, args=(upstream, sock), daemon=True)
        back.start()
        _pump(sock, upstream)
        back.join()


def refuse_all(sock: socket.socket, origin: tuple[str, int]) -> None:
    """A wall with one small door."""
    data = sock.recv(65536)
    if data.startswith(b"GET /canary/"):
        with socket.create_connection(origin) as upstream:
            upstream.sendall(data)
            sock.sendall(upstream.recv(65536))
            return
    sock.sendall(b"HTTP/1.1 400 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


class Glue:
    """All callers share one connection to the origin, and each takes the first answer that comes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._upstream: socket.socket | None = None

    def close(self) -> None:
        if self._upstream is not None:
            self._upstream.close()

    def __call__(self, sock: socket.socket, origin: tuple[str, int]) -> None:
        with self._lock:
            if self._upstream is None:
                self._upstream = socket.create_connection(origin)
            self._upstream.sendall(sock.recv(65536))
            head = b""
            while not (head.endswith(b"\r\n\r\n") and b"Content-Length" in head):
                head += self._upstream.recv(1)
            size = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            sock.sendall(head + self._upstream.recv(size, socket.MSG_WAITALL))


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def verdicts(serve: Serve, *names: str) -> dict[str, Verdict]:
    with Origin() as origin, proxy(serve, origin.address) as url:
        found = run(Target(url, patience=0.3), choose(names, ours=False), origin)
    return {verdict.case.name: verdict for verdict in found}


def test_a_relay_that_passes_everything_on_serves_the_controls_and_fails_the_rest() -> None:
    names = ("framing/cl.te-smuggle", "lines/lf-all", "paths/dot-dot", "hosts/twice-differ", "exchange/upgrade-h2c")
    found = verdicts(pass_all, "control/get*", "control/post*", *names)
    bad = {name: verdict.outcome for name, verdict in found.items() if not name.startswith("control/")}
    assert all(verdict.passed for name, verdict in found.items() if name.startswith("control/"))
    assert bad == {
        "framing/cl.te-smuggle": Outcome.MALFORMED,
        "lines/lf-all": Outcome.MALFORMED,
        "hosts/twice-differ": Outcome.MALFORMED,
        "paths/dot-dot": Outcome.PASSED_ON,
        "exchange/upgrade-h2c": Outcome.PASSED_ON,
    }
    assert found["paths/dot-dot"].detail == "the origin understood GET /a/../b, not GET /b"


def test_a_wall_is_safe_and_useless() -> None:
    found = verdicts(refuse_all, "control/get", "paths/dot-dot", "lines/lf-all")
    assert {name: verdict.outcome for name, verdict in found.items()} == {
        "control/get": Outcome.NOT_SERVED, "paths/dot-dot": Outcome.REFUSED, "lines/lf-all": Outcome.REFUSED,
    }  # fmt: skip


def test_an_answer_that_reaches_the_next_caller_is_found() -> None:
    with closing(Glue()) as glue:
        found = verdicts(glue, "control/pipelined")
    assert found["control/pipelined"].outcome is Outcome.POISONED
    assert "/d" in found["control/pipelined"].detail


def test_who_is_not_there_cannot_be_judged() -> None:
    with Origin() as origin, pytest.raises(Unreachable):
        run(Target(f"http://127.0.0.1:{free_port()}"), choose(("control/get",), ours=False), origin)


# ---- the verb --------------------------------------------------------------------------------------------------------


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run_command(["conformance", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_verb_judges_by_answers_alone_and_names_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    with Origin() as origin, proxy(pass_all, origin.address) as url:
        good, out, _ = ask(capsys, url, "--only", "control/get*")
        assert (good, out) == (0, "4 of 4 cases passed: 4 forwarded\n")
        bad, out, _ = ask(capsys, url, "--only", "paths/encoded-slash", "--patience", "0.3")
    assert bad == 1
    assert "paths/encoded-slash  passed on" in out
    assert "0 of 1 cases passed: 1 passed on" in out


def test_the_verb_is_the_origin_where_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    with proxy(pass_all, ("127.0.0.1", port)) as url:
        code, out, _ = ask(capsys, url, "--origin", f"127.0.0.1:{port}", "--only", "control/get", "-o", "json")
    document = json.loads(out)
    assert (code, document["origin"], document["passed"]) == (0, True, True)
    assert document["cases"][0]["name"] == "control/get"


def test_documents_become_tables(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with Origin() as origin, proxy(pass_all, origin.address) as url:
        for label, name in (("relay", "paths/*"), ("half", "paths/dot*")):
            _, out, _ = ask(capsys, url, "--only", name, "-o", "json", "--label", label, "--patience", "0.2")
            (tmp_path / label).write_text(out)
    code, out, _ = ask(capsys, "--markdown", str(tmp_path / "relay"), str(tmp_path / "half"))
    assert code == 0
    assert "| proxy | date | cases | passed |" in out
    assert "| `paths/encoded-slash` | passed on | not asked | D4, RFC 3986 6:" in out


def test_the_list_names_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ask(capsys, "--list")
    assert code == 0
    assert out.count("\n") == len(choose((), ours=True)) + 2


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "say which proxy"),
        (("ftp://x",), 2, "no http:// or https:// URL"),
        (("http://127.0.0.1:1", "--only", "nonsense"), 2, "no case is called nonsense"),
        (("http://127.0.0.1:1", "--only", "control/get"), 3, "cannot be tested"),
        (("http://127.0.0.1:1", "--origin", "nowhere"), 2, "is not HOST:PORT"),
        (("https://127.0.0.1:1", "--cert", "/nonexistent"), 2, "cannot be used"),
        (("--markdown", "/nonexistent"), 2, "no document of an earlier run"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, says: str) -> None:
    found, _, err = ask(capsys, *arguments)
    assert (found, says in err) == (code, True), err

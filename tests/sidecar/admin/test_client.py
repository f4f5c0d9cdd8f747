"""The CLI's end: where sockets are, whom to trust, quick to import."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sidecar.admin import client
from sidecar.admin.client import NoSidecar, UnsafeRunFolder


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"MESH_RUN_DIR": "/x", "XDG_RUNTIME_DIR": "/y"}, "/x"),
        ({"XDG_RUNTIME_DIR": "/y"}, "/y/mesh"),
        ({"MESH_RUN_DIR": ""}, f"/tmp/mesh-{os.getuid()}"),
        ({}, f"/tmp/mesh-{os.getuid()}"),
    ],
)
def test_where_the_run_folder_is(environment, folder):
    assert client.run_folder(environment) == Path(folder)


def test_a_run_folder_is_made_for_us_alone(tmp_path):
    client.make_run_folder(tmp_path / "a" / "run")
    assert (tmp_path / "a" / "run").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path, mode):
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(mode)
    with pytest.raises(UnsafeRunFolder, match="chmod 700"):
        client.check_run_folder(tmp_path / "run")
    with pytest.raises(UnsafeRunFolder):
        client.sockets(tmp_path / "run")


def test_a_link_or_a_file_is_no_folder(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(UnsafeRunFolder, match="not a folder"):
            client.check_run_folder(tmp_path / name)
        with pytest.raises(UnsafeRunFolder):
            client.make_run_folder(tmp_path / name)


@pytest.mark.skipif(os.getuid() != 0, reason="needs to give a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "run").mkdir(mode=0o700)
    os.chown(tmp_path / "run", 12345, 12345)
    with pytest.raises(UnsafeRunFolder, match="belongs to user 12345"):
        client.check_run_folder(tmp_path / "run")


def test_sockets_are_listed_by_name(tmp_path):
    kept = []
    for name in ("web.sock", "orders.sock", "other.txt"):
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(tmp_path / name))
        kept.append(listening)
    (tmp_path / "plain.sock").touch()
    assert [path.name for path in client.sockets(tmp_path)] == ["orders.sock", "web.sock"]
    assert client.sockets(tmp_path / "missing") == []
    for listening in kept:
        listening.close()


def answering(path: Path, answer: bytes) -> threading.Thread:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen(1)

    def serve() -> None:
        connection, _ = listening.accept()
        with listening, connection:
            connection.recv(65536)
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n\r\nno json", b"HTTP/1.1 x\r\n\r\n{}"])
def test_what_is_no_sidecar_is_said_so(tmp_path, answer):
    thread = answering(tmp_path / "s.sock", answer)
    with pytest.raises(NoSidecar, match=r"s\.sock"):
        client.call(tmp_path / "s.sock", "GET", "/status")
    thread.join()


def test_nobody_there(tmp_path):
    with pytest.raises(NoSidecar, match="No such file"):
        client.call(tmp_path / "s.sock", "GET", "/status")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "s.sock"))
    with pytest.raises(NoSidecar, match="refused"):
        client.call(tmp_path / "s.sock", "GET", "/status")
    listening.listen(1)
    with pytest.raises(NoSidecar, match=r"within 0\.05 s"):
        client.call(tmp_path / "s.sock", "GET", "/status", timeout=0.05)
    listening.close()


def test_the_client_imports_nothing_heavy():
    code = (
        "import sys; import sidecar.admin.client;"
        "heavy = {'trio', 'prometheus_client', 'cryptography', 'OpenSSL', 'yaml', 'h11', 'click', 'http'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert result.stdout.strip() == "[]"

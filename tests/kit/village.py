"""Hosts whose applications know of no mesh, each behind rules of redirection and a sidecar of its own user.

    with Village(TWO_SERVICES) as village:           # hosts `web` and `orders` of that config, and `stranger`
        village["web"].run("curl", "http://10.77.0.2:8080/")

A house runs its sidecar as PROXY_UID and everything else as root, whom the rules capture. `stranger` has no sidecar
and no rules. A wiretap hears every frame of every host. Identities are files, so no CA runs.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from certs.keys import key_to_pem
from sidecar.admin import client
from sidecar.config.load import load_text
from sidecar.deploy.names import PROXY_UID
from tests.kit import grpc_server, village_app
from tests.kit.fleet import MESH
from tests.kit.identities import Authority, a_root, an_issuer, an_svid
from tests.kit.netns import Host, Network
from tests.kit.processes import Process, as_user, eventually, listens
from tests.kit.tools import need

HTTP, SOCKETS, RAW, GRPC = 8080, 8081, 5432, 50051
ADDRESSES = {"web": 1, "orders": 2, "cart": 3, "stranger": 9}
TWO_SERVICES = """\
trust_domain: demo.mesh
defaults:
  access_log: {mode: all, path: FOLDER/access.log}
  timeouts: {drain: 1s}
services:
  web:
    address: 10.77.0.1
    identity_source: {files: {cert: FOLDER/chain.pem, key: FOLDER/key.pem, bundle: FOLDER/root.pem}}
    redirect: {passthrough: ['10.77.0.9:5432', '[fd77::9]:5432']}
    health: {listen: off}
    outbound:
      - {to: orders, port: main, endpoints: ['10.77.0.2:8080', '[fd77::2]:8080']}
      - {to: orders, port: sockets, endpoints: ['10.77.0.2:8081', '[fd77::2]:8081']}
      - {to: orders, port: grpc, endpoints: ['10.77.0.2:50051', '[fd77::2]:50051']}
      - {to: orders, port: raw, endpoints: ['10.77.0.2:5432', '[fd77::2]:5432']}
  orders:
    address: 10.77.0.2
    identity_source: {files: {cert: FOLDER/chain.pem, key: FOLDER/key.pem, bundle: FOLDER/root.pem}}
    redirect: {}
    health: {listen: off}
    inbound:
      - {name: main, app: '127.0.0.1:8080'}
      - {name: sockets, app: '127.0.0.1:8081'}
      - {name: grpc, app: '127.0.0.1:50051'}
      - {name: raw, app: '127.0.0.1:5432', protocol: tcp}
    allow: [{name: web-may, from: web}]
"""
ETH_P_ALL = 0x0003  # linux/if_ether.h


def four(name: str) -> str:
    """The IPv4 address of a host."""
    return f"10.77.0.{ADDRESSES[name]}"


def six(name: str) -> str:
    """Its IPv6 address."""
    return f"fd77::{ADDRESSES[name]}"


class House:
    """One host: its namespace, its application and, but for a stranger, its sidecar."""

    def __init__(self, folder: Path, host: Host, name: str) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        os.chown(self.folder, PROXY_UID, PROXY_UID)
        self.host = host
        self.name = name
        self._config = ""
        self._processes: list[Process] = []

    # ---- what runs here ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start its application."""
        ports = map(str, (HTTP, SOCKETS, RAW))
        command = [sys.executable, "-P", str(village_app.__file__), self.name, *ports]
        self._start("app", command)
        for port in (HTTP, SOCKETS, RAW):
            eventually(f"the application of {self.name} listens", lambda port=port: self.host.within(listens, port))

    def serve_grpc(self) -> None:
        """Start a gRPC server, as its users write one."""
        self._start("grpc", [sys.executable, "-P", str(grpc_server.__file__), str(GRPC)])
        eventually("the gRPC server listens", lambda: self.host.within(listens, GRPC))

    def settle(self, issuer: Authority, config: str) -> None:
        """Give it rules, an identity and a sidecar, in the order of a pod."""
        self.host.run(*MESH, "redirect", "install")
        svid = an_svid(issuer, self.name)
        self._write("root.pem", issuer.root.public_bytes(Encoding.PEM))
        self.identify(issuer, svid)
        self.configure(config)
        self.start()

    def start(self) -> None:
        """Start its sidecar, again perhaps."""
        at = self.folder
        command = [
            *MESH, "run", "-f", str(at / "mesh.yaml"), "--service", self.name, "--state", str(at / "state"),
            "--run-dir", str(at / "run"),
        ]  # fmt: skip
        self.sidecar = self._start("sidecar", as_user(str(PROXY_UID), command))

    def identify(self, issuer: Authority, svid: Any = None) -> None:
        """Give it a certificate, another perhaps; the sidecar notices."""
        svid = svid or an_svid(issuer, self.name)
        self._write("key.pem", key_to_pem(svid.key, None), 0o600)
        self._write("chain.pem", svid.chain_pem())

    def configure(self, config: str) -> None:
        """Write the config, another one perhaps."""
        self._config = config
        self._write("mesh.yaml", config.replace("FOLDER", str(self.folder)).encode())

    def reload(self, config: str) -> None:
        """Put another config in force; at once where it is the one that is."""
        if config == self._config:
            return
        before = self.admin("/status")["config"]["generation"]
        self.configure(config)
        self.sidecar.until("reloaded", lambda: self.admin("/status")["config"]["generation"] > before)

    def wait_ready(self) -> None:
        """Wait until the sidecar says so."""
        self.sidecar.until("ready", self.is_ready)

    def is_ready(self) -> bool:
        """Whether its listeners stand."""
        try:
            return bool(self.admin("/status")["state"] == "ready")
        except client.NoSidecar:
            return False

    def _write(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Put a file in the place of another, at once."""
        new = self.folder / f".{name}"
        new.touch(mode)
        new.write_bytes(data)
        new.chmod(mode)
        os.chown(new, PROXY_UID, PROXY_UID)
        new.rename(self.folder / name)

    def _start(self, what: str, command: Sequence[str]) -> Process:
        process = Process(f"{what} of {self.name}", self.host.command(command), self.folder / f"{what}.log")
        self._processes.append(process)
        return process

    def stop(self) -> None:
        """End all of it."""
        for process in self._processes:
            process.stop(5.0)

    # ---- as an application -------------------------------------------------------------------------------------------

    def run(self, *command: str) -> str:
        """Run a program here as an application; returns what it printed. Raises AssertionError where it fails."""
        return self.host.run(*command)

    @contextmanager
    def connect(self, address: str, port: int, timeout: float = 5.0) -> Iterator[socket.socket]:
        """A connection from here."""
        sock = self.host.within(socket.create_connection, (address, port), timeout)
        with sock:
            yield sock

    def says(self, address: str, port: int, said: bytes = b"", timeout: float = 5.0) -> bytes:
        """Say something and hear all that is answered; b"" for a connection that was refused or reset."""
        heard = b""
        try:
            with self.connect(address, port, timeout) as sock:
                sock.sendall(said)
                sock.shutdown(socket.SHUT_WR)
                while data := sock.recv(65536):
                    heard += data
        except OSError:
            pass
        return heard

    # ---- what its sidecar tells --------------------------------------------------------------------------------------

    def admin(self, path: str) -> dict[str, Any]:
        """What its admin socket answers."""
        return client.call(self.folder / "run" / f"{self.name}.sock", "GET", path, None, timeout=10.0)[1]

    def access_log(self) -> list[dict[str, Any]]:
        """Its access log."""
        path = self.folder / "access.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def logged(self, **fields: Any) -> dict[str, Any]:
        """The latest line of its access log that says this, once it is there."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [line for line in self.access_log() if all(line[key] == fields[key] for key in fields)]
            return bool(found)

        eventually(f"a line of {self.name} with {fields}: {self.access_log()[-3:]}", look, 5.0)
        return found[-1]

    def assert_well(self) -> None:
        """Nothing inside its sidecar broke."""
        text = self.sidecar.text()
        assert self.sidecar.code is None, self.sidecar.tail()
        assert "Traceback" not in text, text[-3000:]
        assert "failed inside the sidecar" not in text, text[-3000:]


class Wiretap:
    """Hears every frame on the switch. Use it as a context manager."""

    def __init__(self, switch: Host) -> None:
        self._sock = switch.within(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._sock.settimeout(0.2)
        self._heard = bytearray()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                self._heard += self._sock.recv(65536) + b"\n--\n"
            except TimeoutError:
                continue

    def __enter__(self) -> Wiretap:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._sock.close()

    def heard(self, marker: bytes) -> bool:
        """Whether this was in a frame so far."""
        time.sleep(0.1)  # frames are copied to us by the kernel, but our thread has to have run
        return marker in self._heard


class Village:
    """All houses of a config and the stranger. Use it as a context manager; it is ready inside."""

    def __init__(self, config: str) -> None:
        for program in ("curl", "setpriv"):
            need(program)
        self._stack = ExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix="mesh-village-"))  # pytest's own is for root alone
        self.folder.chmod(0o755)
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.config = config
        self.issuer = an_issuer(a_root())
        self.network = self._stack.enter_context(Network())
        services = load_text(config.replace("FOLDER", "/nowhere"), "mesh.yaml", now=time.time()).services
        self.houses = {name: self._house(name) for name in (*services, "stranger")}

    def _house(self, name: str) -> House:
        host = self.network.host(four(name))
        host.run("ip", "address", "add", f"{six(name)}/64", "dev", "eth0", "nodad")
        house = House(self.folder, host, name)
        self._stack.callback(house.stop)
        return house

    def __getitem__(self, name: str) -> House:
        return self.houses[name]

    def __enter__(self) -> Village:
        try:
            for house in self.houses.values():
                if house.name != "stranger":
                    house.settle(self.issuer, self.config)
            for house in self.houses.values():
                house.open()
            for house in self.houses.values():
                if house.name != "stranger":
                    house.wait_ready()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def restore(self) -> None:
        """The config of the beginning is in force everywhere."""
        for house in self.houses.values():
            if house.name != "stranger":
                house.reload(self.config)

    def wiretap(self) -> Wiretap:
        """Hear what goes from host to host."""
        return Wiretap(self.network.switch)

    def assert_well(self) -> None:
        """Nothing inside any sidecar broke."""
        for house in self.houses.values():
            if house.name != "stranger":
                house.assert_well()

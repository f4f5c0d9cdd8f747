"""Compose projects for tests: a stock file of three services, the `mesh` that works on it, and clients around it."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from tests.kit.containers import Docker
from tests.kit.images import ROOT

# Each of the three knows nothing of a mesh: it listens on every address, and asks the next by its name.
APP = """\
import http.server, os, sys, urllib.request, urllib.error
name, ask = sys.argv[1], os.environ.get("ASK")
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        url, answer, status = (self.headers.get("x-ask") or ask), name, 200
        if url and self.path != "/alone":
            try:
                answer += " < " + urllib.request.urlopen(url + self.path, timeout=5).read().decode()
            except urllib.error.HTTPError as error:
                answer, status = f"{name} < refused {error.code}", 200
            except OSError as error:
                answer, status = f"{name} < {type(error).__name__}", 200
        body = answer.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""
STOCK = """\
# A shop of three, as anybody would write it.
services:
  web:
    image: {image}
    command: [python3, /app/app.py, web]   # what customers see
    volumes: ["./app:/app:ro"]
    ports: ["18080:8000"]
    environment: {{ASK: "http://orders:8000"}}
    depends_on: [orders]
    stop_grace_period: 1s

  orders:
    image: {image}
    command: [python3, /app/app.py, orders]
    volumes: ["./app:/app:ro"]
    expose: [8000]
    environment:
      - ASK=http://stock:8000
    stop_grace_period: 1s

  stock:
    image: {image}
    command: [python3, /app/app.py, stock]
    volumes: ["./app:/app:ro", "data:/data"]
    stop_grace_period: 1s
volumes:
  data:
"""


class Project:
    """A folder with a compose file, on an engine of a test's own."""

    def __init__(self, docker: Docker, folder: Path, text: str) -> None:
        self.docker = docker
        self.folder = folder
        self.name = folder.name
        self.file = folder / "docker-compose.yml"
        self.file.write_text(text)
        programs = folder.parent / f"{folder.name}-bin"
        programs.mkdir()
        (programs / "docker").symlink_to(docker.program[0])
        self._env = {
            **os.environ, "DOCKER_HOST": f"unix://{docker.socket}", "PYTHONPATH": str(ROOT),
            "PATH": f"{programs}:/usr/bin:/usr/sbin:/bin:/sbin", "COMPOSE_HTTP_TIMEOUT": "200",
        }  # fmt: skip

    def mesh(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `mesh` in the folder, on this engine."""
        command = self.docker.cell.command([sys.executable, "-P", "-m", "sidecar.cli", *arguments], self.folder)
        done = subprocess.run(
            command, env=self._env, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False
        )
        assert not check or done.returncode == 0, f"mesh {arguments}:\n{done.stdout}\n{done.stderr}"
        return done

    def container(self, service: str) -> str:
        """The id of the container of this service."""
        label = ("--filter", f"label=com.docker.compose.service={service}")
        return self.docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={self.name}", *label)

    def get(self, path: str, port: int = 18080, ask: str = "") -> tuple[int, str]:
        """Status and body of a request to a published port, from the host; status 0 where nobody answers."""
        return self.docker.within(_get, f"http://127.0.0.1:{port}{path}", ask)

    def leftovers(self) -> list[str]:
        """Containers, networks and volumes of the project that are there still."""
        mine = ("--filter", f"label=com.docker.compose.project={self.name}")
        found = [self.docker("ps", "-aq", *mine), self.docker("network", "ls", "-q", *mine)]
        return [each for each in (*found, self.docker("volume", "ls", "-q", *mine)) if each]


def _get(url: str, ask: str) -> tuple[int, str]:
    request = urllib.request.Request(url, headers={"x-ask": ask} if ask else {})
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError:
        return 0, ""

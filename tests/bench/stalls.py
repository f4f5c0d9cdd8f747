"""The longest that bad input keeps a sidecar from everybody else: `python -m tests.bench.stalls` prints the table of
docs/performance.md.

Everything of a sidecar happens in one thread, in steps of trio tasks; what one step takes, all connections wait for. An
instrument of trio takes the processor time of each (`time.thread_time`: not the machine's other work), while bad input
comes in, one piece after the other: documents that are deep, wide or ambiguous, tokens, key sets, paths, and what
detectors have to tell apart. Each has to be refused, or to pass, in steps of less than `MOST`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import trio
import yaml

from sidecar.config.load import load_config
from tests.kit.processes import eventually
from tests.kit.programs import echo_app
from tests.kit.sidecars import LocalSidecar, World
from tests.kit.tokens import AUDIENCE, ISSUER, Signer, key_set, raw_token

MOST = 0.050  # seconds
MIB = 2**20
CONTRACT = """\
openapi: 3.1.0
info: {title: orders, version: "1"}
paths:
  /orders:
    post:
      operationId: place
      parameters:
        - {name: tag, in: query, schema: {type: array, items: {type: string}}}
      requestBody:
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Order"}
      responses: {"200": {description: done, content: {application/json: {schema: {type: object}}}}}
components:
  schemas:
    Order:
      type: object
      additionalProperties: false
      properties:
        name: {type: string, pattern: "^(a+)+$"}
        code: {anyOf: [{type: integer}, {type: string, format: email}, {$ref: "#/components/schemas/Order"}]}
        lines: {type: array, uniqueItems: true, items: {}}
        inside: {$ref: "#/components/schemas/Order"}
"""


class Steps(trio.abc.Instrument):
    """The longest step since it was asked last."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._began = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task goes on."""
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """It waits again."""
        self.longest = max(self.longest, time.thread_time() - self._began)

    def taken(self) -> float:
        """Seconds; it begins anew."""
        longest, self.longest = self.longest, 0.0
        return longest


@dataclass(frozen=True)
class Row:
    """One kind of bad input."""

    kind: str
    statuses: tuple[int, ...]
    longest: float  # seconds, of the sidecar that judges


class Scene:
    """Two sidecars with tokens, a contract and detectors, and a way to send anything to them."""

    def __init__(self, world: World, app: LocalSidecar, signer: Signer) -> None:
        self.world, self.app, self.signer = world, app, signer
        self.steps = Steps()
        app.call(trio.lowlevel.add_instrument, self.steps)
        self.good = signer.token(at=time.time()).decode()

    def send(self, method: str, path: str, body: bytes = b"", token: str | None = None, **fields: str) -> int:
        """One request; its status, 0 where the connection was cut."""
        connection = HTTPConnection("127.0.0.1", self.world.ports.door, timeout=30)
        header = {"Authorization": f"Bearer {self.good if token is None else token}"} | fields
        try:
            connection.request(method, path, body, header)
            return connection.getresponse().status
        except (ConnectionError, OSError):
            return 0
        finally:
            connection.close()

    def post(self, body: bytes, **fields: str) -> int:
        """An order."""
        return self.send("POST", "/orders", body, **({"Content-Type": "application/json"} | fields))

    def row(self, kind: str, *calls: Callable[[], int]) -> Row:
        """Make these calls."""
        self._taken()
        statuses = tuple(sorted({each() for each in calls}))
        return Row(kind, statuses, self._taken())

    def _taken(self) -> float:
        """The longest step; an answer comes before the step that sends it is over, so the sidecar's thread is asked."""
        return float(self.app.call(self.steps.taken))


@contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    """The mesh of this bench."""
    world, signer = World(folder), Signer("ES256", kid="a")
    (folder / "openapi.yaml").write_text(CONTRACT)
    (folder / "keys.json").write_bytes(key_set(signer))
    config = yaml.safe_load(world.text.replace("listen: off", 'listen: "off"'))
    config["issuers"] = {"login": {"issuer": ISSUER, "audience": AUDIENCE, "file": str(folder / "keys.json")}}
    app = config["services"]["app"]
    contract = {"openapi": "openapi.yaml", "mode": "enforce", "undocumented": "pass"}
    app["inbound"][0] |= {"tokens": {"from": ["login"]}, "contract": contract}
    app["detectors"] = {"stuffing": {}, "enumeration": {}, "spikes": {}}
    (folder / "mesh.yaml").write_text(json.dumps(config))
    world.config = load_config(str(folder / "mesh.yaml"))
    try:
        with echo_app(folder, world.ports.app), world.sidecar("app") as judging, world.sidecar("web"):
            found = Scene(world, judging, signer)
            for _ in range(3):  # imports and first connections are not what is measured
                assert found.post(b'{"name": "aaa"}') == 200
            yield found
            judging.assert_well()
    finally:
        world.close()


def rows(scene: Scene) -> Iterator[Row]:
    """Everything that comes in requests, a row for each kind."""

    def document(value: Any) -> bytes:
        return json.dumps(value).encode()

    def posted(*bodies: bytes) -> list[Callable[[], int]]:
        return [lambda body=body: scene.post(body) for body in bodies]

    deep = b'{"inside":' * 60 + b"{}" + b"}" * 60
    yield scene.row("JSON 1 MiB deep, of brackets alone", *posted(b"[" * (MIB - 1), b'{"a":' * 200_000))
    empty = b'{"lines":[' + b'"",' * 340_000 + b'""]}'
    yield scene.row("JSON 1 MiB of empty strings, of quotes alone", *posted(empty, b'"' * (MIB - 1)))
    yield scene.row("JSON at the bound of depth, and below", *posted(deep, b'{"code":' * 60 + b"1" + b"}" * 60))
    yield scene.row("JSON of 20,000 values, and more", *posted(
        document({"lines": list(range(19_000))}), document({"lines": list(range(150_000))}),
        document({f"k{n}": n for n in range(19_000)}),
    ))  # fmt: skip
    yield scene.row("unique items that all are alike but the last", *posted(
        document({"lines": [{"a": [1, 2, n]} for n in range(3900)]}),
    ))  # fmt: skip
    yield scene.row("a string of 1 MiB, escapes, half surrogates", *posted(
        document({"name": "a" * (MIB - 20)}), b'{"name":"' + b"\\u0061" * 170_000 + b'"}',
        b'{"name":"' + b"\\ud800" * 100_000 + b'"}',
    ))  # fmt: skip
    yield scene.row("a pattern that explodes elsewhere", *posted(document({"name": "a" * 100_000 + "!"})))
    yield scene.row("numbers too large, NaN, keys twice", *posted(
        b'{"code":' + b"9" * 1_000_000 + b"}", b'{"code":1e999999}', b'{"code":NaN}', b'{"code":1,"code":1}',
    ))  # fmt: skip
    yield scene.row("2 MiB, a type that lies, a bomb", *posted(b" " * (2 * MIB)),
                    lambda: scene.post(b"x", **{"Content-Type": "multipart/form-data"}),
                    lambda: scene.post(b"x", **{"Content-Encoding": "gzip"}))  # fmt: skip
    many = "/orders?" + "&".join(["tag=a"] * 5000)
    yield scene.row("5,000 query parameters", lambda: scene.send("POST", many, b"{}"))
    text = {"iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 600}
    bad = [
        raw_token(b'{"alg":"none"}', document(text), b""), raw_token(b"{" * 4000, b"[" * 2000, b"x"),
        raw_token(b'{"alg":"ES256","kid":"' + b"../" * 1000 + b'"}', document(text), b"x" * 64),
        raw_token(b'{"alg":"ES256","kid":"a"}', document(text), b"x" * 64), b"a." * 3000,
    ]  # fmt: skip
    yield scene.row("tokens of 8 KiB: deep, forged, of dots", *(
        (lambda token=each: scene.send("GET", "/", token=token.decode())) for each in bad
    ))  # fmt: skip
    yield scene.row("200 tokens for the first time", *(
        (lambda n=n: scene.send("GET", "/", token=scene.signer.token(at=time.time(), sub=f"u{n}").decode()))
        for n in range(200)
    ))  # fmt: skip
    yield scene.row("1,000 objects in 800 places before the detectors", *(
        (lambda n=n: scene.send("GET", f"/p{n % 40}/x{n // 40}/{n}")) for n in range(1000)
    ))  # fmt: skip


def key_sets(scene: Scene, folder: Path) -> Row:
    """Key sets that no issuer should have, in the file that the sidecar looks at every two seconds."""
    keys = folder / "keys.json"
    good, other = keys.read_bytes(), [Signer("ES256", kid=f"k{number}").jwk() for number in range(99)]
    sets = (key_set(*other, scene.signer), b'{"keys":[' + b'{"kty":"EC"},' * 800_000 + b"{}]}", b"", good)

    def each() -> int:
        for data in sets:
            keys.write_bytes(data)
            time.sleep(2.5)
        eventually("the good keys are in force", lambda: scene.send("GET", "/") == 200)
        return 200

    return scene.row("key sets of 100 keys, of 10 MB, of nothing", each)


def measured(folder: Path, *, slow: bool) -> list[Row]:
    """All rows; those that have to wait for files only where `slow`."""
    with scene(folder) as found:
        return [*rows(found), *([key_sets(found, folder)] if slow else [])]


def main() -> int:
    """Print the table. Exit code 1 where something takes too long."""
    with tempfile.TemporaryDirectory(prefix="mesh-stalls-") as folder:
        found = measured(Path(folder), slow=True)
    print("| bad input | answered | longest step, ms |\n|---|---|---|")
    for row in found:
        print(f"| {row.kind} | {', '.join(map(str, row.statuses))} | {1000 * row.longest:.1f} |")
    return int(any(row.longest > MOST for row in found))


if __name__ == "__main__":
    sys.exit(main())

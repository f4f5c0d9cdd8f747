"""The attacks of docs/owasp, run: by `make owasp`, which prints a table, and in CI by integration/test_owasp_pages.py.

A page is a configuration (`yaml`; further blocks of it begin with the name of their file), and attempts. Each is a
command (`sh`), what comes back (`http`: its status, of its header and body whatever is shown), and what the operator
sees: a line of the access log (`json`) and a counter (`text`). An attempt without a line is one that passes.

Two sidecars carry it, in front of an application that has every one of the ten mistakes (`gullible_app`). Each
attack is made on that application directly too: what it refuses by itself would prove nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sidecar.config.load import load_config
from sidecar.policy.owasp import RISKS
from tests.kit.identities import an_svid
from tests.kit.processes import eventually
from tests.kit.programs import echo_app, run
from tests.kit.sidecars import LocalSidecar, World
from tests.kit.tokens import ISSUER, Signer, key_set, raw_token
from tests.kit.tools import need

PAGES = Path(__file__).parents[2] / "docs" / "owasp"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOORS = {"127.0.0.1:8080": "app", "127.0.0.1:9000": "proxy", "127.0.0.1:9001": "door", "127.0.0.1:9002": "door2"}
METADATA = "http://169.254.169.254"
BASE = """
trust_domain: demo.mesh
ca: {address: "127.0.0.1:1"}
defaults: {timeouts: {handshake: 1s, drain: 1s}}
services:
  web: {outbound: [{to: app, listen: "127.0.0.1:9001"}], health: {listen: "off"}}
  app: {health: {listen: "off"}}
"""


@dataclass
class Attempt:
    """One command of a page, and what the page says of it."""

    command: str
    refusal: str = ""  # or the answer of what passes
    line: dict[str, Any] | None = None
    counters: list[str] = field(default_factory=list)

    @property
    def status(self) -> int:
        """The status that comes back."""
        return int(self.refusal.split()[1])


@dataclass
class Page:
    """A page, taken apart."""

    risk: str
    files: dict[str, str]  # the configuration is `mesh.yaml`
    attempts: list[Attempt]

    @classmethod
    def read(cls, path: Path) -> Page:
        """Take it apart."""
        page = cls(path.stem.upper(), {}, [])
        for language, text in BLOCK.findall(path.read_text()):
            match language:
                case "yaml":
                    name = re.match(r"# (\S+\.yaml)\n", text)
                    page.files[name[1] if name else "mesh.yaml"] = text
                case "sh":
                    page.attempts.append(Attempt(text))
                case "http":
                    page.attempts[-1].refusal = text
                case "json":
                    page.attempts[-1].line = json.loads(text)
                case "text":
                    page.attempts[-1].counters += text.splitlines()
        return page


@dataclass(frozen=True)
class Outcome:
    """What became of one attempt."""

    risk: str
    command: str  # its last line
    bare: int  # the status without the mesh
    status: int
    error: str  # that refused it; empty where nothing did
    flag: str
    cut: bool  # whether its answer has less than the application's
    wrong: str  # how it differs from the page; empty for not at all


def pages() -> list[Path]:
    """All of them, in the order of the risks."""
    return sorted(PAGES.glob("api*.md"), key=lambda path: int(path.stem[3:]))


def outcomes(path: Path, folder: Path) -> Iterator[Outcome]:
    """Run a page: each attempt on the bare application, and by way of two sidecars."""
    page, world = Page.read(path), World(folder)
    try:
        told = _Stage(page, world)
        served = echo_app(folder, world.ports.app, "gullible_app.py")
        with served, world.sidecar("app") as app, world.sidecar("web") as web:
            for attempt in page.attempts:
                if "somebody else" in attempt.command:
                    app.publish(an_svid(world.issuer, "mallory"))
                yield told.outcome(attempt, [web, app])
            app.assert_well()
            web.assert_well()
    finally:
        world.close()


class _Stage:
    """The mesh of one page, and the tokens of its attacks."""

    def __init__(self, page: Page, world: World) -> None:
        self.page, self.world = page, world
        for name, text in page.files.items():
            (world.folder / name).write_text(self._here(text))
        good, other = Signer("RS256", kid="a"), Signer("ES256", kid="a")
        (world.folder / "keys.json").write_bytes(key_set(good))
        self.tokens = _tokens(good, other)
        config = _merged(yaml.safe_load(self._here(BASE)), yaml.safe_load(self._here(page.files["mesh.yaml"])))
        for name, service in config["services"].items():
            service.setdefault("access_log", {"mode": "all", "path": f"{world.folder}/{name}.access"})
        (listener,) = config["services"]["app"]["inbound"]
        listener |= {"port": world.ports.app_in, "bind": "127.0.0.1"}
        file = world.folder / "mesh.yaml"
        file.write_text(json.dumps(config, indent=1, default=str))  # which is YAML too, with all text quoted
        world.config = load_config(str(file))

    def _here(self, text: str) -> str:
        """With the ports of this run in the place of those that are shown."""
        for shown, name in DOORS.items():
            text = text.replace(shown, f"127.0.0.1:{getattr(self.world.ports, name)}")
        return text.replace("file: keys.json", f'file: "{self.world.folder}/keys.json"')

    def _run(self, command: str) -> str:
        """The last answer of a command: head and body."""
        done = run(need("bash"), "-c", f"cd {self.world.folder}\n{command}", env=self.tokens)
        assert done.code == 0, (command, done.code, done.err)
        return "HTTP/1.1 " + done.text.rpartition("HTTP/1.1 ")[2].replace("\r\n", "\n")

    def _bare(self, command: str) -> str:
        """The answer to the same from the application itself."""
        app = f"http://127.0.0.1:{self.world.ports.app}"
        for shown in ("http://127.0.0.1:9001", "http://127.0.0.1:9002", METADATA):
            command = command.replace(shown, app)
        return self._run(command.replace("-x http://127.0.0.1:9000 ", ""))

    def outcome(self, attempt: Attempt, sidecars: list[LocalSidecar]) -> Outcome:
        """Make one attempt."""
        wanted = attempt.line or {}
        before = len(_lines(sidecars, wanted)) if wanted else 0
        alone, answer = self._bare(attempt.command), self._run(self._here(attempt.command))
        bare, status = (int(each.split()[1]) for each in (alone, answer))
        cut = status < 300 and alone.partition("\n\n")[2] != answer.partition("\n\n")[2]
        wrong = _difference(answer, attempt.refusal)
        if wanted:
            eventually(f"the line of {self.page.risk} is in the log: {wanted}",
                       lambda: len(_lines(sidecars, wanted)) > before)  # fmt: skip
            if bare == attempt.status:
                wrong = wrong or f"the application says {bare} by itself"
        for counter in attempt.counters:
            name, labels = _series(counter)
            if not sum(each.total(name, **labels) for each in sidecars):
                wrong = wrong or f"no {counter}"
        last = attempt.command.strip().splitlines()[-1]
        return Outcome(self.page.risk, last, bare, status, wanted.get("error", ""), wanted.get("flags", ""), cut, wrong)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Mappings joined, all else replaced."""
    found = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = _merged(found[key], value) if both else value
    return found


def _lines(sidecars: list[LocalSidecar], wanted: dict[str, Any]) -> list[dict[str, Any]]:
    lines = [line for sidecar in sidecars for line in sidecar.access_log()]
    return [line for line in lines if all(_is(line.get(name), value) for name, value in wanted.items())]


def _is(found: Any, shown: Any) -> bool:
    """Whether a value is the one that is shown; of a text that ends in dots its beginning."""
    return str(found).startswith(shown[:-1]) if isinstance(shown, str) and shown.endswith("…") else found == shown


def _difference(answer: str, shown: str) -> str:
    """How an answer is not as shown: the status, a line of its header, or its body; empty for not at all."""
    (head, _, body), (line, *rest) = answer.partition("\n\n"), shown.strip().partition("\n\n")[0].splitlines()
    fields = [each.lower() for each in head.splitlines()]
    if fields[0].split()[1] != line.split()[1]:
        return f"{fields[0]} in the place of {line}"
    missing = [each for each in rest if each.lower() not in fields]
    if missing:
        return f"no {missing[0]} in {head}"
    wanted = shown.strip().partition("\n\n")[2]
    if not wanted:
        return ""
    said, members = json.loads(body), json.loads(wanted)
    if "decision" in members:
        members["decision"] = said.get("decision")  # another one each time
    return "" if said == members else f"{body.strip()} in the place of {wanted}"


def _series(text: str) -> tuple[str, dict[str, str]]:
    """A counter as a page shows it: its name and its labels."""
    name, _, rest = text.partition("{")
    return name, dict(re.findall(r'(\w+)="([^"]*)"', rest))


def _tokens(good: Signer, other: Signer) -> dict[str, str]:
    """The tokens of the attacks, by the names that pages use."""
    now = time.time()
    claims = {"iss": ISSUER, "aud": "https://orders.example.org", "sub": "ann", "customer_id": "c7",
              "scope": "orders:read", "exp": int(now) + 600}  # fmt: skip
    text = json.dumps(claims).encode()
    head = {"alg": "RS256", "kid": "a", "typ": "JWT"}
    public = json.dumps(good.jwk()).encode()  # what a library that mixes up kinds of keys would take for a secret

    def confused(signed: bytes) -> bytes:
        return hmac.new(public, signed, hashlib.sha256).digest()

    found = {
        "ANN": good.over(head, claims),
        "NONE": raw_token(b'{"alg":"none"}', text, b""),
        "CONFUSED": raw_token(b'{"alg":"HS256","kid":"a"}', text, confused),
        "FORGED": raw_token(json.dumps(head).encode(), text, other.sign),
        "EXPIRED": good.over(head, claims | {"exp": int(now) - 600}),
        "ELSEWHERE": good.over(head, claims | {"aud": "https://bills.example.org"}),
        "NARROW": good.over(head, claims | {"scope": "profile"}),
    }
    return {name: token.decode() for name, token in found.items()}


def main() -> int:
    """Run all of them, and print a table. Exit code 1 where one is not as its page says."""
    failed = 0
    print(f"{'risk':6} {'without':8}{'with':6}{'refused by':28}attack")
    for path in pages():
        with tempfile.TemporaryDirectory(prefix="mesh-owasp-") as folder:
            for each in outcomes(path, Path(folder)):
                by = f"{each.error} ({each.flag})" if each.error else "- (fields are cut)" if each.cut else "- (it may)"
                print(f"{each.risk:6} {each.bare:<8}{each.status:<6}{by:28}{each.command}")
                if each.wrong:
                    failed += 1
                    print(f"{'':7}NOT AS THE PAGE SAYS: {each.wrong}")
    missing = [risk for risk in RISKS if risk not in {path.stem.upper() for path in pages()}]
    print(f"{len(pages())} of {len(RISKS)} risks; {failed} attempts not as their pages say." if not missing
          else f"Without a page: {', '.join(missing)}.")  # fmt: skip
    return 1 if failed or missing else 0


if __name__ == "__main__":
    sys.exit(main())

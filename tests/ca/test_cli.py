"""`mesh ca …` as people use it: results on stdout, one clear line for what went wrong, exit codes 0, 1 and 2."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from ca.cli import ca
from ca.cli_common import read_passphrase
from ca.config import CaSettings
from ca.create import create_ca
from ca.store.base import Ack
from ca.store.sqlite import SqliteStore
from certs.enrolment import Enrolment, EnrolmentKey, JoinToken
from tests.ca.office import DEMO

PASS = "correct horse battery staple"
ROOT = Path(__file__).parents[2]


class Shell:
    """Runs `mesh ca …` on a directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.directory = folder / "state" / "ca"
        self.passphrase = self.secret("pass", PASS + "\n")
        self.env = {"MESH_STATE_DIR": str(folder / "state")}

    def secret(self, name: str, text: str) -> str:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        return str(path)

    def run(self, *words: str, text: str | None = None) -> Result:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ca.cli.before_serving", [])  # where the roof is imported, `serve` confines its process: us
            return CliRunner().invoke(ca, list(words), env=self.env, input=text, prog_name="mesh ca")

    def ok(self, *words: str) -> str:
        result = self.run(*words)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        return result.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.ok(*words, "-o", "json"))

    def refused(self, *words: str, code: int = 1, text: str | None = None) -> str:
        result = self.run(*words, text=text)
        assert result.exit_code == code, result.output
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        return result.stderr

    def init(self) -> None:
        self.ok("init", "--trust-domain", "demo.mesh", "--passphrase-file", self.passphrase)

    def store(self) -> SqliteStore:
        return SqliteStore(self.directory / "ca.sqlite3")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def ready(shell: Shell) -> Shell:
    shell.init()
    return shell


def test_init_in_a_step_that_runs_at_every_start(shell: Shell) -> None:
    """As in Kubernetes: it makes the CA once, and never anything of one that is there."""
    words = ("init", "--trust-domain", DEMO, "--passphrase-file", shell.passphrase, "--keep")
    made = shell.json(*words)
    assert "kept" not in made
    before = {path: path.read_bytes() for path in shell.directory.rglob("*") if path.is_file()}
    assert shell.json(*words)["kept"] is True
    assert f"kept the CA of {DEMO}" in shell.ok(*words)
    assert {path: path.read_bytes() for path in shell.directory.rglob("*") if path.is_file()} == before
    assert f"holds the CA of {DEMO}, not of other.mesh" in shell.refused(*words[:2], "other.mesh", *words[3:])
    (shell.directory / "ca.json").write_text("{")
    shell.refused(*words)
    assert (shell.directory / "ca.json").read_text() == "{"


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o440, False), (0o460, True), (0o404, True)])
def test_a_passphrase_may_be_read_by_its_group_as_kubernetes_mounts_secrets(
    shell: Shell, capfd: pytest.CaptureFixture[str], mode: int, warned: bool
) -> None:
    Path(shell.passphrase).chmod(mode)
    assert read_passphrase(Path(shell.passphrase), new=False) == PASS.encode()
    assert ("is open to others" in capfd.readouterr().err) is warned


def test_init_says_what_it_made(shell: Shell) -> None:
    words = ("init", "--trust-domain", "demo.mesh", "--passphrase-file", shell.passphrase)
    made = shell.json(*words)
    assert made["trust_domain"] == "demo.mesh"
    assert made["directory"] == str(shell.directory)
    assert abs(made["root_not_after"] - time.time() - 3650 * 86400) < 60
    assert abs(made["issuer_not_after"] - time.time() - 30 * 86400) < 60
    assert "never overwritten" in shell.refused(*words)


INIT_REFUSED = [
    (["init"], 2, "--trust-domain"),
    (["init", "--trust-domain", "Demo"], 2, "only a-z"),
    (["init", "--trust-domain", "demo.mesh", "--root-ttl", "10"], 2, "such as 24h"),
    (["init", "--trust-domain", "demo.mesh", "--address", "x"], 2, "host:port"),
    (["init", "--trust-domain", "demo.mesh"], 2, "no passphrase"),
    (["init", "--trust-domain", "demo.mesh", "--passphrase-file", "/nowhere/at/all"], 2, "does not exist"),
    (["init", "--trust-domain", "demo.mesh", "--passphrase-file", "SHORT"], 1, "too short"),
    (["init", "--trust-domain", "demo.mesh", "--passphrase-file", "EMPTY"], 1, "empty"),
    (["init", "--trust-domain", "demo.mesh", "--passphrase-file", "PASS", "--issuer-ttl", "11y"], 1, "lifetimes"),
]


@pytest.mark.parametrize(("words", "code", "says"), INIT_REFUSED)
def test_init_refuses(shell: Shell, words: list[str], code: int, says: str) -> None:
    short, empty = shell.secret("short", "seven77\n"), shell.secret("empty", "\n")
    files = {"SHORT": short, "EMPTY": empty, "PASS": shell.passphrase}
    assert says in shell.refused(*(files.get(word, word) for word in words), code=code)
    assert not shell.directory.exists()


def test_a_passphrase_is_asked_for_twice_when_new(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def prompt(text: str, **options: Any) -> str:
        asked.append(options)
        return PASS

    class Terminal:
        @staticmethod
        def isatty() -> bool:
            return True

    monkeypatch.setattr(click, "prompt", prompt)
    monkeypatch.setattr("sys.stdin", Terminal())
    assert read_passphrase(None, new=True) == PASS.encode()
    assert read_passphrase(None, new=False) == PASS.encode()
    assert [(one["hide_input"], one["confirmation_prompt"]) for one in asked] == [(True, True), (True, False)]


def test_a_passphrase_may_come_from_standard_input_and_an_open_file_is_warned_of(shell: Shell) -> None:
    result = shell.run("init", "--trust-domain", "demo.mesh", "--passphrase-file", "-", text=PASS + "\n")
    assert result.exit_code == 0
    Path(shell.passphrase).chmod(0o644)
    result = shell.run("renew-issuer", "--passphrase-file", shell.passphrase)
    assert result.exit_code == 0
    assert "chmod 600" in result.stderr


def test_a_wrong_passphrase_is_one_clear_line(ready: Shell) -> None:
    wrong = ready.secret("wrong", "not the passphrase")
    for verb in ("serve", "renew-issuer"):
        said = ready.refused(verb, "--passphrase-file", wrong)
        assert "wrong passphrase" in said
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize("verb", ["serve", "status", "log", "entry list", "entry add x", "token x", "key x"])
def test_without_a_ca_every_verb_says_how_to_make_one(shell: Shell, verb: str) -> None:
    assert "mesh ca init" in shell.refused(*verb.split())


def said_commands(text: str) -> list[list[str]]:
    """What the output says to do next: the words after `mesh ca`."""
    return [shlex.split(found)[2:] for found in re.findall(r"mesh ca [^`(\n]*", text)]


@pytest.mark.parametrize("folder", ["the usual one", "a folder of my own"])
def test_what_is_said_to_do_next_works_when_pasted(shell: Shell, folder: str) -> None:
    where = [] if folder == "the usual one" else ["--dir", str(shell.folder / folder)]
    made = shell.ok("init", "--trust-domain", "demo.mesh", "--passphrase-file", shell.passphrase, *where)
    add, serve = said_commands(made)
    assert serve == ["serve", *where]
    added = shell.ok(*(word.replace("NAME", "orders") for word in add))
    key, token = said_commands(added)
    assert "join_token" in shell.ok(*token)
    (revoke,) = said_commands(shell.ok(*key))
    assert "revoked key" in shell.ok(*revoke)


def test_a_slip_in_the_name_of_an_entry_is_answered_with_the_nearest(ready: Shell) -> None:
    ready.ok("entry", "add", "shop/orders")
    ready.ok("entry", "add", "web")
    assert "no entry 'shop/ordres'; did you mean shop/orders?" in ready.refused("entry", "show", "shop/ordres")
    assert "did you mean" not in ready.refused("key", "payments")


def test_entries_come_and_go(ready: Shell) -> None:
    added = ready.json("entry", "add", "orders", "--dns", "orders.internal", "--ttl", "7d")
    assert added["spiffe_id"] == "spiffe://demo.mesh/ns/default/sa/orders"
    assert (added["dns_names"], added["ttl_seconds"]) == (["orders.internal"], 604800)
    assert added["id"] in ready.ok("entry", "list")
    assert ready.json("entry", "list")["entries"] == [added]
    assert ready.json("entry", "show", "orders") == added
    assert "orders.internal" in ready.ok("entry", "show", added["id"])
    assert ready.json("entry", "remove", added["spiffe_id"]) == {"removed": added["id"]}
    assert "no entries" in ready.ok("entry", "list")
    assert "no entry 'orders'" in ready.refused("entry", "remove", "orders")


ENTRY_REFUSED = [
    (["entry", "add", "a b"], 1, "may only have"),
    (["entry", "add", "spiffe://demo.mesh/mesh/ca"], 1, "reserved"),
    (["entry", "add", "spiffe://other.mesh/a"], 1, "trust domain"),
    (["entry", "add", "web", "--dns", "*.web"], 1, "DNS name"),
    (["entry", "add", "web", "--ttl", "8d"], 1, "lifetime"),
    (["entry", "add", "web", "--ttl", "soon"], 2, "such as 24h"),
    (["entry", "add", "orders"], 1, "has an entry already"),
    (["entry", "add"], 2, "SERVICE"),
    (["token", "web"], 1, "no entry"),
    (["token", "orders", "--ttl", "8d"], 1, "1s to 7d"),
    (["token", "orders", "--ca-address", "nowhere"], 2, "host:port"),
    (["key", "web"], 1, "no entry"),
    (["entry", "revoke-key", "orders", "ff"], 1, "no live key"),
    (["log", "--limit", "0"], 2, "range"),
    (["nonsense"], 2, "No such command"),
]


@pytest.mark.parametrize(("words", "code", "says"), ENTRY_REFUSED)
def test_what_is_refused_says_why(ready: Shell, words: list[str], code: int, says: str) -> None:
    ready.ok("entry", "add", "orders")
    assert says in ready.refused(*words, code=code)


def test_a_token_is_printed_or_written_0600(ready: Shell) -> None:
    ready.ok("entry", "add", "orders")
    printed = Enrolment.parse(ready.ok("token", "orders").encode())
    assert isinstance(printed.proof, JoinToken)
    assert printed.ca_address == "127.0.0.1:17012"
    out = ready.folder / "orders.json"
    said = ready.json("token", "orders", "--ttl", "10m", "--ca-address", "ca.internal:1", "--out", str(out))
    assert said["file"] == str(out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    written = Enrolment.load(out)
    assert written.ca_address == "ca.internal:1"
    assert written.proof != printed.proof
    assert "--force" in ready.refused("token", "orders", "--out", str(out))
    assert Enrolment.load(out) == written


def test_a_key_goes_to_the_enrolment_folder_and_is_revoked_by_its_beginning(ready: Shell) -> None:
    ready.ok("entry", "add", "orders")
    assert "reusable" in ready.ok("key", "orders")
    path = ready.directory / "enrolment" / "orders.json"
    file = Enrolment.load(path)
    assert isinstance(file.proof, EnrolmentKey)
    assert "--force" in ready.refused("key", "orders")
    [key] = ready.json("entry", "show", "orders")["keys"]
    assert ready.json("entry", "revoke-key", "orders", key["id"][:8])["revoked"] == key["id"]
    assert ready.json("entry", "show", "orders")["keys"][0]["revoked_at"] is not None
    ready.ok("key", "orders", "--force")
    assert Enrolment.load(path) != file
    assert len(ready.json("entry", "show", "orders")["keys"]) == 2


def test_a_key_that_could_not_be_written_is_a_failure(ready: Shell) -> None:
    ready.ok("entry", "add", "orders")
    assert "No such file" in ready.refused("key", "orders", "--out", str(ready.folder / "no" / "where.json"))


def test_status_and_log_of_a_ca_that_has_done_nothing(ready: Shell) -> None:
    status = ready.json("status")
    assert (status["entries"], status["issued"], status["warnings"], status["sidecars"]) == (0, 0, [], [])
    assert status["bundle_sequence"] == 1
    assert "no live sidecar" in ready.ok("status")
    assert ready.json("log") == {"issuances": []}
    assert "nothing has been issued" in ready.ok("log")


def test_status_shouts_before_the_end(shell: Shell) -> None:
    shell.directory.parent.mkdir()
    create_ca(shell.directory, CaSettings(DEMO), PASS.encode(), time.time() - 28 * 86400)
    assert "WARNING THE ISSUING CA EXPIRES in 1d" in shell.ok("status")
    shell.ok("renew-issuer", "--passphrase-file", shell.passphrase)
    assert "WARNING the key of JWT-SVIDs ends in 1d" in shell.ok("status")
    shell.ok("renew-jwt-key", "--passphrase-file", shell.passphrase)
    assert "WARNING" not in shell.ok("status")


def start(shell: Shell, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", "from ca.cli import ca; ca(prog_name='mesh ca')", "serve", *words]
    env = {**os.environ, **shell.env, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=ROOT)


@pytest.mark.integration
@pytest.mark.parametrize("goodbye", [signal.SIGTERM, signal.SIGINT])
def test_serve_says_one_line_and_ends_cleanly(ready: Shell, goodbye: signal.Signals) -> None:
    with start(ready, "--listen", "127.0.0.1:0", "--passphrase-file", ready.passphrase) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        assert line.startswith("ca ready on 127.0.0.1:")
        assert line.endswith(" (trust domain demo.mesh)\n")
        port = line.split()[3].rpartition(":")[2]
        taken = start(ready, "--listen", f"127.0.0.1:{port}", "--passphrase-file", ready.passphrase)
        out, err = taken.communicate(timeout=30)
        assert (taken.returncode, out) == (1, "")
        assert f"cannot listen on 127.0.0.1:{port}" in err
        running.send_signal(goodbye)
        out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (0, "")
    assert "Traceback" not in err
    lines = ready.json("log")["issuances"]
    assert {one["proof"] for one in lines} == {"self"}
    assert "spiffe://demo.mesh/mesh/ca" in ready.ok("log", "--limit", "1")
    store = ready.store()
    store.acknowledge([Ack("spiffe://demo.mesh/mesh/ca", lines[0]["serial"], "bundle", 1, time.time())])
    store.close()
    assert ready.json("status")["sidecars"][0]["bundle"] == "current"
    assert "current" in ready.ok("status")


@pytest.mark.integration
def test_serve_of_an_expired_root_exits_with_1_and_says_so(shell: Shell) -> None:
    shell.directory.parent.mkdir()
    life = 30 * 86400.0
    create_ca(shell.directory, CaSettings(DEMO), PASS.encode(), time.time() - 31 * 86400, root_ttl=life)
    running = start(shell, "--listen", "127.0.0.1:0", "--passphrase-file", shell.passphrase)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (1, "")
    assert "expired 1 d ago" in err


def every_command(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        found += every_command(command, (*path, name)) if isinstance(command, click.Group) else [(*path, name)]
    return found


@pytest.mark.parametrize("words", every_command(ca), ids=" ".join)
def test_every_command_has_help_with_an_example(shell: Shell, words: tuple[str, ...]) -> None:
    text = shell.ok(*words, "--help")
    assert "Example" in text
    assert f"mesh ca {' '.join(words)}" in text.partition("Example")[2]

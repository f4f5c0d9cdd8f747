"""What `mesh explain` prints for every refusal there is, as files to be read like documentation.

Each refusal is made as in production, recorded, looked up by its id through the admin answers and printed by the
command itself. The texts are kept under tests/snapshots/explain/; MESH_UPDATE_EXPLAINED=1 writes them anew, and the
diff is for a person to judge.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner

from sidecar import errors
from sidecar.cli import explain as verb
from sidecar.errors import HopError, PolicyDenied
from sidecar.hop import Token
from sidecar.policy.identities import IDENTITY, PROFILE, SAME
from sidecar.runtime.inspect import Inspector
from sidecar.telemetry.decisions import Decision
from tests.kit.hops import MALLORY, a_hop
from tests.kit.identities import a_bundle_set, a_root
from tests.kit.refusals import TABLES, Scene

ROOT = Path(__file__).parents[3]
SNAPSHOTS = ROOT / "tests" / "snapshots" / "explain"
CASES = [(table, name) for table, rows in TABLES.items() for name in rows]
UPDATE = os.environ.get("MESH_UPDATE_EXPLAINED") == "1"


class Asked:
    """A sidecar as `mesh explain` sees it, without the socket: the real answers, as the JSON that would travel."""

    def __init__(self, scene: Scene, name: str) -> None:
        sidecar, recorder = scene.sidecars[name], scene.recorders[name]
        worker = SimpleNamespace(
            recorder=recorder, service=sidecar.service, instance=recorder.instance, proxy=sidecar.proxy,
            clock=recorder.clock, config=scene.config, bundles=SimpleNamespace(current=a_bundle_set(a_root())),
        )  # fmt: skip
        self.service = name
        self._inspector = Inspector(cast(Any, worker))

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        assert method == "GET"
        found = self._inspector.decision(path.rpartition("/")[2])
        return (404, {}) if found is None else (200, json.loads(json.dumps(found)))

    def ahead(self, question: dict[str, Any]) -> dict[str, Any]:
        return self._inspector.explain(question)


def told(scene: Scene, decision: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[int, str]:
    """What `mesh explain ID` prints while both sidecars run, and its exit code."""
    monkeypatch.setattr(verb, "some", lambda run_dir: [Asked(scene, name) for name in scene.sidecars])
    result = CliRunner().invoke(verb.explain, [decision, *options], standalone_mode=False)
    assert result.exception is None, result.exception
    return result.return_value, result.output


@pytest.mark.parametrize(("table", "name"), CASES, ids=[name for _, name in CASES])
def test_each_refusal_is_explained_as_it_was_agreed(table: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    decision = TABLES[table][name](scene)
    code, text = told(scene, decision, monkeypatch)
    path = SNAPSHOTS / table / f"{name}.txt"
    if UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"no {path.relative_to(ROOT)} yet; MESH_UPDATE_EXPLAINED=1 writes it:\n{text}"
    assert text == path.read_text()
    outcome = {"permit": 0, "deny": 1}[kept(scene, decision).verdict]  # let in or not, however it ended then
    assert code == outcome
    assert text.isprintable() or text.replace("\n", "").isprintable()


@pytest.mark.parametrize("table", TABLES)
def test_programs_get_the_same_facts(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    for name, make in TABLES[table].items():
        decision = make(scene)
        code, text = told(scene, decision, monkeypatch, "-o", "json")
        document = json.loads(text)
        people = (SNAPSHOTS / table / f"{name}.txt").read_text()
        assert (document["id"], code) == (decision, 0 if document["verdict"] == "permit" else 1)
        assert document["explained"]["happened"] in people
        assert document["explained"]["todo"] in people
        assert document["flag"] in people
        if document["error"] == "policy_denied":
            assert (document["policy"]["verdict"] == "deny") is ("note" not in document)
            assert all(change["sentence"] in people for change in document["policy"]["changes"])
        assert "text" not in document


def test_of_a_question_ahead_both_answers_are_given_while_the_listener_observes() -> None:
    asked = Asked(Scene(), "orders")
    for listener, note in (("http", None), ("trial", "strict would refuse this; listener trial is in posture observe")):
        answer = asked.ahead({"from": "mallory", "method": "GET", "path": "/x", "port": listener})
        assert answer["verdict"] == "deny"
        assert str(answer.get("note")).startswith(str(note))


def test_ahead_a_caller_that_no_root_vouches_for_is_refused_as_the_handshake_would() -> None:
    answer = Asked(Scene(), "orders").ahead({"from": "spiffe://other.mesh/ns/default/sa/web", "path": "/x"})
    assert (answer["verdict"], answer["error"]) == ("deny", "identity_refused")
    assert answer["explained"]["happened"] == (
        "The certificate is of a trust domain whose roots we do not have: spiffe://other.mesh/ns/default/sa/web is of "
        "other.mesh, and we have roots of demo.mesh only."
    )


def test_ahead_a_caller_that_nobody_declares_may_be_a_slip() -> None:
    asked = Asked(Scene(), "orders")
    for caller, note in (
        ("wbe", "wbe is no service of the config; did you mean web?"),
        ("shop/wbe", "shop/wbe is no service of the config; did you mean web?"),
        ("stranger", "stranger is no service of the config"),
    ):
        assert asked.ahead({"from": caller, "path": "/x"})["note"] == note


def test_no_snapshot_is_left_over() -> None:
    kept = {(path.parent.name, path.stem) for path in SNAPSHOTS.rglob("*.txt")}
    assert kept == set(CASES)


def kept(scene: Scene, decision: str) -> Decision:
    """The decision, wherever it was made."""
    return next(filter(None, (recorder.decisions.find(decision) for recorder in scene.recorders.values())))


def decided() -> Iterator[tuple[str, str]]:
    """Error and identity reason of every case."""
    for rows in TABLES.values():
        for make in rows.values():
            scene = Scene()
            found = kept(scene, make(scene))
            yield found.error, found.reason


def test_every_error_and_every_identity_reason_has_a_snapshot() -> None:
    seen = list(decided())
    kinds = {kind.name for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, HopError)}
    assert kinds - {error for error, _ in seen} == {"hop_error"}  # the base of all, which nobody raises
    reasons = {reason.removeprefix("alert_") for _, reason in seen}
    of_loading = {"chain_length", "chain_order", "chain_without_root", "key_matches"}  # our own files, not a caller's
    of_all = {"invalid_svid"}  # the words that every rule of the profile shares
    assert {*IDENTITY, *SAME, *PROFILE} - reasons - of_loading - of_all == set()


# ---- the words in the tables are the proxy's own -------------------------------------------------------------------


def phrases() -> Iterator[list[str]]:
    """Every text in the source with a dozen letters of its own, cut at its holes."""
    for folder in ("sidecar", "certs"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    fixed = [str(part.value) for part in node.values if isinstance(part, ast.Constant)]
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    fixed = [node.value]
                else:
                    continue
                if sum(map(len, fixed)) >= 12:
                    yield fixed


def says(phrase: list[str], text: str) -> bool:
    """Whether the parts of a phrase stand in the text, one after the other."""
    at = 0
    for part in phrase:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return True


OF_OTHERS = (  # of OpenSSL, and of Python
    "division by zero",
    "unable to get local issuer certificate", "certificate signature failure", "path length constraint exceeded",
    "invalid CA certificate",
)  # fmt: skip


def test_the_words_of_the_tables_are_those_of_the_source() -> None:
    known = list(phrases())
    for rows in (TABLES["exchanges"], TABLES["callers"], TABLES["upstreams"]):
        for name, make in rows.items():
            scene = Scene()
            found = kept(scene, make(scene))
            said = found.detail.endswith(OF_OTHERS) or any(says(phrase, found.detail) for phrase in known)
            assert said, f"{name}: nothing in the source says {found.detail!r}"


def test_of_a_refused_hop_with_a_token_only_what_names_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    token = Token("login", "anna", {"sub": "anna"}, frozenset({"orders:read"}), 1_800_000_000.0, "ab" * 8)
    refused = scene.keep("orders", a_hop(peer=MALLORY, token=token, error=PolicyDenied()))
    _, text = told(scene, refused, monkeypatch)
    assert "token     of login, id abababababababab, good until 2027-01-15T08:00:00.000000Z\n" in text
    assert "anna" not in text + told(scene, refused, monkeypatch, "-o", "json")[1]

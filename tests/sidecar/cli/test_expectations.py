"""`mesh test`: what holds, what does not and why, what is no expectation at all; exit codes and files for CI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from sidecar.cli.root import run_command

CONFIG = """\
trust_domain: demo.mesh
issuers:
  login: {issuer: "https://login.example.org", audience: "https://orders.example.org"}
services:
  web: {outbound: [{to: orders, port: http, listen: "127.0.0.1:17101"}]}
  orders:
    inbound:
      - {name: http, port: 17443, app: "127.0.0.1:17201", tokens: {from: login}}
      - {name: plain, port: 17444, app: "127.0.0.1:17202"}
      - {name: raw, port: 17445, app: "127.0.0.1:17203", protocol: tcp}
    deny:
      - {name: no-admin, from: "**", path: /admin/**}
    allow:
      - name: own
        from: web
        method: GET
        path: /customers/{customer}
        when: [path customer is claim customer_id]
      - {name: staff, from: web, path: /staff, scopes: ["orders:read"]}
      - {name: day, from: web, path: /day, port: plain, when: ["time between 08:00 and 18:00"]}
      - {name: raw, from: web, port: raw}
"""

C7 = {"customer_id": "c7"}
SAID: list[tuple[dict[str, Any], str | None, str, str]] = [  # request, from, expect, rule
    ({"path": "/customers/c7", "claims": C7}, "web", "permit", "own"),
    ({"path": "/customers/c7", "claims": C7}, "spiffe://demo.mesh/ns/default/sa/web", "permit", "own"),
    ({"path": "/customers/c8", "claims": C7}, "web", "403", ""),
    ({"path": "/customers/c7", "claims": C7, "method": "POST"}, "web", "deny", ""),
    ({"path": "/customers/c7", "claims": {"customer_id": ["c7"]}}, "web", "403", ""),
    ({"path": "/customers/7", "claims": {"customer_id": 7}}, "web", "permit", "own"),
    ({"path": "/customers/c7"}, "web", "401", ""),
    ({"path": "/staff", "claims": {}}, "web", "403", ""),
    ({"path": "/staff", "scopes": ["orders:read"]}, "web", "permit", "staff"),
    ({"path": "/admin/x", "claims": {}}, "web", "403", "no-admin"),
    ({"path": "/customers/c7", "claims": C7}, "default/mallory", "403", ""),
    ({"path": "/customers/c7", "claims": C7}, None, "403", ""),
    ({"path": "/customers/../staff", "claims": {}}, "web", "400", ""),
    ({"path": "/day", "port": "plain", "time": "2026-01-05T12:00:00Z"}, "web", "permit", "day"),
    ({"path": "/day", "port": "plain", "time": "2026-01-05T18:00:00Z"}, "web", "403", ""),
    ({"port": "raw"}, "web", "permit", "raw"),
    ({"port": "raw"}, "default/mallory", "deny", ""),
]


class Verb:
    """Runs `mesh test` in this process, in a folder of its own, and keeps what it said."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> int:
        code = run_command(["test", *arguments])
        self.out, self.err = self._capsys.readouterr()
        return code


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verb:
    monkeypatch.chdir(tmp_path)
    Path("mesh.yaml").write_text(CONFIG)
    return Verb(capsys)


def expectation(request: dict[str, Any], caller: str | None = "web", expect: str = "permit", rule: str = "") -> Any:
    given = {"name": "it", "to": "orders", "request": request, "expect": expect, "rule": rule, "from": caller}
    return {name: value for name, value in given.items() if value}


def write(file: str, *tests: Any, **more: Any) -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(json.dumps({**more, "tests": tests}))


def test_what_is_expected_is_what_the_proxy_s_function_says(verb: Verb) -> None:
    write("mesh-test.yaml", *(expectation(*each) for each in SAID))
    assert verb("-o", "json") == 0, verb.out + verb.err
    told = json.loads(verb.out)
    assert (told["ok"], len(told["tests"])) == (True, len(SAID))
    assert [each["rule"] for each in told["tests"]] == [rule for *_, rule in SAID]


def test_the_opposite_of_each_fails(verb: Verb) -> None:
    opposite = {True: "deny", False: "permit"}
    write("mesh-test.yaml", *(expectation(r, c, opposite[e == "permit"]) for r, c, e, _ in SAID))
    assert verb("-o", "json") == 1
    assert not any(each["holds"] for each in json.loads(verb.out)["tests"])


def test_a_failing_one_is_told_in_a_line_with_what_was_said_and_the_nearest_rule(verb: Verb) -> None:
    write("mesh-test.yaml", expectation({"path": "/customers/c8", "claims": C7}))
    assert verb() == 1
    [line] = [line for line in verb.out.splitlines() if line.startswith("mesh-test.yaml:1: it: ")]
    assert "expected permit, said deny 403" in line
    assert "nearest is rule 'own' (mesh.yaml:14)" in line
    assert "when: wanted path customer is claim customer_id, seen 'c8', another text" in line
    assert verb.out.endswith("1 expectation: 1 not as expected\n")


def test_the_right_verdict_by_another_rule_fails(verb: Verb) -> None:
    write("mesh-test.yaml", expectation({"path": "/customers/c7", "claims": C7}, "web", "permit", "staff"))
    assert verb() == 1
    assert "expected permit by rule 'staff', said permit by rule 'own'" in verb.out


def test_a_refusal_with_another_status_fails(verb: Verb) -> None:
    write("mesh-test.yaml", expectation({"path": "/customers/c7"}, "web", "403"))
    assert verb() == 1
    assert "said deny 401" in verb.out
    assert "listener http asks each request for a token" in verb.out


def test_every_mistake_of_every_file_is_told_at_once(verb: Verb) -> None:
    write("a/mesh-test.yaml", {"name": "it", "to": "ordrs", "expect": "permit"}, {"nam": "it"})
    write(
        "b/orders.mesh-test.yaml",
        expectation({}, "wbe"), expectation({}, rule="owns"), expectation({"port": "htp"}),
        expectation({"port": "plain", "claims": {}}), expectation({}, "a/b/c"),
    )  # fmt: skip
    write("c/mesh-test.yaml", expectation({}), config="../other.yaml")
    assert verb() == 2
    assert verb.out == ""
    for words in (
        'there is no service "ordrs"; did you mean "orders"?', 'unknown key; did you mean "name"?',
        'there is no service "wbe"; did you mean "web"?', 'orders has no rule "owns"; did you mean "own"?',
        "orders has no inbound listener 'htp'", "listener plain of orders verifies no tokens", "'a/b/c' is neither",
        "other.yaml: cannot read", "tests[1].to: is required",
    ):  # fmt: skip
        assert words in verb.err
    assert all(line.startswith(("a/", "b/", "other.yaml", "mesh: ")) for line in verb.err.splitlines())


def test_mistakes_of_the_config_are_told_once(verb: Verb) -> None:
    Path("mesh.yaml").write_text(CONFIG.replace("allow:", "alow:"))
    write("a/mesh-test.yaml", expectation({}), config="../mesh.yaml")
    write("b/mesh-test.yaml", expectation({}), config="../mesh.yaml")
    assert verb() == 2
    assert verb.err.count('did you mean "allow"?') == 1


def test_files_folders_and_patterns_mean_what_they_say(verb: Verb) -> None:
    good, bad = expectation(*SAID[0]), expectation(*SAID[0][:2], "deny")
    write("orders/mesh-test.yaml", good)
    write("orders/more.mesh-test.yaml", good, good)
    write("orders/else.yaml", bad)
    write(".hidden/mesh-test.yaml", bad)
    write("node_modules/x/mesh-test.yaml", bad)
    for places, count, code in (
        ((), 3, 0), (("orders",), 3, 0), (("orders", "orders/mesh-test.yaml"), 3, 0), (("orders/*.yaml",), 4, 1),
        (("orders/else.yaml",), 1, 1), (("**/more*",), 2, 0),
    ):  # fmt: skip
        assert verb(*places, "-o", "json") == code, places
        assert len(json.loads(verb.out)["tests"]) == count, places


@pytest.mark.parametrize("place", ["none.yaml", "nothing/*.yaml", "."])
def test_where_nothing_is_expected_nothing_is_proved(verb: Verb, place: str) -> None:
    assert verb(place) == 2
    assert f"there are no expectations in {'this folder' if place == '.' else place}." in verb.err


def test_a_junit_file_has_a_suite_for_each_file(verb: Verb) -> None:
    write("a.mesh-test.yaml", expectation(*SAID[0]), expectation(*SAID[0][:2], "deny"))
    write("b.mesh-test.yaml", expectation(*SAID[0]))
    assert verb("--junit", "out.xml") == 1
    suites = Xml.parse("out.xml").getroot().findall("testsuite")
    assert [(each.get("name"), each.get("tests"), each.get("failures")) for each in suites] == [
        ("a.mesh-test.yaml", "2", "1"), ("b.mesh-test.yaml", "1", "0"),
    ]  # fmt: skip
    assert "said permit by rule 'own'" in str(suites[0].findall("testcase/failure")[0].text)


def test_a_junit_file_that_cannot_be_written_is_a_sentence(verb: Verb) -> None:
    write("mesh-test.yaml", expectation(*SAID[0]))
    assert verb("--junit", "nowhere/out.xml") == 2
    assert "nowhere/out.xml cannot be written: No such file or directory." in verb.err
    assert "Traceback" not in verb.err


def test_a_path_cannot_move_the_terminal_s_cursor(verb: Verb) -> None:
    write("mesh-test.yaml", {**expectation({"path": "/a\u202eb"}), "name": "it \u202e"})
    assert verb() == 1
    assert "\u202e" not in verb.out

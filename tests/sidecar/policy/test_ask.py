"""What OPA's answers mean: one yes, one no, and everything else is silence. And how long an answer stands."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.schema_opa import Asked, Opa
from sidecar.config.terms import Address
from sidecar.config.urls import WebUrl
from sidecar.hop import Token
from sidecar.patterns import PathTemplate
from sidecar.policy.ask import AnswerBook, AskRules, Said, Unsaid, place, read_answer
from tests.kit.hops import a_hop

JSON = b"application/json"
URL = WebUrl(Address("127.0.0.1", 8181))

ANSWERS: list[tuple[bytes, Said]] = [
    (b'{"result": true}', Said(allow=True)),
    (b'{"result": false}', Said(allow=False)),
    (b'{"decision_id": "x", "result": {"allow": true}}', Said(allow=True)),
    (b'{"result": {"allow": false, "reason": "late\\n at night"}}', Said(allow=False, reason="late? at night")),
    (b'{"result": {"allow": false, "message": "m", "reason": 7}}', Said(allow=False, reason="m")),
]
SILENCE: list[tuple[int, bytes | None, bytes]] = [
    (200, JSON, b"{}"),
    (200, JSON, b'{"result": null}'),
    (200, JSON, b'{"result": "true"}'),
    (200, JSON, b'{"result": 1}'),
    (200, JSON, b'{"result": []}'),
    (200, JSON, b'{"result": [true]}'),
    (200, JSON, b'{"result": {}}'),
    (200, JSON, b'{"result": {"allow": 1}}'),
    (200, JSON, b'{"result": {"allow": "yes"}}'),
    (200, JSON, b'{"result": {"allowed": true}}'),
    (200, JSON, b'{"result": false, "result": true}'),
    (200, JSON, b'{"result": {"allow": false, "allow": true}}'),
    (200, JSON, b'{"result": NaN}'),
    (200, JSON, b'{"result": true, "n": -Infinity}'),
    (200, JSON, b'{"result": true'),
    (200, JSON, b'{"result": true} {"result": true}'),
    (200, JSON, b"true"),
    (200, JSON, b""),
    (200, JSON, b"\xff\xfe{\x00}\x00"),
    (200, JSON, b"[" * 60_000),
    (200, b"text/plain", b'{"result": true}'),
    (200, None, b'{"result": true}'),
    (301, JSON, b'{"result": true}'),
    (404, JSON, b'{"result": true}'),
    (500, JSON, b'{"result": true}'),
    (204, JSON, b""),
]


@pytest.mark.parametrize(("body", "said"), ANSWERS)
def test_a_yes_and_a_no(body: bytes, said: Said) -> None:
    assert read_answer(200, JSON, body) == said
    assert read_answer(200, b"Application/JSON; charset=utf-8", body) == said


@pytest.mark.parametrize(("status", "kind", "body"), SILENCE)
def test_everything_else_is_neither(status: int, kind: bytes | None, body: bytes) -> None:
    with pytest.raises(Unsaid) as raised:
        read_answer(status, kind, body)
    assert 0 < len(str(raised.value)) < 200


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["result", "allow", "x"]), inner),
))  # fmt: skip
def test_whatever_json_says_only_true_lets_in(document: object) -> None:
    try:
        said = read_answer(200, JSON, json.dumps(document).encode())
    except Unsaid:
        return
    assert isinstance(document, dict)
    result = document["result"]
    assert said.allow is (result if isinstance(result, bool) else result["allow"])


def test_the_same_hop_is_the_same_question_and_holds_no_credential() -> None:
    rules = AskRules(Opa(URL, headers=("X-Team",), claims=("sub", "missing")))
    hop = a_hop(method="GET", path="/orders/7", headers=[(b"x-team", b"a"), (b"authorization", b"Bearer s"),
                                                         (b"x-team", b"\xe9")])  # fmt: skip
    hop.token = Token("corp", "joe", {"sub": "joe", "email": "j@x"}, frozenset(), 0.0, "id")
    first, again = rules.question(hop), rules.question(hop)
    assert first == again
    asked = json.loads(first)["input"]
    assert asked["headers"] == {"x-team": ["a", "\xe9"]}
    assert asked["token"] == {"issuer": "corp", "claims": {"sub": "joe"}}
    assert b"Bearer" not in first
    assert b"j@x" not in first
    every = json.loads(AskRules(Opa(URL, claims=("*",))).question(hop))["input"]
    assert every["token"]["claims"] == {"sub": "joe", "email": "j@x"}
    hop.token = None
    assert json.loads(rules.question(hop))["input"]["token"] is None


def test_which_requests_it_is_asked_about() -> None:
    path = PathTemplate.parse("/admin/**")
    rules = AskRules(Opa(URL, concerns=(Asked(methods=("POST",)), Asked(paths=(path,)))))
    table = [("POST", "/x", True), ("GET", "/admin/x", True), ("GET", "/x", False), ("GET", "/admin", False)]
    for method, target, asked in table:
        assert rules.concerns(a_hop(method=method, path=target)) is asked, (method, target)


def test_where_it_is() -> None:
    spec = Opa(WebUrl(Address("opa.test", 443), tls=True, path="/base/"), path="/v1/data/a")
    assert place(spec) == "https://opa.test/base/v1/data/a"


def test_an_answer_stands_from_when_it_was_asked_and_never_longer() -> None:
    book = AnswerBook(ttl=1.0, size=2)
    yes, no = Said(allow=True), Said(allow=False)
    book.keep(b"a", yes, asked=10.0)
    assert book.find(b"a", 10.9) == yes
    assert book.find(b"a", 11.0) is None
    book.keep(b"a", no, asked=11.0)
    book.keep(b"a", yes, asked=10.5)  # an older question whose answer came late
    assert book.find(b"a", 11.2) == no
    for name in (b"b", b"c", b"d"):
        book.keep(name, yes, asked=12.0)
        assert len(book) <= 2
    assert book.find(b"a", 11.3) is None
    assert book.find(b"d", 12.1) == yes

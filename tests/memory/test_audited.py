"""Each refusal that a caller can earn is a line of the audit, from a real proxy with the whole of its rules."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.schema_audit import Audit as Config
from sidecar.policy.ask import Said
from sidecar.policy.jwk import KeySet
from sidecar.telemetry.audit import Audit
from tests.kit import apps
from tests.kit.contracts import answer, under
from tests.kit.hops import MALLORY, ORDERS, WEB
from tests.kit.play import Stage
from tests.kit.tokens import AUDIENCE, ISSUER, Signer, key_set

TOKENS = {
    "issuers": f"issuers: {{login: {{issuer: '{ISSUER}', audience: '{AUDIENCE}'}}}}", "http": ", tokens: {from: login}",
}  # fmt: skip
SIGNER = Signer()
Script = Callable[[Stage], Coroutine[Any, Any, None]]


def asking(*requests: bytes, who: Any = WEB, app: bytes = apps.OK) -> Script:
    """A peer asks this, one after the other on connections of their own."""

    async def script(stage: Stage) -> None:
        stage.app(apps.always(app))
        for request in requests:
            peer = await stage.peer(who)
            await peer.say(request)
            await peer.answer()
            peer.close()

    return script


def get(path: bytes = b"/orders/7", more: bytes = b"") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: orders\r\n" + more + b"\r\n"


def by_token(**claims: object) -> Script:
    """A peer shows a token that is good but for these claims."""

    async def script(stage: Stage) -> None:
        stage.keys.sets["login"] = KeySet.parse(key_set(SIGNER))
        token = SIGNER.token(at=stage.port.wall(), **claims)
        await asking(get(more=b"Authorization: Bearer " + token + b"\r\n"))(stage)

    return script


def opa(says: object) -> Script:
    async def script(stage: Stage) -> None:
        stage.orders.outside.asked_opa.says = lambda _: says
        await asking(get())(stage)

    return script


DENIED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
OPA = {"orders": "    opa: {url: 'http://127.0.0.1:8181'}"}
BLOCK = {"orders": "    detectors: {stuffing: {refusals: 2, action: block, for: 60s}}"}
QUOTA = {"orders": "    quotas: [{name: daily, limit: 1/d}]"}
BROKEN = answer({"id": "seven", "secret": 1})

TABLE: list[tuple[str, dict[str, str], Script, list[tuple[str, str]]]] = [
    ("policy", {}, asking(get(), who=MALLORY), [("refusal", "policy_denied")]),
    ("protocol", {}, asking(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), [("refusal", "protocol_violation")]),
    ("token missing", TOKENS, asking(get()), [("refusal", "token_missing")]),
    ("token of another audience", TOKENS, by_token(aud="other"), [("refusal", "token_invalid")]),
    ("token too old", TOKENS, by_token(exp=1), [("refusal", "token_invalid")]),
    ("token good", TOKENS, by_token(), [("token", ""), ("permit", "")]),
    ("OPA says no", OPA, opa(Said(allow=False)), [("refusal", "ask_denied")]),
    ("OPA is silent", OPA, opa("no answer"), [("refusal", "ask_silent")]),
    ("request outside the contract", under(), asking(get(b"/orders/x")), [("refusal", "contract_broken")]),
    ("operation unknown", under(), asking(get(b"/nothing")), [("refusal", "operation_unknown")]),
    ("operation gone", under(), asking(get(b"/gone")), [("refusal", "operation_gone")]),
    ("answer outside the contract", under(), asking(get(), app=BROKEN), [("refusal", "answer_broken")]),
    ("answer that is no HTTP", {}, asking(get(), app=b"hello\r\n\r\n"), [("refusal", "upstream_protocol")]),
    ("quota spent", QUOTA, asking(get(), get()), [("permit", ""), ("limited", "daily")]),
    ("blocked by a detector", BLOCK, asking(*[get()] * 3, app=DENIED),
     [("detection", ""), ("permit", ""), ("limited", "detector stuffing")]),
]  # fmt: skip


@pytest.mark.parametrize(("config", "script", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_it_is_a_line(config: dict[str, str], script: Script, expected: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.jsonl"
        stage = Stage(**config)
        audit = stage.orders.books.audit = Audit(Config(), str(path), instance="0a", service=ORDERS.text)
        stage.run(script(stage))
        assert audit.close(0.0) == 0
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    kinds = [line["kind"] for line in lines]
    assert (kinds[0], kinds[1], kinds[-1]) == ("start", "handshake", "stop")
    kept = [line for line in lines if line["kind"] not in ("start", "handshake", "stop")]
    assert [(line["kind"], line.get("error") or line.get("limit") or "") for line in kept] == expected
    assert {line["caller"] for line in kept} == {lines[1]["peer"]}

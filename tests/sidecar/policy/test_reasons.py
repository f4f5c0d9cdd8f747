"""Every failure has plain words: what happened, and what to do."""

from __future__ import annotations

import ast
import inspect
import string

import pytest

from certs import svid, verify
from sidecar import errors
from sidecar.config.load import load_text
from sidecar.errors import AmbiguousPath, DownstreamIdle, HopError, IdentityRefused, PeerIdentityMismatch
from sidecar.policy.finer import FINER as CASES
from sidecar.policy.identities import IDENTITY, PROFILE, SAME
from sidecar.policy.reasons import HAPPENED, UNKNOWN, reason_for, reason_of
from sidecar.policy.words import LIMITS, Reason, limits_of

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, HopError)]


def test_every_error_has_its_words_and_no_word_is_left_over() -> None:
    assert {kind.name for kind in KINDS} == set(HAPPENED)


def raised_in(source: str, kind: str) -> set[str]:
    """The reasons with which a module raises this error."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == kind]
    return {arg.value for call in named if isinstance(arg := call.args[0], ast.Constant) and isinstance(arg.value, str)}


def test_every_reason_to_distrust_a_certificate_has_its_words() -> None:
    known = raised_in(inspect.getsource(svid), "InvalidSvid") | raised_in(inspect.getsource(verify), "UntrustedSvid")
    known |= {"expired", "not_yet_valid", "unknown_root", "bad_chain", "path_length", "invalid_issuer", "bad_signature"}
    assert len(known) > 20
    general = reason_for("identity_refused")
    assert [reason for reason in sorted(known) if reason_for("identity_refused", reason) == general] == []


FINER = [
    Reason(happened or HAPPENED[name].happened, todo)
    for name, cases in CASES.items()
    for _, happened, todo in cases
]


@pytest.mark.parametrize("reason", [*HAPPENED.values(), *FINER, *IDENTITY.values()])
def test_the_words_are_one_or_two_plain_sentences_with_known_placeholders(reason: Reason) -> None:
    for text in reason:
        assert {field for _, field, _, _ in string.Formatter().parse(text) if field} <= {*UNKNOWN, *LIMITS}
        assert text.endswith(".")
        assert text.isascii()
        assert len(text) < 300


BAD_INPUT = [
    # what went wrong, the reason the handshake gives, words of what happened, words of what to do
    ("no client certificate", "no_certificate", "client certificate", "sidecar of the mesh"),
    ("wrong trust domain", "wrong_trust_domain", "trust domain", "same CA"),
    ("expired", "expired", "has expired", "clocks"),
    ("not yet valid", "not_yet_valid", "not valid yet", "clocks"),
    ("two URI SANs", "one_uri_san", "exactly one URI name", "one SPIFFE ID"),
    ("a CA as leaf", "not_a_ca", "CA certificate", "leaf"),
    ("TLS 1.2", "protocol_version", "TLS 1.2", "unsafe_tls12"),
    ("plaintext on the mTLS port", "plaintext", "not TLS", "own sidecar"),
    ("a root that is not ours", "unknown_ca", "root that we trust", "same CA"),
    ("another profile rule", "no_cert_sign", "X.509-SVID profile", "mesh certs verify"),
    ("a slow handshake", "handshake_timeout", "in time", "timeouts.handshake"),
]


@pytest.mark.parametrize(("sentence", "reason", "happened", "todo"), BAD_INPUT, ids=[row[0] for row in BAD_INPUT])
def test_each_bad_identity_is_explained(sentence: str, reason: str, happened: str, todo: str) -> None:
    words = reason_of(IdentityRefused(reason, "the detail"), caller="web")
    assert happened in words.happened
    assert todo in words.todo
    assert "{" not in words.happened + words.todo


@pytest.mark.parametrize("reason", ["alert_expired", "alert_no_certificate", "alert_unknown_ca", "alert_whatever"])
def test_an_alert_says_that_the_other_end_judged_us(reason: str) -> None:
    assert "refused our certificate" in reason_of(PeerIdentityMismatch(reason, "d")).happened


def test_a_version_is_missing_at_either_end() -> None:
    assert "TLS 1.3" in reason_of(PeerIdentityMismatch("alert_protocol_version", "d")).happened


def test_facts_fill_the_sentence_and_unknown_ones_become_words() -> None:
    words = reason_of(
        PeerIdentityMismatch("other_identity", "it is cart."), upstream="orders", endpoint="10.0.0.1:17443"
    )
    assert words.happened == "orders proved an identity, but not the one declared for it: it is cart."
    assert words.todo.endswith("really listens at 10.0.0.1:17443.")
    assert reason_for("response_timeout").happened == (
        "The upstream did not begin its answer in time: no detail was kept."
    )
    assert reason_of(AmbiguousPath("a {brace}")).happened.endswith("asked: a {brace}.")
    assert reason_of(DownstreamIdle()).happened.endswith("idle time: nothing moved on this hop for the idle time.")
    assert reason_of(IdentityRefused("never heard of it"), caller="").happened.startswith("The caller did not prove")


def test_a_limit_is_told_with_the_key_that_sets_it_and_its_value() -> None:
    text = "trust_domain: demo.mesh\nservices:\n  orders: {timeouts: {response_head: 1500ms}, limits: {pool: 7}}\n"
    facts = limits_of(load_text(text).services["orders"])
    assert set(facts) == set(LIMITS)
    assert facts["response_head"] == "`services.orders.timeouts.response_head` (now 1500ms)"
    assert facts["pool"] == "`services.orders.limits.pool` (now 7)"
    assert facts["head_bytes"] == "`services.orders.limits.head_bytes` (now 32KiB)"
    assert reason_for("response_timeout", **facts).todo.endswith(facts["response_head"] + ".")
    assert reason_for("response_timeout").todo.endswith("raise `timeouts.response_head`.")


def test_an_unknown_name_still_gets_an_answer() -> None:
    assert reason_for("new", detail="x") == Reason(
        "The hop failed: x.", "Look at the detail and at the log around that moment."
    )
    assert reason_for("internal").to_json()["todo"].startswith("Please report")


def test_finer_names_lead_to_words_that_exist() -> None:
    assert set(SAME.values()) <= set(IDENTITY)
    assert not PROFILE & (set(IDENTITY) | set(SAME))

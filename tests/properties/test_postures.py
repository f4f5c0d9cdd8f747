"""A posture changes what is done about a verdict, never the verdict: strict, observe and permissive side by side."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from certs.spiffe import SpiffeId
from sidecar.config.load import load_text
from sidecar.config.posture import show_moment
from sidecar.hop import Hop
from sidecar.net.memory import MemoryClock
from sidecar.telemetry.record import Recorder
from tests.kit.admission import WALL, Admission
from tests.kit.hops import MALLORY, WEB

UNTIL = show_moment(WALL + 3600.0)
PATHS = ("/", "/a", "/a/b", "/a/%2e%2e/b", "/secret", "/secret/x", "/only/web")
METHODS = ("GET", "POST", "DELETE", "PURGE", "CONNECT")
CALLERS = ('web', 'mallory', '"*"', '"**"', "spiffe://demo.mesh/ns/*/sa/web")

TEMPLATES = ("/**", "/a", "/a/{id}", "/secret/**", "/only/web")

rule = st.builds(
    '{{name: r{}, from: {}, method: {}, path: "{}", shadow: {}}}'.format,
    st.integers(0, 10**9), st.sampled_from(CALLERS), st.sampled_from(METHODS[:4]), st.sampled_from(TEMPLATES),
    st.sampled_from(("true", "false")),
)  # fmt: skip
rules = st.lists(rule, max_size=4, unique_by=lambda text: text.split(",")[0])


def sidecar(allow: list[str], deny: list[str]) -> Admission:
    """One service with the same rules behind a listener of each posture."""
    text = f"""
trust_domain: demo.mesh
services:
  web: {{}}
  mallory: {{}}
  orders:
    inbound:
      - {{name: strict, port: 1, app: "127.0.0.1:9"}}
      - {{name: observe, port: 2, app: "127.0.0.1:9", posture: observe, until: {UNTIL}}}
      - {{name: permissive, port: 3, app: "127.0.0.1:9", posture: permissive, until: {UNTIL}}}
      - {{name: over, port: 4, app: "127.0.0.1:9", posture: observe, until: {show_moment(WALL)}}}
    allow: [{", ".join(allow)}]
    deny: [{", ".join(each.replace("name: r", "name: d") for each in deny)}]
"""
    recorder = Recorder(instance="0a0b0c0d", clock=MemoryClock(wall=WALL))
    return Admission(load_text(text, now=WALL).services["orders"], recorder)


def outcome(hop: Hop) -> Any:
    """What was decided: by which rule, and the refusal if it was one."""
    return hop.rule, hop.error and (hop.error.name, hop.error.detail), hop.route, hop.shadow


@given(rules, rules, st.sampled_from((WEB, MALLORY)), st.sampled_from(METHODS), st.sampled_from(PATHS))
def test_observe_lets_pass_exactly_what_strict_refuses_by_a_rule_and_says_so(
    allow: list[str], deny: list[str], peer: SpiffeId, method: str, path: str
) -> None:
    asked = sidecar(allow, deny)
    target = "orders:80" if method == "CONNECT" else path
    raw = f"{method} {target} HTTP/1.1\r\nHost: {'orders:80' if method == 'CONNECT' else 'orders'}\r\n\r\n".encode()
    strict, observe, permissive, over = (
        asked.request(raw, peer, name) for name in ("strict", "observe", "permissive", "over")
    )
    assert outcome(permissive) == outcome(over) == outcome(strict)
    assert (permissive.waived, over.waived, strict.waived) == (None, None, None)
    if strict.error is not None and strict.error.name == "policy_denied":
        assert observe.waived is not None
        assert (observe.waived.error, observe.waived.flag) == (strict.error.name, strict.error.flag)
        assert (observe.waived.rule, observe.waived.detail) == (strict.rule, strict.error.detail)
        assert observe.rule == "posture:observe"
        assert observe.shadow == strict.shadow
        assert observe.error is None or observe.error.name == "unsupported"  # CONNECT, which no rule can let pass
    else:
        assert outcome(observe) == outcome(strict)
        assert observe.waived is None


@given(rules, rules, st.sampled_from(METHODS[:4]), st.sampled_from(PATHS))
def test_without_tls_nothing_is_refused_by_the_rules_but_what_they_refuse_to_everybody(
    allow: list[str], deny: list[str], method: str, path: str
) -> None:
    raw = f"{method} {path} HTTP/1.1\r\nHost: orders\r\n\r\n".encode()
    asked = sidecar(allow, deny)
    hop = asked.request(raw, None, "permissive")
    everybody = sidecar([], [each for each in deny if 'from: "**"' in each]).request(raw, WEB, "strict")
    if everybody.rule or (everybody.error is not None and everybody.error.name != "policy_denied"):
        assert outcome(hop)[:2] == outcome(everybody)[:2]
        assert hop.waived is None
    else:
        assert hop.error is None
        assert hop.waived is not None
        assert (hop.waived.error, hop.waived.reason) == ("identity_refused", "plaintext")
        assert hop.rule == "posture:permissive"
    for name in ("strict", "observe", "over"):
        side = asked.inbound(name)
        assert not side.lets_plaintext_in(WALL)

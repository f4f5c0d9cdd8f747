"""What stands behind each code of `mesh check`: why it matters and how to mend it. docs/lint.md is printed from here.

A code never changes its meaning and is never used again for another. Each has a config that shows it, and that config
mended; a test reads both. Up to MESH019 a config is refused, from MESH020 on it loads with a warning,
but for a few (`_REFUSED`).
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar.config.codes_amounts import AMOUNTS
from sidecar.config.codes_audit import AUDIT
from sidecar.config.codes_bypass import BYPASS
from sidecar.config.codes_conditions import CONDITIONS
from sidecar.config.codes_contract import CONTRACT
from sidecar.config.codes_detectors import DETECTORS
from sidecar.config.codes_discovery import DISCOVERY
from sidecar.config.codes_edges import EDGES
from sidecar.config.codes_egress import EGRESS
from sidecar.config.codes_examples import HTTP, TCP, rules, services
from sidecar.config.codes_foreign import FOREIGN
from sidecar.config.codes_inert import INERT
from sidecar.config.codes_limits import LIMITS
from sidecar.config.codes_redirect import REDIRECT
from sidecar.config.codes_routes import ROUTES
from sidecar.config.codes_time import TIMES
from sidecar.config.codes_tokens import TOKENS
from sidecar.config.codes_upstreams import UPSTREAMS

_REFUSED: Final = frozenset((
    "MESH164", "MESH165", "MESH166", "MESH182", "MESH183", "MESH184", "MESH185",
))  # contracts and exports of the audit; beside those up to MESH019
HEAD: Final = "trust_domain: demo.mesh\n"
EXAMPLES_AT: Final = 1_767_614_400.0  # 2026-01-05T12:00:00Z: when the examples with a date are read


@dataclass(frozen=True, slots=True)
class Code:
    """One thing that `mesh check` finds. `wrong` and `right` are configs without their first line, `HEAD`."""

    code: str
    title: str
    why: str
    fix: str
    wrong: str
    right: str

    @property
    def refuses(self) -> bool:
        """Whether a config with this is not loaded."""
        return self.code < "MESH020" or self.code in _REFUSED

    def to_json(self) -> dict[str, Any]:
        """The code as data."""
        severity = "mistake" if self.refuses else "warning"
        return {"code": self.code, "severity": severity, "title": self.title, "why": self.why, "fix": self.fix,
                "wrong": self.wrong, "right": self.right}  # fmt: skip

    def render(self) -> str:
        """The code for a terminal."""
        severity = "refused" if self.refuses else "warning"
        paragraphs = (textwrap.fill(text, 100) for text in (f"Why: {self.why}", f"To do: {self.fix}"))
        wrong, right = (textwrap.indent(text, "    ") for text in (self.wrong, self.right))
        why, fix = paragraphs
        return f"{self.code}: {self.title} ({severity})\n\n{why}\n{fix}\n\nWrong:\n{wrong}\nRight:\n{right}"


def _code(code: str, title: str, why: str, fix: str, wrong: str, right: str) -> tuple[str, Code]:
    return code, Code(code, title, why, fix, textwrap.dedent(wrong).lstrip("\n"), textwrap.dedent(right).lstrip("\n"))


_GROUPS: Final = (
    INERT, UPSTREAMS, TIMES, DISCOVERY, ROUTES, LIMITS, AMOUNTS, FOREIGN, REDIRECT, BYPASS, EDGES, TOKENS, CONDITIONS,
    DETECTORS, EGRESS, CONTRACT, AUDIT,
)  # fmt: skip
CODES: Final[Mapping[str, Code]] = dict((
    _code(
        "MESH001", "text that is no config",
        "YAML that cannot be read, a key that nobody knows or a value of the wrong kind: what was meant is anybody's "
        "guess, and a guess is no policy.",
        "Follow the hint at the place. docs/config.md has every key; `mesh schema` gives editors the same.",
        "services: {web: {inbund: []}}\n", "services: {web: {inbound: []}}\n",
    ),
    _code(
        "MESH002", "a name that leads nowhere",
        "An upstream, a listener or a rule names something that this file does not have.",
        "Correct the name; a service outside this file needs `identity` and `endpoints`.",
        "services: {web: {outbound: [{to: ordrs, listen: '127.0.0.1:9001'}]}}\n",
        "services: {web: {outbound: [{to: ordrs, listen: '127.0.0.1:9001', identity: ordrs, "
        "endpoints: '192.0.2.1:17443'}]}}\n",
    ),
    _code(
        "MESH009", "a PROXY header before HTTP",
        "The header names one caller for a whole connection, and a connection to an HTTP application carries the "
        "requests of many.",
        "Declare the listener `protocol: tcp`; or let the application read `x-forwarded-client-cert`, which is set "
        "for each request.",
        *services(
            "inbound: [{app: '127.0.0.1:8080', app_proxy_protocol: v2}]\nallow: [{from: web}]",
            "inbound: [{app: '127.0.0.1:5432', protocol: tcp, app_proxy_protocol: v2}]\nallow: [{from: web}]",
        ),
    ),
    _code(
        "MESH010", "the same name twice",
        "Logs, metrics, `mesh explain` and the way from one to the other rest on unique names.",
        "Rename one of the two.",
        *rules("allow: [{name: a, from: web}, {name: a, from: cart}]", "allow: [{name: a, from: [web, cart]}]"),
    ),
    _code(
        "MESH011", "an identity of another trust domain",
        "A CA vouches for its own trust domain alone, so this sidecar would never get a certificate.",
        "Remove `identity`, or use the file of that other mesh.",
        "services: {web: {identity: 'spiffe://far.mesh/ns/default/sa/web'}}\n", "services: {web: {}}\n",
    ),
    _code(
        "MESH012", "plaintext that would leave the machine",
        "Between sidecar and application nothing is encrypted and nobody is asked who he is; on loopback alone that "
        "is safe.",
        "Let the application listen on 127.0.0.1 and write that address.",
        *services("inbound: [{app: '192.0.2.7:8080'}]\nallow: [{from: web}]", HTTP),
    ),
    _code(
        "MESH013", "two that want one port",
        "The second one could not start, or would get what is meant for the first.",
        "Give one of them another port, or leave `port` out: free ones are handed out.",
        *services("inbound: [{port: 8080, app: '127.0.0.1:8080'}]\nallow: [{from: web}]", HTTP),
    ),
    _code(
        "MESH014", "HTTP settings on a tcp listener",
        "Raw bytes have no paths and no headers, so these would silently protect nothing.",
        "Declare the listener `protocol: http`, or remove them.",
        *services(
            "inbound: [{app: '127.0.0.1:5432', protocol: tcp, routes: [{path: /, max_body: 1KiB}]}]\n"
            "allow: [{from: web}]",
            TCP,
        ),
    ),
    _code(
        "MESH015", "credentials in the access log",
        "Logs travel further than requests do; whoever reads them could act as the caller.",
        "Remove the header. The caller's identity is in every line already.",
        *services(HTTP + "access_log: {headers: [authorization]}", HTTP),
    ),
    _code(
        "MESH016", "an HTTP rule where everything is tcp",
        "A rule with `method`, `path`, `host` or `headers` never matches raw TCP: as an allow it lets nobody in, as a "
        "deny it stops nobody.",
        "Remove the field, or declare the listener `protocol: http`.",
        *services("inbound: [{app: '127.0.0.1:5432', protocol: tcp}]\nallow: [{from: web, method: GET}]", TCP),
    ),
    _code(
        "MESH017", "a rule about a header of the mesh's own",
        "Headers `mesh-*` are taken off every request and set anew, so the rule would judge what it never gets.",
        "Name the caller in `from`.",
        *rules("allow: [{from: web, headers: {mesh-caller: web}}]", "allow: [{from: web}]"),
    ),
    _code(
        "MESH018", "a weaker posture without an end",
        "`permissive` lets callers in that prove nothing, and `observe` refuses nobody by a rule. Both are for a "
        "migration, and what is not ended by itself is forgotten.",
        "Add `until` with a day at most 14 days ahead, or make the listener strict again.",
        *services("inbound: [{app: '127.0.0.1:8080', posture: permissive}]\nallow: [{from: web}]", HTTP),
    ),
    _code(
        "MESH019", "a weaker posture for more than 14 days",
        "So long a time is no migration step any more. Who needs longer says so again, every 14 days at the latest.",
        "Bring `until` nearer; the hint has the latest that is accepted at this moment.",
        *services(
            "inbound: [{app: '127.0.0.1:8080', posture: observe, until: 2026-02-01}]\nallow: [{from: web}]", HTTP
        ),
    ),
    _code(
        "MESH020", "a service that nobody may call",
        "What no rule allows is refused, and a `shadow` rule allows nothing.",
        "Add an allow rule, or remove the listener.",
        *services("inbound: [{app: '127.0.0.1:8080'}]", HTTP),
    ),
    _code(
        "MESH021", "rules without a listener",
        "Rules are asked about calls that come in, and none can.",
        "Add `inbound`, or remove the rules.",
        "services: {web: {allow: [{from: web}]}}\n", "services: {web: {}}\n",
    ),
    _code(
        "MESH022", "an upstream that will refuse",
        "Every call would end in a 403 of the other side.",
        "Add a rule for this caller on the called service, or remove the upstream.",
        *rules("allow: [{from: cart}]", "allow: [{from: [cart, web]}]"),
    ),
    _code(
        "MESH023", "a caller that this file does not know",
        "It may live elsewhere, or be a slip that lets nobody in.",
        "Correct the name. For a service that another file declares, the warning may stand.",
        *rules("allow: [{from: [web, crat]}]", "allow: [{from: [web, cart]}]"),
    ),
    _code(
        "MESH024", "an unusual method",
        "Methods are compared letter by letter; one that nobody sends matches nothing.",
        "Correct the spelling.",
        *rules("allow: [{from: web, method: GTE}]", "allow: [{from: web, method: GET}]"),
    ),
    _code(
        "MESH025", "an HTTP rule on a service with tcp listeners, too",
        "The rule speaks for the HTTP listeners only; readers may think that it holds for all.",
        "Name the listener with `port`.",
        "services:\n  web: {outbound: [{to: orders, port: http, listen: '127.0.0.1:9001'}]}\n"
        "  orders:\n    inbound: [{app: '127.0.0.1:8080'}, {app: '127.0.0.1:5432', protocol: tcp}]\n"
        "    allow: [{from: web, method: GET}]\n",
        "services:\n  web: {outbound: [{to: orders, port: http, listen: '127.0.0.1:9001'}]}\n"
        "  orders:\n    inbound: [{app: '127.0.0.1:8080'}, {app: '127.0.0.1:5432', protocol: tcp}]\n"
        "    allow: [{from: web, method: GET, port: http}]\n",
    ),
    *(_code(*each) for group in _GROUPS for each in group),
))  # fmt: skip


def lint_markdown() -> str:
    """docs/lint.md: every code for people."""
    lines = [
        "# What `mesh check` finds",
        "",
        "Printed by `mesh check --codes > docs/lint.md` from the code that explains; a test says that it is current.",
        "`mesh check --explain CODE` says the same on a terminal. A code never changes its meaning.",
        "",
        "What is *refused* keeps a config from loading, at the start as at a reload; a *warning* does not. Claims",
        "about rules and routes are proved: that a rule never decides means that no request exists that it decides.",
        "Examples with a date are read on 2026-01-05.",
        "",
        "| code | | what |",
        "|---|---|---|",
    ]
    for code in CODES.values():
        anchor = f"[{code.code}](#{code.code.lower()})"
        lines.append(f"| {anchor} | {'refused' if code.refuses else 'warning'} | {code.title} |")
    for code in CODES.values():
        lines += ["", f"## {code.code}", "", f"**{code.title[0].upper()}{code.title[1:]}.** {code.why}", "", code.fix]
        for word, text in (("wrong", code.wrong), ("right", code.right)):
            lines += ["", f"```yaml\n# {word}\n{HEAD}{text}```"]
    return "\n".join(lines) + "\n"

"""What stands behind each code of `mesh check`: why it matters and how to mend it. docs/lint.md is printed from here.

A code never changes its meaning and is never used again for another. Each has a config that shows it, and that config
mended; a test reads both. Up to MESH019 a config is refused, from MESH020 on it loads with a warning.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar.config.codes_amounts import AMOUNTS
from sidecar.config.codes_discovery import DISCOVERY
from sidecar.config.codes_foreign import FOREIGN
from sidecar.config.codes_limits import LIMITS
from sidecar.config.codes_routes import ROUTES
from sidecar.config.codes_time import TIMES
from sidecar.config.codes_upstreams import UPSTREAMS

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
        return self.code < "MESH020"

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


def _services(wrong: str, right: str) -> tuple[str, str]:
    """Two configs that differ in the block of one service, `orders`, which `web` and `cart` call."""
    others = "  web: {outbound: [{to: orders, listen: '127.0.0.1:9001'}]}\n  cart: {}\n"
    made = [f"services:\n{others}  orders:\n{textwrap.indent(textwrap.dedent(text), '    ').strip(chr(10))}\n"
            for text in (wrong, right)]  # fmt: skip
    return made[0], made[1]


def _rules(wrong: str, right: str) -> tuple[str, str]:
    """The same, in the rules of an HTTP service."""
    http = "inbound: [{app: '127.0.0.1:8080'}]\n"
    return _services(http + textwrap.dedent(wrong).lstrip("\n"), http + textwrap.dedent(right).lstrip("\n"))


_HTTP: Final = "inbound: [{app: '127.0.0.1:8080'}]\nallow: [{from: web}]\n"
_TCP: Final = "inbound: [{app: '127.0.0.1:5432', protocol: tcp}]\nallow: [{from: web}]\n"

_MODE: Final = (
    "services:\n  web: {outbound: [{to: orders, listen: %s%s}]}\n"
    "  orders: {inbound: [{app: '127.0.0.1:8080'}], allow: [{from: web}]}\n"
)

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
        *_services(
            "inbound: [{app: '127.0.0.1:8080', app_proxy_protocol: v2}]\nallow: [{from: web}]",
            "inbound: [{app: '127.0.0.1:5432', protocol: tcp, app_proxy_protocol: v2}]\nallow: [{from: web}]",
        ),
    ),
    _code(
        "MESH010", "the same name twice",
        "Logs, metrics, `mesh explain` and the way from one to the other rest on unique names.",
        "Rename one of the two.",
        *_rules("allow: [{name: a, from: web}, {name: a, from: cart}]", "allow: [{name: a, from: [web, cart]}]"),
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
        *_services("inbound: [{app: '192.0.2.7:8080'}]\nallow: [{from: web}]", _HTTP),
    ),
    _code(
        "MESH013", "two that want one port",
        "The second one could not start, or would get what is meant for the first.",
        "Give one of them another port, or leave `port` out: free ones are handed out.",
        *_services("inbound: [{port: 8080, app: '127.0.0.1:8080'}]\nallow: [{from: web}]", _HTTP),
    ),
    _code(
        "MESH014", "HTTP settings on a tcp listener",
        "Raw bytes have no paths and no headers, so these would silently protect nothing.",
        "Declare the listener `protocol: http`, or remove them.",
        *_services(
            "inbound: [{app: '127.0.0.1:5432', protocol: tcp, routes: [{path: /, max_body: 1KiB}]}]\n"
            "allow: [{from: web}]",
            _TCP,
        ),
    ),
    _code(
        "MESH015", "credentials in the access log",
        "Logs travel further than requests do; whoever reads them could act as the caller.",
        "Remove the header. The caller's identity is in every line already.",
        *_services(_HTTP + "access_log: {headers: [authorization]}", _HTTP),
    ),
    _code(
        "MESH016", "an HTTP rule where everything is tcp",
        "A rule with `method`, `path`, `host` or `headers` never matches raw TCP: as an allow it lets nobody in, as a "
        "deny it stops nobody.",
        "Remove the field, or declare the listener `protocol: http`.",
        *_services("inbound: [{app: '127.0.0.1:5432', protocol: tcp}]\nallow: [{from: web, method: GET}]", _TCP),
    ),
    _code(
        "MESH017", "a rule about a header of the mesh's own",
        "Headers `mesh-*` are taken off every request and set anew, so the rule would judge what it never gets.",
        "Name the caller in `from`.",
        *_rules("allow: [{from: web, headers: {mesh-caller: web}}]", "allow: [{from: web}]"),
    ),
    _code(
        "MESH018", "a weaker posture without an end",
        "`permissive` lets callers in that prove nothing, and `observe` refuses nobody by a rule. Both are for a "
        "migration, and what is not ended by itself is forgotten.",
        "Add `until` with a day at most 14 days ahead, or make the listener strict again.",
        *_services("inbound: [{app: '127.0.0.1:8080', posture: permissive}]\nallow: [{from: web}]", _HTTP),
    ),
    _code(
        "MESH019", "a weaker posture for more than 14 days",
        "So long a time is no migration step any more. Who needs longer says so again, every 14 days at the latest.",
        "Bring `until` nearer; the hint has the latest that is accepted at this moment.",
        *_services(
            "inbound: [{app: '127.0.0.1:8080', posture: observe, until: 2026-02-01}]\nallow: [{from: web}]", _HTTP
        ),
    ),
    _code(
        "MESH020", "a service that nobody may call",
        "What no rule allows is refused, and a `shadow` rule allows nothing.",
        "Add an allow rule, or remove the listener.",
        *_services("inbound: [{app: '127.0.0.1:8080'}]", _HTTP),
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
        *_rules("allow: [{from: cart}]", "allow: [{from: [cart, web]}]"),
    ),
    _code(
        "MESH023", "a caller that this file does not know",
        "It may live elsewhere, or be a slip that lets nobody in.",
        "Correct the name. For a service that another file declares, the warning may stand.",
        *_rules("allow: [{from: [web, crat]}]", "allow: [{from: [web, cart]}]"),
    ),
    _code(
        "MESH024", "an unusual method",
        "Methods are compared letter by letter; one that nobody sends matches nothing.",
        "Correct the spelling.",
        *_rules("allow: [{from: web, method: GTE}]", "allow: [{from: web, method: GET}]"),
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
    _code(
        "MESH030", "an allow that a deny takes back whole",
        "Deny beats allow, so nothing that this rule describes ever gets through.",
        "Narrow the deny, or remove the allow.",
        *_rules(
            """
            allow:
              - {name: reports, from: web, method: GET, path: "/internal/reports/{id}"}
              - {name: shop, from: web, path: /orders}
            deny: [{name: no-internals, from: "**", path: /internal/**}]
            """,
            """
            allow:
              - {name: shop, from: web, path: /orders}
            deny: [{name: no-internals, from: "**", path: /internal/**}]
            """,
        ),
    ),
    _code(
        "MESH031", "a rule that never decides",
        "The first rule that matches decides and lends its name to log and metrics; an earlier one takes everything "
        "that this one could, so it never will.",
        "Remove it, or put it first if its name is wanted in the metrics.",
        *_rules(
            "allow: [{name: all, from: '*'}, {name: reads, from: web, method: GET}]",
            "allow: [{name: reads, from: web, method: GET}, {name: all, from: '*'}]",
        ),
    ),
    _code(
        "MESH032", "two rules that say the same",
        "Whoever changes one of them later will believe to have changed the policy.",
        "Remove one.",
        *_rules("allow: [{name: a, from: web}, {name: b, from: web}]", "allow: [{name: a, from: web}]"),
    ),
    _code(
        "MESH033", "a trial that cannot show anything",
        "A `shadow` rule is there to show what would change; a rule in force does all that it would do already.",
        "Remove it, or the one in force.",
        *_rules(
            "allow: [{name: all, from: '*'}, {name: soon, from: web, shadow: true}]",
            "allow: [{name: reads, from: '*', method: GET}, {name: soon, from: web, shadow: true}]",
        ),
    ),
    _code(
        "MESH034", "a path that no request can have",
        "Targets that can be read in two ways are refused before any rule is asked, so a rule about them never acts.",
        "Write the plain path, or give the route the `unsafe_…` option that accepts it (docs/protocols.md).",
        *_rules("allow: [{from: web, path: [/files, '/a%2Fb']}]", "allow: [{from: web, path: [/files, /a/b]}]"),
    ),
    _code(
        "MESH035", "a host that its callers never ask for",
        "A caller's sidecar writes the `host` of the upstream into every request, and none of them names this one.",
        "Correct `host`, or remove it: `from` and `port` say enough in most cases.",
        *_rules("allow: [{from: web, host: order.example}]", "allow: [{from: web, host: orders}]"),
    ),
    _code(
        "MESH037", "CONNECT in a rule",
        "CONNECT is for the forward proxy of the caller's own sidecar; coming from a peer it is refused after every "
        "rule.",
        "Remove it; for raw bytes use a listener with `protocol: tcp`.",
        *_rules("allow: [{from: web, method: [GET, CONNECT]}]", "allow: [{from: web, method: [GET]}]"),
    ),
    _code(
        "MESH038", "a value that adds nothing",
        "Another value of the same list includes it, so removing it later would change nothing, against all "
        "appearance.",
        "Remove it. Of two paths put the narrower one first if the metrics shall tell them apart.",
        *_rules("allow: [{from: [web, '*']}]", "allow: [{from: '*'}]"),
    ),
    _code(
        "MESH039", "a rule about x-forwarded-client-cert",
        "Rules see what the caller sent, and a caller may write anything there; the handshake is the proof of "
        "who calls.",
        "Name the caller in `from`.",
        *_rules(
            "allow: [{from: web, headers: {x-forwarded-client-cert: {present: true}}}]",
            "allow: [{from: web}]",
        ),
    ),
    _code(
        "MESH040", "a route that is never reached",
        "The first route that matches counts, and an earlier one takes every request of this one, whose limits "
        "never act.",
        "Put the narrower route first.",
        *_services(
            "inbound: [{app: '127.0.0.1:8080', routes: [{path: /**, max_body: 1MiB}, {path: /up, max_body: 1GiB}]}]\n"
            "allow: [{from: web}]",
            "inbound: [{app: '127.0.0.1:8080', routes: [{path: /up, max_body: 1GiB}, {path: /**, max_body: 1MiB}]}]\n"
            "allow: [{from: web}]",
        ),
    ),
    _code(
        "MESH041", "a route whose path no request can have",
        "Targets that can be read in two ways are refused unless their route accepts them.",
        "Write the plain path, or give this route the `unsafe_…` option that accepts it.",
        *_services(
            "inbound: [{app: '127.0.0.1:8080', routes: [{path: '/a%2Fb', max_body: 1MiB}]}]\nallow: [{from: web}]",
            "inbound:\n  - app: 127.0.0.1:8080\n"
            "    routes: [{path: '/a%2Fb', max_body: 1MiB, unsafe_encoded_slash: true}]\nallow: [{from: web}]",
        ),
    ),
    _code(
        "MESH050", "a time-out that never acts",
        "Nothing in this service is of the kind that the time-out is about; somebody may believe that it protects.",
        "Remove it, or set the one that is meant: `tcp_idle` for raw TCP, `idle` for HTTP.",
        *_services(_TCP + "timeouts: {idle: 1h}", _TCP + "timeouts: {tcp_idle: 1h}"),
    ),
    _code(
        "MESH051", "a pool that outlives its connections",
        "The other sidecar closes idle connections before we do; requests that meet such an end have to be sent again, "
        "or fail where that is not safe.",
        "Make `pool_idle_peer` shorter than the `keep_alive` of the called service.",
        *_services(_HTTP + "timeouts: {keep_alive: 30s}", _HTTP + "timeouts: {keep_alive: 90s}"),
    ),
    _code(
        "MESH052", "a lame duck that is shot",
        "`lame_duck` goes on letting requests in; with `drain: 0s` those that are still under way then are cut.",
        "Give `drain` the time that the longest requests take.",
        *_services(_HTTP + "timeouts: {lame_duck: 5s, drain: 0s}", _HTTP + "timeouts: {lame_duck: 5s, drain: 20s}"),
    ),
    _code(
        "MESH053", "a pool with more places than callers",
        "Each connection from downstream has one request under way, and fewer of them are let in than the pool has "
        "places: it is `connections` that limits, not this.",
        "Lower `pool`, or raise `connections`.",
        *_services(_HTTP + "limits: {connections: 100, pool: 200}", _HTTP + "limits: {connections: 200, pool: 100}"),
    ),
    _code(
        "MESH054", "more header lines than bytes",
        "The head is refused for its bytes before it can have so many lines.",
        "Lower `head_lines`, or raise `head_bytes`.",
        *_services(_HTTP + "limits: {head_bytes: 1KiB, head_lines: 500}", _HTTP + "limits: {head_lines: 500}"),
    ),
    _code(
        "MESH055", "access log settings that never act",
        "`off` writes nothing and `all` writes everything, whatever else is said.",
        "Remove them, or choose `mode: errors`.",
        *_services(_HTTP + "access_log: {mode: all, sample: 0.5}", _HTTP + "access_log: {mode: errors, sample: 0.5}"),
    ),
    _code(
        "MESH056", "an upstream that the application cannot reach",
        "It has no local address of its own and the service has no forward proxy, so there is no door to it.",
        "Add `listen: 127.0.0.1:PORT` to it, or `forward_proxy` to the service.",
        "services:\n  web: {outbound: [{to: orders}]}\n"
        "  orders: {inbound: [{app: '127.0.0.1:8080'}], allow: [{from: web}]}\n",
        "services:\n  web: {outbound: [{to: orders, listen: '127.0.0.1:9001'}]}\n"
        "  orders: {inbound: [{app: '127.0.0.1:8080'}], allow: [{from: web}]}\n",
    ),
    _code(
        "MESH057", "a forward proxy that leads nowhere",
        "What is not declared is refused, and nothing is declared.",
        "Add `outbound`, or remove `forward_proxy`.",
        "services: {web: {forward_proxy: '127.0.0.1:17080'}}\n", "services: {web: {}}\n",
    ),
    _code(
        "MESH058", "an environment without a command",
        "`env` is for the command under `run`; no sidecar setting is read from an environment.",
        "Add `run`, or remove `env`.",
        "services: {web: {env: {DEBUG: 'yes'}}}\n", "services: {web: {run: ./web, env: {DEBUG: 'yes'}}}\n",
    ),
    _code(
        "MESH059", "a limit at zero, or as good as",
        "It refuses ordinary work: a burst that would have waited a moment, or nearly every request head.",
        "Take the default, or a figure that was measured.",
        *_services(_HTTP + "limits: {pending: 0s}", _HTTP + "limits: {pending: 500ms}"),
    ),
    _code(
        "MESH060", "access log and audit in one file",
        "The audit is a record that tools read line by line; other lines between them break it.",
        "Give each its own file.",
        *_services(
            _HTTP + "access_log: {path: /var/log/mesh.log}\naudit: {path: /var/log/mesh.log}",
            _HTTP + "access_log: {path: /var/log/mesh.log}\naudit: {path: /var/log/mesh-audit.jsonl}",
        ),
    ),
    _code(
        "MESH061", "a weaker posture that has ended",
        "The day under `until` is past, so the listener is strict already, whatever its `posture` says.",
        "Remove both keys; or, if there are still callers that strict refuses, name a new day.",
        *_services(
            "inbound: [{app: '127.0.0.1:8080', posture: observe, until: 2026-01-05}]\nallow: [{from: web}]", _HTTP
        ),
    ),
    _code(
        "MESH062", "an end of nothing",
        "`until` ends a posture of `permissive` or `observe`. A strict listener is strict before that day and after.",
        "Remove `until`, or say which posture is meant.",
        *_services("inbound: [{app: '127.0.0.1:8080', until: 2026-01-12}]\nallow: [{from: web}]", _HTTP),
    ),
    _code(
        "MESH063", "a listener that is not strict",
        "Nothing is wrong with that for some days, but nobody should be able to overlook it.",
        "Look at `mesh status` and at `mesh_posture_would_refuse_total`; when nothing is counted any more that should "
        "pass, remove `posture` and `until`.",
        *_services(
            "inbound: [{app: '127.0.0.1:8080', posture: permissive, until: 2026-01-12}]\nallow: [{from: web}]", _HTTP
        ),
    ),
    _code(
        "MESH064", "detection where only HTTP may pass",
        "A rule, a route or a limit looks at HTTP. Passed as raw TCP, anything else would get around it, so it is "
        "refused; what `auto` adds is a wait for callers who say nothing.",
        "Declare the listener `protocol: http`.",
        *_services(
            "inbound: [{app: '127.0.0.1:8080', protocol: auto}]\nallow: [{from: web, path: /orders/**}]",
            "inbound: [{app: '127.0.0.1:8080'}]\nallow: [{from: web, path: /orders/**}]",
        ),
    ),
    _code(
        "MESH065", "a version of HTTP on raw TCP",
        "`app_http` and `upgrade` say by which version of HTTP to ask. Raw TCP has none.",
        "Remove the key, or declare `protocol: http`.",
        *_services(
            "inbound: [{app: '127.0.0.1:5432', protocol: tcp, app_http: http2}]\nallow: [{from: web}]", _TCP
        ),
    ),
    _code(
        "MESH066", "PROXY headers from anybody",
        "Whoever sends a PROXY header names the address that rules with `source` and logs go by. A network of all "
        "addresses lets every peer name its own.",
        "Name the addresses of the load balancers.",
        *_services(
            "inbound: [{app: '127.0.0.1:8080', proxy_protocol: {from: 0.0.0.0/0}}]\nallow: [{from: web}]",
            "inbound: [{app: '127.0.0.1:8080', bind: 0.0.0.0, proxy_protocol: {from: 10.0.0.7/32}}]\n"
            "allow: [{from: web}]",
        ),
    ),
    _code(
        "MESH067", "a mode without a socket",
        "`listen_mode` is about the file of a Unix socket. A TCP port has no such file.",
        "Remove it, or listen on a Unix socket.",
        _MODE % ("'127.0.0.1:9001'", ", listen_mode: group"),
        _MODE % ("'unix:/run/mesh/orders.sock'", ", listen_mode: group"),
    ),
    _code(
        "MESH068", "load balancers that cannot reach the listener",
        "The listener is bound to loopback, and `proxy_protocol.from` names other machines alone: no connection will "
        "ever come from there, so every PROXY header is refused.",
        "Bind an address that they reach, or name the loopback address of a load balancer on this machine.",
        *_services(
            "inbound: [{app: '127.0.0.1:8080', proxy_protocol: {from: 10.0.0.7/32}}]\nallow: [{from: web}]",
            "inbound: [{app: '127.0.0.1:8080', proxy_protocol: {from: 127.0.0.1/32}}]\nallow: [{from: web}]",
        ),
    ),
    _code(
        "MESH080", "a rate limit that nothing comes under",
        "Nobody may do what the limit is for, or it looks at HTTP where only raw TCP passes. Whoever wrote it relies "
        "on a limit that is not there.",
        "Compare `from`, `method`, `path` and `port` with the rules under `allow`.",
        *_rules(
            "allow: [{from: web, path: /orders}]\nrates: [{limit: 10/s, path: /refunds}]",
            "allow: [{from: web, path: /orders}]\nrates: [{limit: 10/s, path: /orders}]",
        ),
    ),
    _code(
        "MESH081", "a rate limit that another one leaves nothing to",
        "All limits hold at once. Another one comes for all that this one does, shared by as many callers or more, and "
        "is no higher: it refuses all that this one would.",
        "Lower this limit, raise the other, or remove one of them.",
        *_rules(
            "allow: [{from: [web, cart]}]\nrates: [{limit: 100/s}, {limit: 200/s, per: caller}]",
            "allow: [{from: [web, cart]}]\nrates: [{limit: 100/s}, {limit: 60/s, per: caller}]",
        ),
    ),
    _code(
        "MESH082", "a rate limit that callers can walk around",
        "Each value of the header, or of the claim, has an allowance of its own, and a caller may send what it likes: "
        "with another value each time it is never held. A token is not verified where limits are asked, so its claims "
        "are as good as a header.",
        "Put a limit with `per: caller` or `per: listener` beside it, which holds whoever invents values.",
        *_rules(
            "allow: [{from: web}]\nrates: [{limit: 10/s, per: header x-api-key}]",
            "allow: [{from: web}]\nrates: [{limit: 10/s, per: header x-api-key}, {limit: 50/s, per: caller}]",
        ),
    ),
    *(_code(*each) for group in (UPSTREAMS, TIMES, DISCOVERY, ROUTES, LIMITS, AMOUNTS, FOREIGN) for each in group),
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

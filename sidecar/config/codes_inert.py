"""The codes about what never acts: rules, routes, time-outs, limits (`sidecar.config.inert`, `overlap`, `cover`)."""

from __future__ import annotations

from typing import Final

from sidecar.config.codes_examples import HTTP, MODE, TCP, rules, services

# code, title, why, what to do, wrong, right
INERT: Final[tuple[tuple[str, str, str, str, str, str], ...]] = (
    (
        "MESH030", "an allow that a deny takes back whole",
        "Deny beats allow, so nothing that this rule describes ever gets through.",
        "Narrow the deny, or remove the allow.",
        *rules(
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
    (
        "MESH031", "a rule that never decides",
        "The first rule that matches decides and lends its name to log and metrics; an earlier one takes everything "
        "that this one could, so it never will.",
        "Remove it, or put it first if its name is wanted in the metrics.",
        *rules(
            "allow: [{name: all, from: '*'}, {name: reads, from: web, method: GET}]",
            "allow: [{name: reads, from: web, method: GET}, {name: all, from: '*'}]",
        ),
    ),
    (
        "MESH032", "two rules that say the same",
        "Whoever changes one of them later will believe to have changed the policy.",
        "Remove one.",
        *rules("allow: [{name: a, from: web}, {name: b, from: web}]", "allow: [{name: a, from: web}]"),
    ),
    (
        "MESH033", "a trial that cannot show anything",
        "A `shadow` rule is there to show what would change; a rule in force does all that it would do already.",
        "Remove it, or the one in force.",
        *rules(
            "allow: [{name: all, from: '*'}, {name: soon, from: web, shadow: true}]",
            "allow: [{name: reads, from: '*', method: GET}, {name: soon, from: web, shadow: true}]",
        ),
    ),
    (
        "MESH034", "a path that no request can have",
        "Targets that can be read in two ways are refused before any rule is asked, so a rule about them never acts.",
        "Write the plain path, or give the route the `unsafe_…` option that accepts it (docs/protocols.md).",
        *rules("allow: [{from: web, path: [/files, '/a%2Fb']}]", "allow: [{from: web, path: [/files, /a/b]}]"),
    ),
    (
        "MESH035", "a host that its callers never ask for",
        "A caller's sidecar writes the `host` of the upstream into every request, and none of them names this one.",
        "Correct `host`, or remove it: `from` and `port` say enough in most cases.",
        *rules("allow: [{from: web, host: order.example}]", "allow: [{from: web, host: orders}]"),
    ),
    (
        "MESH037", "CONNECT in a rule",
        "CONNECT is for the forward proxy of the caller's own sidecar; coming from a peer it is refused after every "
        "rule.",
        "Remove it; for raw bytes use a listener with `protocol: tcp`.",
        *rules("allow: [{from: web, method: [GET, CONNECT]}]", "allow: [{from: web, method: [GET]}]"),
    ),
    (
        "MESH038", "a value that adds nothing",
        "Another value of the same list includes it, so removing it later would change nothing, against all "
        "appearance.",
        "Remove it. Of two paths put the narrower one first if the metrics shall tell them apart.",
        *rules("allow: [{from: [web, '*']}]", "allow: [{from: '*'}]"),
    ),
    (
        "MESH039", "a rule about x-forwarded-client-cert",
        "Rules see what the caller sent, and a caller may write anything there; the handshake is the proof of "
        "who calls.",
        "Name the caller in `from`.",
        *rules(
            "allow: [{from: web, headers: {x-forwarded-client-cert: {present: true}}}]",
            "allow: [{from: web}]",
        ),
    ),
    (
        "MESH040", "a route that is never reached",
        "The first route that matches counts, and an earlier one takes every request of this one, whose limits "
        "never act.",
        "Put the narrower route first.",
        *services(
            "inbound: [{app: '127.0.0.1:8080', routes: [{path: /**, max_body: 1MiB}, {path: /up, max_body: 1GiB}]}]\n"
            "allow: [{from: web}]",
            "inbound: [{app: '127.0.0.1:8080', routes: [{path: /up, max_body: 1GiB}, {path: /**, max_body: 1MiB}]}]\n"
            "allow: [{from: web}]",
        ),
    ),
    (
        "MESH041", "a route whose path no request can have",
        "Targets that can be read in two ways are refused unless their route accepts them.",
        "Write the plain path, or give this route the `unsafe_…` option that accepts it.",
        *services(
            "inbound: [{app: '127.0.0.1:8080', routes: [{path: '/a%2Fb', max_body: 1MiB}]}]\nallow: [{from: web}]",
            "inbound:\n  - app: 127.0.0.1:8080\n"
            "    routes: [{path: '/a%2Fb', max_body: 1MiB, unsafe_encoded_slash: true}]\nallow: [{from: web}]",
        ),
    ),
    (
        "MESH050", "a time-out that never acts",
        "Nothing in this service is of the kind that the time-out is about; somebody may believe that it protects.",
        "Remove it, or set the one that is meant: `tcp_idle` for raw TCP, `idle` for HTTP.",
        *services(TCP + "timeouts: {idle: 1h}", TCP + "timeouts: {tcp_idle: 1h}"),
    ),
    (
        "MESH051", "a pool that outlives its connections",
        "The other sidecar closes idle connections before we do; requests that meet such an end have to be sent again, "
        "or fail where that is not safe.",
        "Make `pool_idle_peer` shorter than the `keep_alive` of the called service.",
        *services(HTTP + "timeouts: {keep_alive: 30s}", HTTP + "timeouts: {keep_alive: 90s}"),
    ),
    (
        "MESH052", "a lame duck that is shot",
        "`lame_duck` goes on letting requests in; with `drain: 0s` those that are still under way then are cut.",
        "Give `drain` the time that the longest requests take.",
        *services(HTTP + "timeouts: {lame_duck: 5s, drain: 0s}", HTTP + "timeouts: {lame_duck: 5s, drain: 20s}"),
    ),
    (
        "MESH053", "a pool with more places than callers",
        "Each connection from downstream has one request under way, and fewer of them are let in than the pool has "
        "places: it is `connections` that limits, not this.",
        "Lower `pool`, or raise `connections`.",
        *services(HTTP + "limits: {connections: 100, pool: 200}", HTTP + "limits: {connections: 200, pool: 100}"),
    ),
    (
        "MESH054", "more header lines than bytes",
        "The head is refused for its bytes before it can have so many lines.",
        "Lower `head_lines`, or raise `head_bytes`.",
        *services(HTTP + "limits: {head_bytes: 1KiB, head_lines: 500}", HTTP + "limits: {head_lines: 500}"),
    ),
    (
        "MESH055", "access log settings that never act",
        "`off` writes nothing and `all` writes everything, whatever else is said.",
        "Remove them, or choose `mode: errors`.",
        *services(HTTP + "access_log: {mode: all, sample: 0.5}", HTTP + "access_log: {mode: errors, sample: 0.5}"),
    ),
    (
        "MESH056", "an upstream that the application cannot reach",
        "It has no local address of its own and the service has no forward proxy, so there is no door to it.",
        "Add `listen: 127.0.0.1:PORT` to it, or `forward_proxy` to the service.",
        "services:\n  web: {outbound: [{to: orders}]}\n"
        "  orders: {inbound: [{app: '127.0.0.1:8080'}], allow: [{from: web}]}\n",
        "services:\n  web: {outbound: [{to: orders, listen: '127.0.0.1:9001'}]}\n"
        "  orders: {inbound: [{app: '127.0.0.1:8080'}], allow: [{from: web}]}\n",
    ),
    (
        "MESH057", "a forward proxy that leads nowhere",
        "What is not declared is refused, and nothing is declared.",
        "Add `outbound`, or remove `forward_proxy`.",
        "services: {web: {forward_proxy: '127.0.0.1:17080'}}\n", "services: {web: {}}\n",
    ),
    (
        "MESH058", "an environment without a command",
        "`env` is for the command under `run`; no sidecar setting is read from an environment.",
        "Add `run`, or remove `env`.",
        "services: {web: {env: {DEBUG: 'yes'}}}\n", "services: {web: {run: ./web, env: {DEBUG: 'yes'}}}\n",
    ),
    (
        "MESH059", "a limit at zero, or as good as",
        "It refuses ordinary work: a burst that would have waited a moment, or nearly every request head.",
        "Take the default, or a figure that was measured.",
        *services(HTTP + "limits: {pending: 0s}", HTTP + "limits: {pending: 500ms}"),
    ),
    (
        "MESH060", "access log and audit in one file",
        "The audit is a record that tools read line by line; other lines between them break it.",
        "Give each its own file.",
        *services(
            HTTP + "access_log: {path: /var/log/mesh.log}\naudit: {path: /var/log/mesh.log}",
            HTTP + "access_log: {path: /var/log/mesh.log}\naudit: {path: /var/log/mesh-audit.jsonl}",
        ),
    ),
    (
        "MESH061", "a weaker posture that has ended",
        "The day under `until` is past, so the listener is strict already, whatever its `posture` says.",
        "Remove both keys; or, if there are still callers that strict refuses, name a new day.",
        *services(
            "inbound: [{app: '127.0.0.1:8080', posture: observe, until: 2026-01-05}]\nallow: [{from: web}]", HTTP
        ),
    ),
    (
        "MESH062", "an end of nothing",
        "`until` ends a posture of `permissive` or `observe`. A strict listener is strict before that day and after.",
        "Remove `until`, or say which posture is meant.",
        *services("inbound: [{app: '127.0.0.1:8080', until: 2026-01-12}]\nallow: [{from: web}]", HTTP),
    ),
    (
        "MESH063", "a listener that is not strict",
        "Nothing is wrong with that for some days, but nobody should be able to overlook it.",
        "Look at `mesh status` and at `mesh_posture_would_refuse_total`; when nothing is counted any more that should "
        "pass, remove `posture` and `until`.",
        *services(
            "inbound: [{app: '127.0.0.1:8080', posture: permissive, until: 2026-01-12}]\nallow: [{from: web}]", HTTP
        ),
    ),
    (
        "MESH064", "detection where only HTTP may pass",
        "A rule, a route or a limit looks at HTTP. Passed as raw TCP, anything else would get around it, so it is "
        "refused; what `auto` adds is a wait for callers who say nothing.",
        "Declare the listener `protocol: http`.",
        *services(
            "inbound: [{app: '127.0.0.1:8080', protocol: auto}]\nallow: [{from: web, path: /orders/**}]",
            "inbound: [{app: '127.0.0.1:8080'}]\nallow: [{from: web, path: /orders/**}]",
        ),
    ),
    (
        "MESH065", "a version of HTTP on raw TCP",
        "`app_http` and `upgrade` say by which version of HTTP to ask. Raw TCP has none.",
        "Remove the key, or declare `protocol: http`.",
        *services(
            "inbound: [{app: '127.0.0.1:5432', protocol: tcp, app_http: http2}]\nallow: [{from: web}]", TCP
        ),
    ),
    (
        "MESH066", "PROXY headers from anybody",
        "Whoever sends a PROXY header names the address that rules with `source` and logs go by. A network of all "
        "addresses lets every peer name its own.",
        "Name the addresses of the load balancers.",
        *services(
            "inbound: [{app: '127.0.0.1:8080', proxy_protocol: {from: 0.0.0.0/0}}]\nallow: [{from: web}]",
            "inbound: [{app: '127.0.0.1:8080', bind: 0.0.0.0, proxy_protocol: {from: 10.0.0.7/32}}]\n"
            "allow: [{from: web}]",
        ),
    ),
    (
        "MESH067", "a mode without a socket",
        "`listen_mode` is about the file of a Unix socket. A TCP port has no such file.",
        "Remove it, or listen on a Unix socket.",
        MODE % ("'127.0.0.1:9001'", ", listen_mode: group"),
        MODE % ("'unix:/run/mesh/orders.sock'", ", listen_mode: group"),
    ),
    (
        "MESH068", "load balancers that cannot reach the listener",
        "The listener is bound to loopback, and `proxy_protocol.from` names other machines alone: no connection will "
        "ever come from there, so every PROXY header is refused.",
        "Bind an address that they reach, or name the loopback address of a load balancer on this machine.",
        *services(
            "inbound: [{app: '127.0.0.1:8080', proxy_protocol: {from: 10.0.0.7/32}}]\nallow: [{from: web}]",
            "inbound: [{app: '127.0.0.1:8080', proxy_protocol: {from: 127.0.0.1/32}}]\nallow: [{from: web}]",
        ),
    ),
    (
        "MESH080", "a rate limit that nothing comes under",
        "Nobody may do what the limit is for, or it looks at HTTP where only raw TCP passes. Whoever wrote it relies "
        "on a limit that is not there.",
        "Compare `from`, `method`, `path` and `port` with the rules under `allow`.",
        *rules(
            "allow: [{from: web, path: /orders}]\nrates: [{limit: 10/s, path: /refunds}]",
            "allow: [{from: web, path: /orders}]\nrates: [{limit: 10/s, path: /orders}]",
        ),
    ),
    (
        "MESH081", "a rate limit that another one leaves nothing to",
        "All limits hold at once. Another one comes for all that this one does, shared by as many callers or more, and "
        "is no higher: it refuses all that this one would.",
        "Lower this limit, raise the other, or remove one of them.",
        *rules(
            "allow: [{from: [web, cart]}]\nrates: [{limit: 100/s}, {limit: 200/s, per: caller}]",
            "allow: [{from: [web, cart]}]\nrates: [{limit: 100/s}, {limit: 60/s, per: caller}]",
        ),
    ),
    (
        "MESH082", "a rate limit that callers can walk around",
        "Each value of the header, or of the claim, has an allowance of its own, and a caller may send what it likes: "
        "with another value each time it is never held. A token is not verified where limits are asked, so its claims "
        "are as good as a header.",
        "Put a limit with `per: caller` or `per: listener` beside it, which holds whoever invents values.",
        *rules(
            "allow: [{from: web}]\nrates: [{limit: 10/s, per: header x-api-key}]",
            "allow: [{from: web}]\nrates: [{limit: 10/s, per: header x-api-key}, {limit: 50/s, per: caller}]",
        ),
    ),
)  # fmt: skip

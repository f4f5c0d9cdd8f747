"""Plain words for every failure: what happened, and what to do about it.

`HAPPENED` is keyed by the short name of an error (`sidecar.errors`); `finer` has words for some cases of one error,
`identities` for the reasons that a refused identity carries. Placeholders stand for facts of the hop; one that is not
known becomes a plain word (`words`).
These sentences are for operators, through `mesh explain` and the log. Nothing of them reaches a peer (decision D7).
"""

from __future__ import annotations

from typing import Any, Final

from sidecar.errors import HopError, IdentityRefused, PeerIdentityMismatch
from sidecar.policy.finer import finer
from sidecar.policy.identities import identity_reason
from sidecar.policy.words import LIMITS, Reason

UNKNOWN: Final = {  # what stands for a fact that is not known
    "detail": "no detail was kept",
    "caller": "the caller",
    "upstream": "the upstream",
    "endpoint": "its endpoint",
    "listener": "this listener",
    "host": "that host",
    "rule": "a rule",
}

HAPPENED: Final[dict[str, Reason]] = {
    "hop_error": Reason("The hop failed: {detail}.", "Look at the detail and at the log around that moment."),
    "protocol_violation": Reason(
        "What {caller} sent on {listener} is not HTTP, or can be read in two ways: {detail}.",
        "Mend the client: no rule can make this pass. If the port carries no HTTP at all, declare its listener "
        "`protocol: tcp`.",
    ),
    "undetected": Reason(
        "What {caller} sent on {listener} was not recognised as HTTP, and a rule or a route there looks at HTTP: "
        "passed as raw TCP it would get around them. {detail}.",
        "If it should be HTTP, mend the client. If the port carries another protocol too, give that one a listener of "
        "its own with `protocol: tcp`; a client that connects long before it speaks needs a longer `timeouts.detect`.",
    ),
    "abuse": Reason(
        "{caller} wastes the time of {listener} within the letter of HTTP/2, so its connection was ended: {detail}.",
        "Look at what that client does. A library that cancels or pings without measure is the usual cause; the other "
        "callers are not touched.",
    ),
    "ambiguous_path": Reason(
        "The request target can be read in more than one way, so it was refused before any rule was asked: {detail}.",
        "Let the client send the plain path, without dot segments, backslashes, escaped controls or double encoding. "
        "No option accepts this one, because two servers could take it for two different paths.",
    ),
    "host_mismatch": Reason(
        "The host is missing, repeated, malformed, or not the one in the request target: {detail}.",
        "Let the client send exactly one Host line, without trailing dot; an absolute URL must name the same host.",
    ),
    "head_too_large": Reason(
        "The head is larger than this sidecar accepts: {detail}.",
        "Send less (large cookies are the usual cause), or raise {head_bytes}.",
    ),
    "body_too_large": Reason(
        "The body is over the limit of its route: {detail}.",
        "Send less, or raise `max_body` of that route of {listener}; nothing over it has reached the application.",
    ),
    "unsupported_content_type": Reason(
        "The route does not accept a body of this content type: {detail}.",
        "Send one of these, or add this one to `content_types` of that route of {listener}.",
    ),
    "contract_broken": Reason(
        "The request is not what the contract says: {detail}.",
        "Correct the client, or the document that `inbound[].contract` of {listener} names.",
    ),
    "operation_unknown": Reason(
        "The contract has no such operation: {detail}.",
        "Add it to the document that `inbound[].contract` of {listener} names, or set `undocumented: pass` there.",
    ),
    "operation_gone": Reason(
        "The operation is no longer offered: {detail}.",
        "Let the client use its successor; `after_sunset` of the contract of {listener} lists who may take longer.",
    ),
    "answer_broken": Reason(
        "The application's answer is not what its contract says, so nothing of it was sent on: {detail}.",
        "Correct the application or the document; `mode: shadow` lets answers pass meanwhile, and counts them.",
    ),
    "unsupported": Reason(
        "The request asks for something that this hop does not do: {detail}.",
        "Ask for it in another way, or use a listener with `protocol: tcp`, which passes bytes as they are.",
    ),
    "request_timeout": Reason(
        "{caller} did not finish its request head in time: {detail}.",
        "Look for a slow or stuck client, or a lossy network; the limit is {request_head}.",
    ),
    "idle": Reason(
        "Nothing moved between {caller} and {listener} for the idle time: {detail}.",
        "Find out which side stopped. If such pauses are normal here, raise {idle}.",
    ),
    "too_slow": Reason(
        "{caller} sent its request body too slowly: {detail}.",
        "Look for a stuck client or a bad network. Time in which the application did not read does not count, nor do "
        "pauses of more than a few seconds. If it is meant to be so slow, lower {body_rate} or raise {slow}, or let it "
        "send chunks, between which it owes nothing.",
    ),
    "deadline_past": Reason(
        "The deadline that came with the request of {caller} has passed: {detail}.",
        "Find out where the time went: in the callers before, here, or in {upstream}. A `grpc-timeout` or "
        "`mesh-timeout` is set where the first request is made; a `mesh-deadline` is what is left of one, or of "
        "`timeouts.total` of a sidecar before this one. Set that longer, or make what is slow quicker.",
    ),
    "total_timeout": Reason(
        "The exchange took longer than the configuration gives it: {detail}.",
        "Look at what {upstream} was doing, and at the tries above. If such requests are as long, raise {total}, or "
        "`timeouts.total` of that upstream alone; upgrades, gRPC calls and event streams never come under it.",
    ),
    "try_timeout": Reason(
        "A try took longer than the configuration gives it, and there was no other: {detail}.",
        "Read below what became of each try and why there is no further one. If answers take that long, raise "
        "{per_try}.",
    ),
    "downstream_gone": Reason(
        "{caller} went away before the answer was complete: {detail}.",
        "Nothing on this side. If it happens often, compare the caller's own time-out with how long answers take.",
    ),
    "loop": Reason(
        "It would go round for ever: {detail}.",
        "Find the upstream that leads back here: an `endpoints` or `app` that names this sidecar instead of an "
        "application, or an application that sends requests on to its caller.",
    ),
    "identity_refused": Reason(
        "{caller} did not prove an identity that {listener} accepts: {detail}.",
        "Look at its certificate with `mesh certs verify`, and at its sidecar with `mesh status`.",
    ),
    "peer_identity": Reason(
        "{upstream} proved another identity than the one declared for it, or none that we trust: {detail}.",
        "Check `identity` of that upstream, and which sidecar really listens at {endpoint}.",
    ),
    "certificate_ended": Reason(
        "The connection was ended because the certificate it rested on was ending: {detail}.",
        "Nothing; connect again, with the new certificate. Where that is too often, give the entry a longer lifetime: "
        "`mesh ca entry add --ttl 7d`.",
    ),
    "token_ended": Reason(
        "The stream was ended because the bearer token that it was let in by has: {detail}.",
        "Nothing; begin another with a new token. Where that is too often, let the issuer give longer ones, or set "
        "`tokens: {{streams: stay}}` on {listener}.",
    ),
    "no_identity": Reason(
        "This sidecar has no valid certificate of its own at this moment: {detail}.",
        "Check this machine's clock, that the CA can be reached, and that the enrolment file is right: `mesh status`, "
        "then `mesh certs rotate`.",
    ),
    "policy_denied": Reason(
        "The rules of the called service refuse it: {detail}.",
        "Read below which rule decided or came nearest, and what would change the answer.",
    ),
    "ask_denied": Reason(
        "The rules of the called service permit it, and OPA, which is asked as well, does not: {detail}.",
        "Look at the decision log of that OPA, and at its policy; `mesh explain --from --to` shows what it is "
        "asked about such a request. With `mode: shadow` its answers are only counted.",
    ),
    "ask_silent": Reason(
        "The rules of the called service permit it, and OPA, which has to be asked as well, said neither yes nor no: "
        "{detail}.",
        "See that it runs and answers within `opa.timeout`, and that its policy defines that document for every input "
        "(`default allow := false`).",
    ),
    "egress_denied": Reason(
        "The application may call {upstream}, but not for this: {detail}.",
        "If it should, add method and path to `allow` of that upstream; the answer to the application had the line.",
    ),
    "private_address": Reason(
        "The name of a host outside leads to an address inside, and so it was not connected to: {detail}.",
        "Find out who says so of that name: it may be an attack (DNS rebinding). If the host is really there, name its "
        "network in `private` of {upstream}.",
    ),
    "token_unavailable": Reason(
        "{upstream} is called with a token of this sidecar's, and there is none: {detail}.",
        "See in the log what the token endpoint answers, and whether the client's secret is right; nothing was sent to "
        "{upstream}, and the sidecar tries again by itself.",
    ),
    "token_missing": Reason(
        "{caller} brought no token, and {listener} asks for one: {detail}.",
        "Let the client send `Authorization: Bearer TOKEN`, with a token of one of the issuers that `tokens` of "
        "{listener} names. Tokens in the query or in a cookie are not read. If requests may come without one, say "
        "`required: false`.",
    ),
    "scope_missing": Reason(
        "The token of the request does not allow it this: {detail}.",
        "Let the client ask the issuer for a token with that scope. If it should not need it, change `scopes` of the "
        "rule that is named.",
    ),
    "token_invalid": Reason(
        "The bearer token that {caller} brought cannot be believed: {detail}.",
        "Let the client get a new one for this audience. If the detail speaks of the issuer, audience, type or "
        "algorithm, compare the token with `issuers` and with `tokens` of {listener}.",
    ),
    "token_unverifiable": Reason(
        "Nobody could tell whether the bearer token of {caller} is good: {detail}.",
        "Look at `mesh status` and the sidecar's log for why the keys of that issuer cannot be fetched. Tokens that "
        "are signed by a key known before are taken meanwhile.",
    ),
    "rate_limited": Reason(
        "{caller} may do this, but not so often: it was {detail}.",
        "Let the client wait as `Retry-After` tells it. If it is right to ask so often, raise `limit` of that limit, "
        "or its `burst` where only the peaks are too high.",
    ),
    "quota_spent": Reason(
        "{caller} may do this, but has had its share of this hour, day or month: it was {detail}.",
        "Wait for the next window, or look at `mesh quota show`. If it needs more, raise `limit` of that quota, which "
        "acts at once; or give this window's again: `mesh quota reset`.",
    ),
    "tcp_limited": Reason(
        "{caller} may connect, but not so often, or not so many times at once: it was {detail}.",
        "Let the client keep its connections, or fewer of them. If it needs more, raise that number of the limit; what "
        "is open now shows `mesh limits` or GET /quotas on the admin socket.",
    ),
    "quota_unknown": Reason(
        "A quota of the called service could not be asked, so nobody can tell whether {caller} has any of it left: "
        "{detail}.",
        "Look at its sidecar's log for what is wrong with the file of quotas, or with Redis. Who was known before goes "
        "on to its limit meanwhile.",
    ),
    "throttled": Reason(
        "{caller} may do this, but not so often, and has more under way than can wait for its turn: it was {detail}.",
        "Let the client wait as `Retry-After` tells it. If it is right to ask so often, raise `limit`; if its peaks "
        "are to be waited out, `delay` or `waiting` of that limit.",
    ),
    "caller_blocked": Reason(
        "{caller} may do this, but a detector holds it for a time: {detail}.",
        "Look at `mesh detections` for what it did. If that was right, lift it there (`mesh detections unblock`), and "
        "raise the detector's number or name the caller under its `except`.",
    ),
    "limiter_away": Reason(
        "Nobody could say whether there is room for it: {detail}.",
        "Look at that Redis, and at `mesh limits`. With `when_away: local` each sidecar holds the limit by itself "
        "meanwhile.",
    ),
    "undeclared_upstream": Reason(
        "The application asked for {host}, which none of its upstreams declares: {detail}.",
        "If it should be reached, declare it in `outbound` of the calling service: `- to: NAME` for a service of the "
        "mesh, `- {{to: NAME, host: {host}, unmeshed: passthrough, endpoints: HOST:PORT}}` for a host outside.",
    ),
    "ambiguous_upstream": Reason(
        "The application connected to an address that says nothing of whom it means: {detail}.",
        "Let one upstream hold that address: `mesh check` names both where the file shows them, `mesh endpoints` what "
        "they have learned. The other can have a local address of its own with `listen`.",
    ),
    "undeclared_port": Reason(
        "Somebody connected from outside to a port that no inbound listener declares: {detail}.",
        "If peers should reach it, add `- {{port: PORT, app: '127.0.0.1:PORT'}}` to `inbound` of this service, and a "
        "rule. If it is for probes or metrics, leave the port out of the redirection (`mesh redirect install`).",
    ),
    "not_redirected": Reason(
        "Somebody connected to the capture port itself: {detail}.",
        "Connect to the service's own port; rules bring that here. If they should have done so already, look at "
        "`mesh redirect verify`.",
    ),
    "cross_site": Reason(
        "A web page of another site asked a browser on this machine to send it: {detail}.",
        "Call the service from your application and not from a web page; a local listener is no public site.",
    ),
    "fault_injected": Reason(
        "Nothing is broken, this was asked for in the configuration: {detail}.",
        "Remove `fault` from that route of {listener} when the trial is over; `mesh check` lists all in force.",
    ),
    "connect_failed": Reason(
        "No connection to {upstream}: {detail}.",
        "See on its side with `mesh status` whether its sidecar runs and listens at {endpoint}; then check the address "
        "in the config, then the firewall.",
    ),
    "handshake_failed": Reason(
        "The TLS handshake with {upstream} at {endpoint} failed: {detail}.",
        "Check that a mesh sidecar, not the application itself or another TLS server, listens at that address; if one "
        "does, its log says why.",
    ),
    "upstream_closed": Reason(
        "{upstream} closed the connection before it answered: {detail}.",
        "Look at its log for a crash or a restart at that moment.",
    ),
    "upstream_reset": Reason(
        "{upstream} reset the connection before it answered: {detail}.",
        "Look at its log for a crash or a restart at that moment.",
    ),
    "upstream_refused": Reason(
        "{upstream} said that it has not begun with the request: {detail}.",
        "Nothing, if it is being restarted; otherwise it is at its limit of streams: see its log.",
    ),
    "response_timeout": Reason(
        "{upstream} did not begin its answer in time: {detail}.",
        "Find out why it is slow; if such answers are normal, raise {response_head}.",
    ),
    "upstream_idle": Reason(
        "{upstream} stopped in the middle of its answer for the idle time: {detail}.",
        "Look at its log for where it got stuck; if it pauses that long on purpose, raise {idle}.",
    ),
    "upstream_protocol": Reason(
        "The answer of {upstream} is not valid HTTP: {detail}.",
        "Mend the service; nothing doubtful was passed on. If it does not speak HTTP, declare its listener "
        "`protocol: tcp`.",
    ),
    "no_endpoint": Reason(
        "No endpoint of {upstream} is known: {detail}.",
        "Give the upstream `endpoints`, or check the discovery that should supply them.",
    ),
    "no_route": Reason(
        "No upstream of {listener} serves what was asked for: {detail}.",
        "Check the host and path that the client sends against the upstreams of the service.",
    ),
    "overflow": Reason(
        "The pool to {upstream} stayed full for as long as a request may wait: {detail}.",
        "Find out first whether {upstream} has become slow (its p99 in the metrics). If the load is right, raise "
        "{pool} or {pending}.",
    ),
    "overload": Reason(
        "This sidecar has no room for more connections: {detail}.",
        "See in `mesh status` how many connections are open; raise the process's limits (`ulimit -n`, memory), or "
        "lower {connections}.",
    ),
    "too_many_streams": Reason(
        "{caller} asked for an upgrade or a tunnel, and there is no place for another: {detail}.",
        "See `streams` in `mesh status -o json`. If so many are right, raise the process's limit of descriptors "
        "(`ulimit -n`) with {connections}, or {streams}; if not, look for clients that open and forget them.",
    ),
    "draining": Reason(
        "This sidecar is shutting down: {detail}.",
        "Nothing, if it was stopped on purpose; callers should try again elsewhere.",
    ),
    "audit_full": Reason(
        "Nothing is served while nothing can be recorded: {detail}.",
        "Make room on the disk that holds the audit; until then every request is refused. `audit.on_full: continue` "
        "would serve them unrecorded.",
    ),
    "internal": Reason(
        "A fault of this sidecar itself: {detail}.",
        "Please report it, with the log lines around that moment.",
    ),
}


def reason_for(name: str, reason: str = "", **facts: Any) -> Reason:
    """Words for an error's short name; for identity failures its reason says more.

    `facts` fill the placeholders: detail, caller, upstream, endpoint, listener, host, rule, and what `limits_of` says.
    An unknown name gets the words of `hop_error`.
    """
    found = identity_reason(reason) if name in ("identity_refused", "peer_identity") else None
    found = found or finer(name, facts, HAPPENED) or HAPPENED.get(name) or HAPPENED["hop_error"]
    known = UNKNOWN | LIMITS | {key: str(value).rstrip(".") for key, value in facts.items() if value}
    if facts.get("listener"):
        known["listener"] = f"listener {facts['listener']}"
    known["detail"] = _inside(known["detail"])
    return Reason(_begin(found.happened.format_map(known)), _begin(found.todo.format_map(known)))


def reason_of(error: HopError, **facts: Any) -> Reason:
    """Words for an error at hand."""
    identity = error.reason if isinstance(error, IdentityRefused | PeerIdentityMismatch) else ""
    return reason_for(error.name, identity, **({"detail": error.detail} | facts))


def _begin(text: str) -> str:
    """A sentence begins with a capital, also where a placeholder stood first; a SPIFFE ID or a name stays as it is."""
    plain = (*UNKNOWN.values(), "the application ", "listener ")
    return text[:1].upper() + text[1:] if text.startswith(plain) else text


def _inside(text: str) -> str:
    """A whole sentence, as it stands after a colon: an article at its beginning needs no capital there."""
    return text[:1].lower() + text[1:] if text.startswith(("The ", "A ", "No ", "Nothing ", "This ")) else text

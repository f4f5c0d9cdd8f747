"""Finer words for one error, where the facts of the hop tell more than its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sidecar.policy.words import Reason

# (a word of its detail or of the upstream, what happened, what to do), the first that fits; where the middle is empty,
# what happened stands in `reasons.HAPPENED`.
FINER: Final[dict[str, tuple[tuple[str, str, str], ...]]] = {
    "ambiguous_path": tuple(
        (word, "", f"Let the client send the path without {what}. If the application needs it there, a route of "
         f"{{listener}} accepts it by `{option}: true`; be sure that no rule is meant to cut in between.")
        for word, what, option in (
            ("encoded slash", "%2F", "unsafe_encoded_slash"),
            ("`//`", "`//`", "unsafe_empty_segments"),
            ("`;`", "`;`", "unsafe_path_parameters"),
        )
    ),
    "head_too_large": (
        ("header lines", "", "Let the client send fewer header fields, or raise {head_lines}."),
    ),
    "unsupported": (
        ("https://", "", "Let the application speak plain HTTP to its sidecar: ask for http:// instead, the hop is "
         "mTLS all the same. TLS of its own passes through an upstream with `protocol: tcp`."),
        ("raw TCP", "", "Let the application connect to the `listen` address of that upstream, or CONNECT to it."),
        ("CONNECT", "", "Nothing is to be allowed here: only the caller's own sidecar answers CONNECT, on loopback."),
        ("Expect", "", "Let the client leave the Expect line out, or send `Expect: 100-continue`."),
        ("Transfer-Encoding", "", "Let the client send the body with Content-Length, or `chunked` alone."),
    ),
    "abuse": (
        ("not whole within", "{caller} began a connection or a request by HTTP/2 and did not go on: {detail}.",
         "Look for a stuck or overloaded client, or a lossy network; the limit is {request_head}."),
        ("window", "{caller} asked by HTTP/2 and left no room for the answer: {detail}.",
         "Look for a client that does not read what it asks for; the limit is {idle}."),
    ),
    "idle": (
        ("tcp_idle", "", "Find out which side stopped. If such pauses are normal here, raise {tcp_idle}."),
        ("does not read", "{caller} stopped reading its answer: {detail}.",
         "Look for a stuck or overloaded client; the limit is {idle}."),
    ),
    "too_slow": (
        ("takes its answer", "{caller} took its answer too slowly: {detail}.",
         "Look for a stuck or overloaded client. Time in which the application had nothing to send does not count. If "
         "it is meant to be so slow, lower {body_rate} or raise {slow}."),
    ),
    "no_identity": (
        ("revoked", "This sidecar's own certificate was revoked: {detail}.", "A certificate that was revoked by its "
         "serial is replaced within seconds, where the CA is in reach (`mesh status`). An identity stays revoked until "
         "`mesh certs unrevoke` on the CA's machine."),
    ),
    "undeclared_upstream": (
        ("redirect.passthrough", "The application connected to an address that none of its upstreams holds: {detail}.",
         "If it is a service of the mesh, name that address in `addresses` of its upstream. If it lies outside, "
         "declare an upstream with `unmeshed: passthrough`, or let plaintext go there with "
         "`redirect: {{passthrough: [ADDRESS:PORT]}}`."),
        ("this connection was made to", "The application connected to one upstream and asked there for {host}, which "
         "is no name of it: {detail}.", "Name that host in `addresses` of the upstream if it stands for the same one; "
         "otherwise let the application connect to the address of what it asks for."),
        ("an address of the upstream", "A plaintext connection that was let out was ended, because its address belongs "
         "to an upstream now: {detail}.", "Nothing; connect again, and it goes through the mesh."),
        ("this listener is for", "The application asked for {host} at a listener that leads elsewhere: {detail}.",
         "Ask this listener for its own upstream only. For {host}, use the forward proxy, or give it a listener: "
         "`- {{to: {host}, listen: HOST:PORT}}` in `outbound`."),
    ),
    "connect_failed": (
        ("the application behind", "", "Check that the application runs and listens at {endpoint}; then that `app` of "
         "{listener} names that address. If it is only slow to accept, the limit is {connect}."),
        ("did not answer", "", "See on its side with `mesh status` whether its sidecar runs and listens at {endpoint}; "
         "an address that swallows packets is often a firewall's doing. The limit is {connect}."),
    ),
    "handshake_failed": (
        ("no handshake within", "", "Check that a mesh sidecar, not the application itself, listens at that address; "
         "something took the connection and said nothing. The limit is {handshake}."),
    ),
}


def finer(name: str, facts: Mapping[str, Any], happened: Mapping[str, Reason]) -> Reason | None:
    """Words for this very case of an error, where there are some; `happened` has those of every case."""
    said = f"{facts.get('detail') or ''} {facts.get('upstream') or ''}"
    for word, special, todo in FINER.get(name, ()):
        if word in said:
            return Reason(special or happened[name].happened, todo)
    return None

"""Every metric, label and bucket of a sidecar, in one file; docs/metrics.md is printed from here.

Labels come from configuration or from a verified identity, never from bytes that a caller chose: a route is the path
template of a rule, not a path (S25). A closed label has few values, fixed by code or protocol; an open one (identities,
rule names) is replaced by `other` once its metric is full, see series.py.
"""

from __future__ import annotations

from typing import Literal

from sidecar.telemetry.series import Definition, Kind

# In seconds, in the spirit of Envoy's and Linkerd's: a mesh hop takes well under a millisecond, a stream minutes.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0)

LABELS: dict[str, tuple[Literal["closed", "open"], str]] = {
    "direction": ("closed", "`inbound` or `outbound`, seen from the application"),
    "source": ("open", "SPIFFE ID of the caller, verified inbound; `-` where none was proved"),
    "destination": ("open", "SPIFFE ID of the called: ourselves inbound, the declared upstream outbound"),
    "route": (
        "open", "path template of the rule that decided, or the name of the outbound route, from configuration; `-` "
        "where none",
    ),
    "to": ("open", "where a split has sent a request: an upstream, or an application's address, from configuration"),
    "kind": ("closed", "what a fault did: `delay` or `abort`"),
    "status_class": ("closed", "`1xx` to `5xx` as sent downstream; `-` on TCP and where nothing was sent"),
    "flag": (
        "closed", "failure flag in Envoy's letters plus PD, ID, SV, TH; `DI,` before it where a fault held the hop, "
        "`,URX` behind it where it was sent again as often as may be; `-` for none",
    ),
    "rule": ("open", "name of the rule that decided, from configuration; `-` where none did"),
    "error": ("closed", "short name of the error"),
    "effect": (
        "closed", "`permit` or `deny`: what the shadow rule would have done; of a contract, what was done",
    ),
    "operation": ("open", "`operationId` of the contract, from configuration; `-` for one that it does not have"),
    "part": ("closed", "what was outside of the contract: `request` or `answer`"),
    "listener": (
        "open", "inbound listener, or the upstream for outbound; `redirect.passthrough` for captured connections that "
        "leave in plaintext, `redirect` for those that mean nobody",
    ),
    "result": (
        "closed",
        "`ok` or `failed`; of a reload also `unchanged`; of a bearer token `ok`, `missing`, `unverifiable` for want of "
        "keys, or why it is not believed: `size`, `malformed`, `header`, `algorithm`, `unknown_key`, `ambiguous_key`, "
        "`signature`, `type`, `issuer`, `subject`, `expiry`, `expired`, `not_yet_valid`, `audience`, `bound`",
    ),
    "phase": ("closed", "of a drain: `lame_duck`, `inbound`, `outbound`"),
    "version": ("open", "TLS version agreed on; `-` where the handshake failed. Of `mesh_build_info`: ours"),
    "group": ("open", "key exchange group agreed on; `-` where the handshake failed"),
    "reason": (
        "open",
        "short, stable reason why a handshake failed; or of an early end: `certificate_end`, `certificate_quiet`, "
        "`token_end`, `policy`, `identity`, `revoked`, `removed`, `slow_body`, `slow_reader`; or of a refused "
        "connection: `connections`, `memory`, `peer`, `half_open`, `handshakes`; or of HTTP/2 that failed: `protocol`, "
        "or the name of a flood (docs/protocols.md); or of an HTTP/2 connection to an upstream: left by us as `full`, "
        "`idle`, `renewed`, `expired`, `revoked` or `retired`, by the other side as `goaway` or `closed`, or failed as "
        "`broken`, `alert`, `silent`, `protocol` or `fault`",
    ),
    "grpc_status": ("closed", "name of the status that the call ended with; `other` for one that gRPC does not know"),
    "protocol": ("closed", "what a connection was found to speak: `http1`, `http2` or `opaque`"),
    "by": ("closed", "how that was found: `alpn`, `bytes`, `timeout`, or `end`, where the caller said no more"),
    "posture": ("closed", "`strict`, `permissive` or `observe`"),
    "certificate": (
        "closed",
        "`svid`: this sidecar's own leaf; `issuer`: the issuing CA above it that ends first; `root`: the root above; "
        "`served`: the leaf that its own listeners showed it last",
    ),
    "metric": ("closed", "name of a metric of this list"),
    "what": (
        "closed",
        "`sent`, `renewed`, or why a request was not sent again: `elsewhere`, `pushed_back`, `tries`, `replay`, "
        "`deadline`, `ceiling`, `budget`",
    ),
    "detector": ("closed", "`stuffing`, `enumeration`, `spikes` or `new_edge`"),
    "action": ("closed", "`record`, `throttle` or `block`"),
    "limit": ("open", "name of a rate limit, a quota or a TCP limit, from configuration"),
    "per": ("closed", "who shares that limit: `listener`, `caller`, `endpoint`, `header` or `claim`"),
    "why": (
        "closed",
        "why Redis did not decide: `away` (no connection), `slow` (over `redis.within`), `error`, or `full` (too many "
        "wait for it)",
    ),
    "answer": (
        "closed",
        "what OPA said: `permit`, `deny`, or `silent`, neither of them; `cached_permit` and `cached_deny` where it had "
        "said so before",
    ),
    "export": ("open", "a receiver of the audit, by its kind and place"),
    "store": ("closed", "where quotas are counted: `file` in the state folder, or `redis`"),
    "issuer": ("open", "name of an issuer of tokens, from configuration; `-` for a token of nobody, or none"),
    "state": ("closed", "`available`, `unhealthy`, `ejected`, `open` or `half-open`"),
}
CLOSED = {label: kind == "closed" for label, (kind, _) in LABELS.items()}

HOP_LABELS = ("direction", "source", "destination", "route", "status_class", "flag")
HOP_CAP = 1000  # label sets of the five metrics of a hop, together
_LISTENER = ("direction", "listener")
_CERTIFICATE = ("certificate",)
_POSTURE = ("listener", "posture")


def _hop_metric(name: str, kind: Kind, doc: str) -> Definition:
    return Definition(name, kind, doc, HOP_LABELS, SECONDS if kind == "histogram" else (), HOP_CAP, expires=True)


HOP_METRICS: tuple[Definition, ...] = (
    _hop_metric("mesh_requests_total", "counter", "Hops that ended: HTTP requests, and TCP connections."),
    _hop_metric("mesh_request_first_byte_seconds", "histogram", "First byte of a request to first byte of its answer."),
    _hop_metric("mesh_request_duration_seconds", "histogram", "First byte of a request to the end of its hop."),
    _hop_metric("mesh_received_bytes_total", "counter", "Body or stream bytes from downstream."),
    _hop_metric("mesh_sent_bytes_total", "counter", "Body or stream bytes to downstream."),
)

DEFINITIONS: tuple[Definition, ...] = (
    Definition(
        "mesh_refusals_total",
        "counter",
        "Hops that this sidecar refused.",
        ("direction", "source", "destination", "rule", "flag", "error"),
        cap=1000,
        expires=True,
    ),
    Definition(
        "mesh_rate_limited_total",
        "counter",
        "Hops that were refused by a rate limit or a quota, by the one that has to be waited for longest.",
        ("listener", "source", "limit", "per"),
        cap=1000,
        expires=True,
    ),
    Definition(
        "mesh_detections_total",
        "counter",
        "What detectors found conspicuous, by caller and by what came of it.",
        ("source", "detector", "action"),
        cap=1000,
        expires=True,
    ),
    Definition("mesh_callers_held", "gauge", "Callers that detectors block, or hold to a rate, at this moment."),
    Definition(
        "mesh_rate_delayed_seconds",
        "histogram",
        "How long hops waited for their turn at a limit with `over: delay`, of those that had to.",
        ("limit",),
        SECONDS,
        cap=1000,
    ),
    Definition("mesh_asks_total", "counter", "Questions to OPA about requests.", ("listener", "answer"), cap=1000),
    Definition(
        "mesh_ask_seconds", "histogram", "How long an answer of OPA took, cached ones left out.", (), SECONDS
    ),
    Definition(
        "mesh_egress_token_requests_total", "counter", "Requests to token endpoints, for tokens of outside upstreams.",
        ("listener", "result"), cap=1000,
    ),
    Definition(
        "mesh_egress_token_seconds", "gauge", "How long the token of such an upstream was good for when it was got.",
        ("listener",), cap=1000,
    ),
    Definition(
        "mesh_tokens_total", "counter", "Bearer tokens that were judged, and requests without one that had to have it.",
        ("issuer", "result"), cap=1000,
    ),
    Definition("mesh_token_keys", "gauge", "Keys of an issuer by which its tokens are verified.", ("issuer",)),
    Definition(
        "mesh_token_keys_age_seconds", "gauge",
        "Since its key set was had last: old is an alarm, since a key that it has withdrawn is still good here.",
        ("issuer",),
    ),
    Definition("mesh_ratelimit_redis_up", "gauge", "1 while limits are counted together, in Redis."),
    Definition("mesh_ratelimit_redis_seconds", "histogram", "Round trips to it, each for all who waited.", (), SECONDS),
    Definition(
        "mesh_ratelimit_redis_fallbacks_total",
        "counter",
        "Hops for which it was not there: their limits were held by this sidecar alone, or they were refused "
        "(`redis.when_away`).",
        ("why",),
    ),
    Definition(
        "mesh_grpc_calls_total",
        "counter",
        "gRPC calls that ended, by what the caller was told.",
        ("direction", "source", "destination", "route", "grpc_status"),
        cap=1000,
        expires=True,
    ),
    Definition(
        "mesh_contract_broken_total",
        "counter",
        "Requests and answers that were not what the contract of the service says.",
        ("listener", "operation", "part", "effect"),
        cap=1000,
        expires=True,
    ),
    Definition(
        "mesh_shadow_verdicts_total",
        "counter",
        "Hops that a rule marked `shadow` would have judged.",
        ("direction", "source", "rule", "effect"),
        cap=1000,
        expires=True,
    ),
    Definition(
        "mesh_posture_would_refuse_total",
        "counter",
        "Hops that were let pass although a strict listener would have refused them.",
        ("listener", "posture", "source", "rule", "flag", "error"),
        cap=1000,
    ),
    Definition("mesh_posture", "gauge", "1 for the posture that an inbound listener has now.", _POSTURE),
    Definition("mesh_posture_until_seconds", "gauge", "When it ends, since the epoch; 0 where not in force.", _POSTURE),
    Definition("mesh_connections_opened_total", "counter", "Downstream connections accepted.", _LISTENER),
    Definition(
        "mesh_connections_refused_total",
        "counter",
        "Downstream connections turned away because a limit was reached.",
        (*_LISTENER, "reason"),
    ),
    Definition("mesh_connections_closed_total", "counter", "Downstream connections ended.", _LISTENER),
    Definition("mesh_connections_open", "gauge", "Downstream connections open now.", _LISTENER),
    Definition("mesh_requests_in_flight", "gauge", "Requests under way, streams left out; of half a second ago."),
    Definition(
        "mesh_streams_open",
        "gauge",
        "Upgrades, tunnels, raw TCP connections and requests older than 30 s, open half a second ago.",
    ),
    Definition(
        "mesh_tls_handshakes_total",
        "counter",
        "TLS handshakes between sidecars.",
        ("direction", "result", "version", "group"),
    ),
    Definition(
        "mesh_tls_handshake_failures_total",
        "counter",
        "TLS handshakes that failed, by reason.",
        ("direction", "listener", "reason"),
    ),
    Definition("mesh_tls_handshake_seconds", "histogram", "Length of a successful handshake.", ("direction",), SECONDS),
    Definition(
        "mesh_retries_total",
        "counter",
        "Requests that were sent again (`sent`; `renewed` where only a connection had ended, or none could be made), "
        "and those that were not, by the reason.",
        ("listener", "what"),
    ),
    Definition(
        "mesh_health_checks_total",
        "counter",
        "Active health checks of endpoints, by what they found: `passed`; `failed`, `timed_out` and `unreachable`, "
        "which count against an endpoint; `refused` by rules of the peer's sidecar and `skipped`, which do not.",
        ("listener", "result"),
    ),
    Definition(
        "mesh_faults_total",
        "counter",
        "Hops that met a fault on purpose.",
        ("direction", "listener", "route", "kind"),
    ),
    Definition(
        "mesh_split_requests_total",
        "counter",
        "Requests on a route with several destinations, by the one that the dice chose.",
        ("listener", "route", "to"),
    ),
    Definition("mesh_endpoints", "gauge", "Endpoints of an upstream, by state.", ("listener", "state")),
    Definition(
        "mesh_discovery_updates_total", "counter", "Lists of endpoints that differed from the one before, by where "
        "they were learned (`dns`, `file`, `srv`, `kubernetes`).", ("listener", "source"),
    ),
    Definition(
        "mesh_discovery_failures_total", "counter", "Looks for endpoints that failed; the last list stands.",
        ("listener", "source"),
    ),
    Definition(
        "mesh_discovery_age_seconds", "gauge", "Since the source of endpoints last said that they are so.",
        ("listener", "source"),
    ),
    Definition("mesh_tls_handshakes_waiting", "gauge", "Peers whose ClientHello is here and whose turn has not come."),
    Definition(
        "mesh_protocol_detections_total",
        "counter",
        "Connections to listeners with `protocol: auto`.",
        ("direction", "listener", "protocol", "by"),
    ),
    Definition(
        "mesh_protocol_detection_seconds",
        "histogram",
        "How long such a connection waited for its first bytes.",
        ("direction",),
        SECONDS,
    ),
    Definition("mesh_certificate_expires_at_seconds", "gauge", "End of its life, since the epoch.", _CERTIFICATE),
    Definition(
        "mesh_ca_survival_seconds",
        "gauge",
        "How long we could go on without the CA: until the first link of our chain ends, or `revocation.max_age`.",
    ),
    Definition(
        "mesh_served_certificate_right",
        "gauge",
        "1 where a handshake with our own listeners found the certificate that we were given; 0 where another.",
    ),
    Definition(
        "mesh_bypass_ports",
        "gauge",
        "Ports of the application that answer outsiders past this sidecar; 0 where it listens on loopback, or redirect "
        "rules stand before it.",
    ),
    Definition("mesh_self_handshakes_total", "counter", "Handshakes with our own listeners, to find out.", ("result",)),
    Definition("mesh_denylist_sequence", "gauge", "Sequence of the denylist in force."),
    Definition("mesh_denylist_entries", "gauge", "Serials, SPIFFE IDs and issuing CAs that it denies."),
    Definition("mesh_denylist_signed_at_seconds", "gauge", "When the CA signed it, since the epoch."),
    Definition("mesh_denylist_refused_total", "counter", "Denylists that came and were not believed; see the log."),
    Definition("mesh_identity_revoked", "gauge", "1 while our own certificate is on the denylist."),
    Definition("mesh_certificate_renewal_at_seconds", "gauge", "Its next renewal, since the epoch.", _CERTIFICATE),
    Definition("mesh_identity_failures", "gauge", "Attempts to enrol or renew that failed since the last success."),
    Definition(
        "mesh_revoked_connections_total",
        "counter",
        "Open connections, idle ones too, that were cut because the other end was revoked.",
        ("direction",),
    ),
    Definition("mesh_ca_connected", "gauge", "1 while the watch to the CA stands."),
    Definition("mesh_clock_skew_seconds", "gauge", "Our clock minus the CA's; positive where ours is ahead."),
    Definition("mesh_trust_bundle_sequence", "gauge", "Sequence of the trust bundle in force."),
    Definition("mesh_ready", "gauge", "1 while identity, policy and listeners stand and we do not drain."),
    Definition("mesh_policy_rules", "gauge", "Rules in force."),
    Definition(
        "mesh_connections_ended_early_total",
        "counter",
        "Open raw connections, upgrades and streams that were let in and then ended by us.",
        ("direction", "reason"),
    ),
    Definition(
        "mesh_protocol_failures_total",
        "counter",
        "HTTP/2 connections of callers (for `zero_window`, single streams) that we ended because "
        "they broke the rules of the protocol, or wasted our time within them.",
        ("direction", "listener", "reason"),
    ),
    Definition(
        "mesh_trunks_ended_total",
        "counter",
        "HTTP/2 connections to an upstream (`inbound`: to the application) that ended, failed or replaced.",
        (*_LISTENER, "reason"),
    ),
    Definition("mesh_drain_phase_seconds", "gauge", "Time that each phase of the drain has taken so far.", ("phase",)),
    Definition("mesh_config_reloads_total", "counter", "Reloads of the configuration.", ("result",)),
    Definition(
        "mesh_config_last_reload_success", "gauge", "1 while what is on disk is in force; 0 since a reload failed."
    ),
    Definition("mesh_config_generation", "gauge", "Configurations in force so far; 1 is the one of the start."),
    Definition("mesh_access_log_dropped_total", "counter", "Access-log lines dropped: the writer was behind."),
    Definition("mesh_quota_store_up", "gauge", "1 where quotas can be counted, 0 where they cannot.", ("store",)),
    Definition("mesh_quota_store_failures_total", "counter", "Batches that a store did not take.", ("store",)),
    Definition("mesh_audit_lost_total", "counter", "Audit lines lost: the disk was full and 8 MiB waited."),
    Definition("mesh_audit_waiting_bytes", "gauge", "Audit lines in memory that wait for the disk."),
    Definition(
        "mesh_audit_unwitnessed_seconds", "gauge", "How long the CA has not witnessed the audit, though there was more."
    ),
    Definition(
        "mesh_audit_export_sent_total", "counter", "Events sent to a receiver of the audit, each time.", ("export",)
    ),
    Definition(
        "mesh_audit_export_resent_total", "counter", "Those of them that were sent before, and may have been lost.",
        ("export",),
    ),
    Definition(
        "mesh_audit_export_dropped_total", "counter",
        "Lines not sent: over `backlog`, or in a rotated file that was gone. The audit itself has them.", ("export",),
    ),
    Definition(
        "mesh_audit_export_rejected_total", "counter", "Events that a collector has thrown away for good.", ("export",)
    ),
    Definition("mesh_audit_export_waiting_bytes", "gauge", "Bytes of the audit that wait for a receiver.", ("export",)),
    Definition(
        "mesh_audit_export_full", "gauge", "The same as a share of `backlog`; an alarm from 0.8 on.", ("export",)
    ),
    Definition("mesh_audit_export_failing", "gauge", "1 while a receiver takes nothing.", ("export",)),
    Definition("mesh_log_suppressed_total", "counter", "Operational log messages held back as repetitions."),
    Definition("mesh_telemetry_faults_total", "counter", "Faults inside telemetry itself; see the log."),
    Definition(
        "mesh_metric_series_dropped_total",
        "counter",
        "Times that a new label set was counted as `other` because its metric was full.",
        ("metric",),
    ),
    Definition("mesh_build_info", "gauge", "Always 1.", ("version",)),
)


def markdown() -> str:
    """docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Printed from `sidecar/telemetry/definitions.py` by `python -m sidecar.telemetry.definitions`; do not edit.",
        "",
        "Served as Prometheus text (0.0.4) at `/metrics` of the health port. Besides these there are the usual",
        "`process_*` metrics. Labels come from configuration or from verified identities, never",
        "from request bytes. A metric that reaches its limit of label sets counts further ones with `other` in every",
        "open label and adds to `mesh_metric_series_dropped_total`; label sets of expiring metrics go after ten",
        "minutes without use.",
        "",
        "| Metric | Type | Labels | Limit | Expires | Meaning |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each in (*HOP_METRICS, *DEFINITIONS):
        labels = ", ".join(f"`{label}`" for label in each.labels) or "none"
        limit = str(each.cap) if each.labels else "1"
        expires = "yes" if each.expires else "no"
        lines.append(f"| `{each.name}` | {each.kind} | {labels} | {limit} | {expires} | {each.doc} |")
    lines += ["", "## Labels", "", "| Label | Kind | Values |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {kind} | {doc} |" for name, (kind, doc) in LABELS.items()]
    bounds = ", ".join(f"{bound:g}" for bound in SECONDS)
    lines += ["", "## Buckets", "", f"Every histogram is in seconds; upper bounds: {bounds}.", ""]
    return "\n".join(lines)


def definition(name: str) -> Definition:
    """The one of this name. Raises StopIteration."""
    return next(each for each in DEFINITIONS if each.name == name)


if __name__ == "__main__":
    print(markdown(), end="")

"""What `mesh check` finds of the audit's exports; `codes` has the rest."""

from __future__ import annotations

from typing import Final

from sidecar.config.codes_examples import HTTP, services


def _export(said: str, audit: str = "") -> str:
    return HTTP + f"audit: {{{audit}export: [{said}]}}"


_SYSLOG: Final = "{kind: syslog, address: 'logs.internal:6514'}"
_OTLP: Final = "{kind: otlp, url: 'https://otel.internal:4318/v1/logs'}"

AUDIT: Final[tuple[tuple[str, str, str, str, str, str], ...]] = (
    (
        "MESH182", "an export of the audit that leads nowhere",
        "Each kind of export has a place of its own: `syslog` an `address`, `otlp` a `url`, `ocsf` a `path`; `body` is "
        "for syslog and `roots` for what goes over a network.",
        "Name the place of this kind, and no other.",
        *services(_export("{kind: syslog}"), _export(_SYSLOG)),
    ),
    (
        "MESH183", "one receiver of the audit twice",
        "It would get each event twice, and both exports would remember in one file how far they are.",
        "Remove one of the two.",
        *services(_export(f"{_OTLP}, {_OTLP}"), _export(_OTLP)),
    ),
    (
        "MESH184", "an export of an audit that is not kept",
        "The audit file is the queue of its exports: what a receiver did not take is read from it again. Of standard "
        "output nothing can be read again.",
        "Name a file under `audit.path`, or leave it out for the one in the state folder.",
        *services(_export(_SYSLOG, "path: '-', "), _export(_SYSLOG)),
    ),
    (
        "MESH185", "the audit sent in the clear",
        "The audit says who called what, from where, and who was refused. Whoever stands on the way could read it, and "
        "take out what he does not want to be known.",
        "Write `https://`, with `roots` where the receiver's certificate is of a CA of your own; or, for a receiver on "
        "this host, an address on loopback.",
        *services(_export("{kind: otlp, url: 'http://otel.internal:4318/v1/logs'}"), _export(_OTLP)),
    ),
    (
        "MESH186", "the audit sent in the clear on purpose",
        "`unsafe_plaintext` leaves out TLS: nobody knows who receives the audit, and it can be read and changed.",
        "Remove the key: RFC 5425 (syslog over TLS) has a port of its own, 6514.",
        *services(
            _export("{kind: syslog, address: 'logs.internal:514', unsafe_plaintext: true}"), _export(_SYSLOG)
        ),
    ),
    (
        "MESH187", "hardly any room for what waits",
        "A receiver that is away for some minutes would not get the oldest of what happened meanwhile. What waits is "
        "in the audit file, which is there anyhow.",
        "Leave out `backlog`, or name at least 16MiB.",
        *services(
            _export("{kind: syslog, address: 'logs.internal:6514', backlog: 1MiB}"), _export(_SYSLOG)
        ),
    ),
)

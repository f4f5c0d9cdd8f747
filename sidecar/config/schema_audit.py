"""What an operator can say of the audit: where it is written, and where else it is sent. See docs/audit.md."""
# ruff: noqa: RUF009 - `described` only wraps dataclasses.field; its defaults are immutable

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sidecar.config.terms import Address, Bytes, FilePath, described
from sidecar.config.urls import Url


@dataclass(frozen=True, slots=True)
class AuditExport:
    """One place that the audit is sent to as well, at least once: an event may come twice, with the same id."""

    kind: Literal["syslog", "otlp", "ocsf"] = described(
        "`syslog`: RFC 5424 over TLS, to `address`. `otlp`: log records of OpenTelemetry by HTTP and JSON, to `url`. "
        "`ocsf`: a file of OCSF 1.3.0 events at `path`, one JSON object a line."
    )
    address: Address | None = described("Of a syslog receiver, `HOST:6514`.", None)
    url: Url | None = described("Of an OTLP collector's logs: `https://HOST:4318/v1/logs`.", None)
    path: FilePath = described("The file of `kind: ocsf`.", "")
    body: Literal["audit", "ocsf"] = described("What a syslog message carries: the audit's own line, or OCSF.", "audit")
    roots: FilePath = described(
        "Roots, in PEM, that the receiver's certificate is verified by; empty for the system's.", ""
    )
    unsafe_plaintext: bool = described("Send without TLS, for all on the way to read and change.", False)
    backlog: Bytes = described(
        "How much of the audit may wait for this receiver. From four fifths on there is an alarm; over it, the oldest "
        "is not sent any more, and counted. The audit itself keeps it.",
        256 * 1024 * 1024,
    )

    @property
    def target(self) -> str:
        """Where it goes, for logs, metrics and the name of its file."""
        return str(self.address or self.url or self.path)


@dataclass(frozen=True, slots=True)
class Audit:
    """Who was let in, and who was not; see docs/audit.md."""

    path: FilePath = described("A file, `-` for standard output, or empty for `audit.jsonl` in the state folder.", "")
    permits: Literal["aggregated", "each"] = described(
        "One line per kind of permitted hop a minute, or one for each.", "aggregated"
    )
    on_full: Literal["continue", "refuse"] = described(
        "What to do when the disk is full and 8 MiB are waiting.", "continue"
    )
    export: tuple[AuditExport, ...] = described("Where it is sent as well.", ())

"""The books balance: the client's counts, both sidecars' metrics, their access logs and their audits agree to the unit.

Every request of a NonceLoad bears a name of its own in its path, so the logs are compared by name, not only by number.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.kit.fleet import Metrics, Sidecar, spiffe
from tests.kit.nonce import Tally
from tests.kit.processes import eventually

ECHO = "/echo/"


def balance_live(caller: Sidecar, called: Sidecar, tally: Tally) -> None:
    """Client = metrics = access logs of both sidecars, for a flawless load, while they run."""
    for sidecar, direction in ((caller, "outbound"), (called, "inbound")):
        lines = wait_for_lines(sidecar, direction, caller.name, tally.sent)
        assert Counter(line["uri"].removeprefix(ECHO) for line in lines) == Counter(tally.nonces)
        assert {line["flags"] for line in lines} == {"-"}
        assert sum(line["request_bytes"] for line in lines) == tally.body_sent
        assert sum(line["response_bytes"] for line in lines) == tally.body_received
        check_metrics(sidecar.metrics(), direction, caller.name, called.name, tally)


def wait_for_lines(sidecar: Sidecar, direction: str, caller: str, count: int) -> list[dict[str, Any]]:
    """The access log's lines of this load; a thread writes them, so the last may be a moment late."""

    def lines() -> list[dict[str, Any]]:
        return [
            line
            for line in sidecar.access_log()
            if line["direction"] == direction
            and line["uri"].startswith(ECHO)
            and line["client.id"] == spiffe(caller)
        ]  # fmt: skip

    eventually(f"{count} lines of {sidecar.name}", lambda: len(lines()) >= count, 10)
    return lines()


def check_metrics(metrics: Metrics, direction: str, caller: str, called: str, tally: Tally) -> None:
    """Every counter of this kind of hop is what the client counted."""
    labels = {"direction": direction, "source": spiffe(caller), "destination": spiffe(called)}
    assert metrics.total("mesh_requests_total", **labels) == tally.sent
    assert metrics.total("mesh_requests_total", **labels, status_class="2xx", flag="-") == tally.sent
    assert metrics.total("mesh_request_duration_seconds_count", **labels) == tally.sent
    assert metrics.total("mesh_request_first_byte_seconds_count", **labels) == tally.sent
    assert metrics.total("mesh_received_bytes_total", **labels) == tally.body_sent
    assert metrics.total("mesh_sent_bytes_total", **labels) == tally.body_received


def balance_audit(caller: Sidecar, called: Sidecar, tally: Tally) -> None:
    """Client = audit of both sidecars. They must have ended: until then counts of permits wait in memory."""
    for sidecar, direction in ((caller, "outbound"), (called, "inbound")):
        record = sidecar.audit()
        assert [line["seq"] for line in record] == list(range(1, len(record) + 1)), "a line of the audit is missing"
        permits = [
            line
            for line in record
            if line["kind"] == "permit" and line["direction"] == direction and line["caller"] == spiffe(caller.name)
        ]
        assert sum(line["count"] for line in permits) == tally.sent
        by_method = Counter[str]()
        for line in permits:
            by_method[line["method"]] += line["count"]
        assert by_method == {"GET": tally.sent - tally.posts, "POST": tally.posts}
        assert not [line for line in record if line["kind"] == "refusal"]


def balance_waived(called: Sidecar, metrics: Metrics, expected: dict[str, int]) -> None:
    """Hops that only a posture let pass: metric = access log = audit, by posture, flag and deny rule joined with `/`.

    The sidecar must have ended; `metrics` are its last.
    """
    found = {"metric": Counter[str](), "access log": Counter[str](), "audit": Counter[str]()}
    for labels, value in metrics.series("mesh_posture_would_refuse_total"):
        rule = labels["rule"].removeprefix("-")
        found["metric"]["/".join((labels["posture"], labels["flag"], rule))] += int(value)
    for line in called.access_log():
        if it := line.get("would_refuse"):
            found["access log"]["/".join((it["posture"], it["flag"], it["rule"]))] += 1
    for line in called.audit():
        if it := line.get("would_refuse"):
            found["audit"]["/".join((it["posture"], it["flag"], it["rule"]))] += line.get("count", 1)
    assert found == {view: Counter(expected) for view in found}


def balance_handshakes(callers: list[Sidecar], called: Sidecar, metrics: dict[str, Metrics]) -> dict[str, set[str]]:
    """Handshakes made = handshakes accepted, in metrics and audits; returns the serials that callers showed."""
    made = {caller.name: handshakes(caller) for caller in callers}
    accepted = handshakes(called)
    serials: dict[str, set[str]] = {}
    for name, lines in made.items():
        theirs = [line for line in accepted if line["peer"] == spiffe(name)]
        assert len(lines) == len(theirs)
        assert metrics[name].total("mesh_tls_handshakes_total", direction="outbound", result="ok") == len(lines)
        serials[name] = {line["serial"] for line in theirs}
    assert metrics[called.name].total("mesh_tls_handshakes_total", direction="inbound", result="ok") == len(accepted)
    for side in metrics.values():
        assert side.total("mesh_tls_handshakes_total", result="failed") == 0
    return serials


def handshakes(sidecar: Sidecar) -> list[dict[str, Any]]:
    """The successful handshakes of its audit."""
    return [line for line in sidecar.audit() if line["kind"] == "handshake" and line["ok"]]

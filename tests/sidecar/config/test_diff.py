"""What a reload says it changes, line for line."""

from __future__ import annotations

from sidecar.config.diff import diff, fixed
from sidecar.config.load import load_text

OLD = """
trust_domain: demo.mesh
services:
  web: {outbound: [{to: orders, listen: "127.0.0.1:9001"}]}
  orders:
    inbound: [{name: http, port: 17443, app: "127.0.0.1:8080", routes: [{path: /a, max_body: 1KiB}]}]
    allow:
      - {name: readers, from: web, path: "/orders/{id}"}
      - {name: writers, from: web, path: /orders, method: POST}
    env: {PASSWORD: hunter2, PLAIN: x}
"""
NEW = """
# a comment, so that every line stands elsewhere
trust_domain: demo.mesh
services:
  web:
    inbound: [{name: http, port: 17543}]
    outbound: [{to: orders, port: http, listen: "127.0.0.1:9001"}]
  orders:
    inbound:
      - {name: http, port: 17443, app: "127.0.0.1:8081", routes: [{path: /a, max_body: 2KiB}, {path: /b, method: PUT}]}
      - {name: raw, port: 17999, protocol: tcp, app: "127.0.0.1:5432"}
    outbound: [{to: web, listen: "127.0.0.1:9002"}]
    allow:
      - {name: writers, from: web, path: /orders, method: POST}
      - {name: readers, from: ["**", web], path: "/orders/{id}", headers: {x-env: prod}}
    deny: [{name: not-them, from: spiffe://other.mesh/ns/default/sa/mallory, shadow: true}]
    timeouts: {drain: 5s, idle: 1m}
    limits: {head_bytes: 64KiB}
    env: {PASSWORD: "correct horse", MORE: z}
    run: [./orders, --port, "8081"]
"""
SNAPSHOT = """\
orders.run: none → ./orders --port 8081 (from the command's next start)
orders.env: + MORE (from the command's next start)
orders.env: another value for PASSWORD (from the command's next start)
orders.env: - PLAIN (from the command's next start)
orders.inbound.http.app: 127.0.0.1:8080 → 127.0.0.1:8081
orders.inbound.http.routes./a.max_body: 1KiB → 2KiB
orders.inbound.http.routes: + route PUT /b {path: /b, method: [PUT]}
orders.inbound: + listener raw {port: 17999, bind: 127.0.0.1, app: 127.0.0.1:5432, protocol: tcp}
orders.outbound: + upstream web {port: http, listen: 127.0.0.1:9002, identity: spiffe://demo.mesh/ns/default/sa/web, \
endpoints: [127.0.0.1:17543]}
orders.allow.readers.from: [web] → [**, web]
orders.allow.readers.headers: [] → [x-env exact 'prod']
orders.allow: order readers, writers → writers, readers
orders.deny: + rule not-them {from: [spiffe://other.mesh/ns/default/sa/mallory], shadow: true}
orders.timeouts.idle: 5m → 1m
orders.timeouts.drain: 30s → 5s
orders.limits.head_bytes: 32KiB → 64KiB
"""


def lines(old: str, new: str, service: str = "orders") -> list[str]:
    return [str(change) for change in diff(load_text(old), load_text(new), service)]


def test_every_kind_of_change_has_its_line() -> None:
    assert "\n".join(lines(OLD, NEW)) + "\n" == SNAPSHOT


def test_it_is_a_mirror() -> None:
    back = lines(NEW, OLD)
    assert len(back) == len(SNAPSHOT.splitlines())
    assert "orders.inbound: - listener raw" in back
    assert "orders.deny: - rule not-them" in back
    assert "orders.inbound.http.app: 127.0.0.1:8081 → 127.0.0.1:8080" in back


def test_no_value_of_an_environment_is_told() -> None:
    told = "\n".join(lines(OLD, NEW))
    assert "hunter2" not in told
    assert "horse" not in told


def test_what_only_moves_in_the_file_is_no_change() -> None:
    assert lines(OLD, "# one more line\n" + OLD) == []


def test_another_service_s_changes_are_not_ours() -> None:
    assert lines(OLD, NEW, "web") == ["web.inbound: + listener http {port: 17543, bind: 127.0.0.1}"]


def test_what_is_fixed_at_the_start_is_marked() -> None:
    new = OLD.replace("demo.mesh", "prod.mesh").replace("    env:", "    health: {listen: off}\n    env:")
    new += "    audit: {path: /var/log/audit}\n    access_log: {mode: all}\nca: {address: 'ca:17012'}\n"
    changes = diff(load_text(OLD), load_text(new), "orders")
    told = [str(change).partition(":")[0] for change in fixed(changes)]
    assert told == [
        "trust_domain", "ca.address", "orders.identity", "orders.health.listen", "orders.access_log.mode",
        "orders.audit.path",
    ]  # fmt: skip
    assert not fixed(diff(load_text(OLD), load_text(NEW), "orders"))


def test_of_an_audit_all_may_change_but_its_path() -> None:
    text = "trust_domain: demo.mesh\nservices: {orders: {audit: {%s}}}\n"
    syslog, otlp = "{kind: syslog, address: 'logs.internal:6514'%s}", "{kind: otlp, url: 'https://otel.internal/v1/logs'}"
    before = load_text(text % f"export: [{syslog % ''}]")
    after = load_text(text % f"permits: each, on_full: refuse, export: [{syslog % ', body: ocsf'}, {otlp}]")
    changes = diff(before, after, "orders")
    assert [str(each) for each in changes] == [
        "orders.audit.permits: aggregated → each",
        "orders.audit.on_full: continue → refuse",
        "orders.audit.export.syslog logs.internal:6514.body: audit → ocsf",
        "orders.audit.export: + export otlp https://otel.internal/v1/logs "
        "{kind: otlp, url: https://otel.internal/v1/logs}",
    ]
    assert fixed(changes) == ()
    gone = diff(after, load_text(text % "path: /var/log/audit"), "orders")
    assert [str(each) for each in fixed(gone)] == ["orders.audit.path: none → /var/log/audit"]
    assert "orders.audit.export: - export syslog logs.internal:6514" in map(str, gone)


def test_of_a_redirect_all_is_fixed_but_where_plaintext_may_go() -> None:
    text = "trust_domain: demo.mesh\nservices: {orders: {redirect: {%s}}}\n"
    before = load_text(text % "passthrough: 10.0.0.0/8")
    changes = diff(before, load_text(text % "passthrough: ['10.0.0.7:5432'], capture_in: 7006"), "orders")
    assert [str(each) for each in changes] == [
        "orders.redirect.capture_in: 17006 → 7006",
        "orders.redirect.passthrough: [10.0.0.0/8] → [10.0.0.7:5432]",
    ]
    assert [each.fixed for each in changes] == [True, False]
    without = load_text("trust_domain: demo.mesh\nservices: {orders: {}}\n")
    assert [each.fixed for each in diff(before, without, "orders")] == [True]

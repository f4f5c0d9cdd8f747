"""What a config without mistakes becomes: complete, with defaults, ports, identities and endpoints filled in."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from certs.spiffe import SpiffeId
from sidecar.config import files
from sidecar.config.codes_contract import DOCUMENTS
from sidecar.config.fields import fields_of, records
from sidecar.config.files import NO_FILE
from sidecar.config.load import load, load_bytes, load_config, load_text
from sidecar.config.mistakes import ConfigErrors
from sidecar.config.schema import MeshConfig
from sidecar.config.schema_outbound import EndpointEntry
from sidecar.config.terms import Address, Affinity, Where

HEAD = "trust_domain: demo.mesh\n"

EVERYTHING = """\
trust_domain: demo.mesh
namespace: shop
ca: {address: "ca.example.org:443", enrolment: enrol.json}
include: ["team/*.yaml"]
issuers:
  login: {issuer: "https://login.example.org", url: "https://keys.example.org/jwks", ca_file: /run/ca.pem,
          audience: orders, algorithms: [ES256, EdDSA], type: at+jwt, leeway: 5s, refresh: 1h, within: 2s}
  filed: {issuer: "urn:filed", file: keys.json}
  mesh: {trust_domain: demo.mesh}
defaults:
  timeouts: {connect: 1500ms, handshake: 1m30s}
  limits: {pool: 7, requests: 9}
  access_log: {mode: all}
  audit: {permits: each}
  tls: {unsafe_tls12: true, key: ed25519}
  revocation: {max_age: 2h}
  redis: {url: "unix:/run/redis.sock"}
services:
  orders:
    identity: elsewhere/orders
    identity_source: {workload_api: unix:/run/spire/agent.sock}
    address: Orders.Internal
    zone: eu-1a
    run: ./orders --port 8080 "a b"
    env: {PORT: 8080, EMPTY: "", QUOTED: "no"}
    inbound:
      - name: web
        port: 8443
        bind: "::"
        app: "[::1]:8080"
        protocol: http
        app_http: http2
        xfcc_forwarders: edge
        contract: {openapi: orders.yaml, mode: enforce, undocumented: pass, unknown_query: pass,
          unknown_fields: refuse, after_sunset: web}
        posture: observe
        until: 2026-01-10
        tokens:
          {from: [login, mesh], audience: [orders, bills], required: false, bound: true, forward: true, streams: stay}
        routes:
          - path: /files/**
            method: PUT
            max_body: 2MiB
            content_types: [application/json, text/*]
            unsafe_encoded_slash: true
            unsafe_empty_segments: true
            unsafe_path_parameters: true
            from: edge
            host: orders
            headers: {x-beta: "1"}
            query: {version: {prefix: "2"}, debug: {present: true}}
            app: "127.0.0.1:8081"
            fault: {delay: 1s, delay_share: 0.5, status: 503, abort_share: 0.25, from: edge}
          - {path: /**, split: [{app: "127.0.0.1:8081", weight: 5}, {app: "[::1]:8080", weight: 95}]}
      - {name: raw, protocol: tcp, app: "localhost:5432", app_proxy_protocol: v2, proxy_protocol: {from: 10.0.0.7/32},
         tcp_limits: [{name: few, per: listener, from: web, connections_per_second: 20/s, connections: 5,
                       bandwidth: 10MiB/s}]}
    outbound:
      - to: bills
        consumes: {operations: getBill, fields: id}
        port: 9443
        listen: "127.0.0.1:9001"
        addresses: bills.shop.svc:80
        host: bills.example.org
        affinity: header X-User
        slow_start: 0s
        health: {http: /healthz, every: 5s, within: 500ms, healthy: 1, unhealthy: 4, expect: 204}
        retries: {resends: 1, statuses: 503, grpc_statuses: [unavailable], budget: 0.1}
        timeouts: {response_head: 2s, total: 3s, per_try: 1s}
        breaker: off
        routes:
          - name: canary
            path: /v1/a
            method: GET
            from: orders
            headers: {x-beta: "1"}
            query: {version: 2}
            split: [{to: old, weight: 0}, {to: bills, weight: 1}]
            rewrite: {prefix: /v1, to: /}
            request_headers: {remove: [X-Debug], set: {x-team: shop}, add: {x-from: web}}
            response_headers: {remove: server}
            fault: {status: 500, abort_share: 0.1}
            retries: {resends: 0, statuses: [502, 503]}
      - to: abroad
        listen: unix:/run/abroad.sock
        listen_mode: group
        edge: true
        protocol: tcp
        identity: spiffe://demo.mesh/ns/a/sa/b
        endpoints: [10.0.0.1:17443, {address: "[fd00::1]:17443", weight: 3, zone: eu-1b}]
        health: {tcp: true}
      - {to: old, upgrade: h2, unmeshed: passthrough, endpoints: "192.0.2.1:80", health: {grpc: ""}}
      - to: partner
        unmeshed: passthrough
        endpoints: api.partner.test:443
        tls: {roots: roots.pem, name: api.partner.test, certificate: us.pem, key: us.private,
              pins: ["sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]}
        token: {url: "https://id.partner.test/token", client_id: us, secret: {file: secret}, scopes: [read, write],
                audience: api, resource: "https://api.partner.test", auth: post, roots: roots.pem}
        allow: [{method: GET, path: /v1/**}]
        private: [10.20.0.0/16]
      - {to: partners, unmeshed: passthrough, host: "*.partner.test", host_port: 8443, tls: {},
         token: {url: "https://id.partner.test/token", client_id: us, secret: {command: cat /run/secret}}}
      - {to: filed, identity: shop/filed, endpoints_from: {file: filed.yaml}}
      - {to: named, identity: shop/named, endpoints_from: {srv: _mesh._tcp.named.example.org}}
      - to: clustered
        identity: shop/clustered
        endpoints_from:
          kubernetes: {service: orders, namespace: eu, port: mesh, api: "https://10.0.0.1:6443", token_file: /run/token,
                       ca_file: /run/ca.crt}
    forward_proxy: 127.0.0.1:17080
    redirect: {capture_in: 7006, capture_out: 7001, passthrough: [10.0.0.0/8, "[fd00::7]:443"]}
    grants: {web: {operations: getOrder, fields: [id, customer.name]}}
    allow:
      - name: all-of-it
        from: [web, shop/web, "*", "**", spiffe://demo.mesh/ns/*/sa/**]
        host: [orders, "*.orders.example.org"]
        method: [GET, PURGE]
        path: [/, "/orders/{id}", /static/**]
        headers: {x-env: prod, x-a: {prefix: p}, x-b: {present: true}, x-n: 7}
        source: [10.0.0.0/8, "fd00::/8"]
        port: [web, 8443]
        operation: [getOrder]
        scopes: ["orders:read"]
        when: [service is claim order, "claim role in [admin, 7]"]
        shadow: true
    deny:
      - from: shop/old
        port: raw
    rates:
      - {name: old, limit: 6000/m, burst: 5, per: header X-Api-Key, from: shop/old, method: GET, path: /a/**, port: web}
      - {limit: 5/s, over: delay, delay: 2s, waiting: 9, strikes: 8, block: 7s, headers: always}
      - {limit: 7/s, shared: redis, per: claim sub}
    owner: team-orders
    detectors:
      stuffing: {refusals: 31, action: block, for: 6m, rate: 2/s, except: [web]}
      enumeration: {ids: 200, sequential: 50, action: throttle, for: 7m, rate: 3/s, except: [web]}
      spikes: {least: 100, times: 4, warm_up: 1h, new_edges: false, action: throttle, for: 8m, rate: 4/s, except: [web]}
    quotas:
      - {name: daily, limit: 9/d, time_zone: Europe/Berlin, per: listener, from: web, method: GET, path: /a, port: web,
         shared: redis}
    redis: {url: "rediss://redis.internal/3", username: mesh, password_file: /run/redis, ca_file: /run/ca.pem,
            prefix: shop, within: 20ms, when_away: refuse}
    health: {listen: "0.0.0.0:9090"}
    workload_api: {listen: unix:/run/mesh/orders/api.sock, allow_uids: [1000]}
    timeouts: {connect: 1s, request_head: 3s, response_head: 4s, idle: 4m, keep_alive: 6s, tcp_idle: 2h,
               pool_idle_app: 7s, pool_idle_peer: 8s, lame_duck: 9s, drain: 0s, slow: 6s, detect: 1s,
               total: 20s, per_try: 2s}
    limits: {head_bytes: 64KiB, head_lines: 50, connections: 9, pending: 250ms, connections_per_peer: 7,
             handshakes_open: 8, handshakes_per_second: 9, streams: 0.25, body_rate: off,
             retries: 11}
    access_log: {mode: off, sample: 0.25, path: /var/log/mesh.jsonl, headers: [x-request-id, user-agent]}
    audit:
      path: /var/log/mesh/audit.jsonl
      on_full: refuse
      export:
        - {kind: syslog, address: "logs.internal:6514", body: ocsf, roots: /etc/mesh/roots.pem, backlog: 1GiB}
        - {kind: syslog, address: "logs.internal:514", unsafe_plaintext: true}
        - {kind: otlp, url: "https://otel.internal:4318/v1/logs"}
        - {kind: ocsf, path: /var/log/mesh/ocsf.jsonl}
    tls: {unsafe_tls12: false}
    opa: {url: "https://opa.example.org", path: /v1/data/mesh/decision, timeout: 1s, silent: unsafe_permit,
          cache: {ttl: 2s, size: 10}, mode: shadow, for: [{method: POST, path: /orders/**}], headers: [x-team],
          claims: [sub], roots: roots.pem}
    unsafe_allow_bypass: true
    revocation: {max_age: 1h}
"""
TEAM = """\
services:
  bills:
    address: 10.0.0.7
    identity_source: {files: {cert: /run/id/tls.crt, key: /run/id/tls.key, bundle: /run/id/ca.crt}}
    inbound:
      - {name: first, app: "127.0.0.1:8001"}
      - {name: second, port: 9443, app: "127.0.0.1:8001"}
"""


@pytest.fixture(scope="module")
def everything() -> MeshConfig:
    """A config that says everything that can be said."""
    beside = {"team/bills.yaml": TEAM, "orders.yaml": DOCUMENTS["orders.yaml"].decode()}
    return load_text(EVERYTHING, "mesh.yaml", beside, now=1_768_000_000.0 - 5 * 86400)


def instances(value: object) -> Iterator[Any]:
    """Every dataclass instance within a value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield value
        for item in dataclasses.fields(value):
            yield from instances(getattr(value, item.name))
    elif isinstance(value, tuple):
        for each in value:
            yield from instances(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from instances(each)


def test_every_field_of_the_schema_can_be_set_from_yaml(everything: MeshConfig) -> None:
    found = list(instances(everything))
    missing = [
        f"{cls.__name__}.{spec.attribute}"
        for cls in records(MeshConfig)
        for spec in fields_of(cls)
        if not any(type(each) is cls and getattr(each, spec.attribute) != spec.default for each in found)
    ]
    assert missing == []


def test_no_field_of_the_schema_is_forgotten_by_the_reader() -> None:
    hidden = {
        f"{cls.__name__}.{item.name}"
        for cls in records(MeshConfig)
        for item in dataclasses.fields(cls)
        if item.name not in {spec.attribute for spec in fields_of(cls)}
    }
    assert hidden == {
        *{f"{name}.where" for name in (
            "Service", "Inbound", "Outbound", "Rule", "RateLimit", "OutboundRoute", "QuotaLimit", "TcpLimit",
            "Contract", "Grant",
        )},
        "Rule.effect",
        "Outbound.name",
        "Service.name",
        "Contract.api",
        "Service.issuers",
        "Issuer.name",
        "MeshConfig.files",
    }


def test_single_values_arrive_in_their_types_and_units(everything: MeshConfig) -> None:
    orders = everything.services["orders"]
    assert orders.address == "orders.internal"
    assert orders.run == ("./orders", "--port", "8080", "a b")
    assert orders.env == {"PORT": "8080", "EMPTY": "", "QUOTED": "no"}
    assert (orders.timeouts.tcp_idle, orders.timeouts.drain, orders.limits.pending) == (7200.0, 0.0, 0.25)
    assert (orders.limits.head_bytes, orders.inbound[0].routes[0].max_body) == (65536, 2 << 20)
    assert orders.inbound[0].app == Address("::1", 8080)
    assert orders.allow[0].networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert orders.outbound[1].endpoints == (
        EndpointEntry(Address("10.0.0.1", 17443)), EndpointEntry(Address("fd00::1", 17443), 3, "eu-1b"),
    )  # fmt: skip
    assert (orders.outbound[0].affinity, orders.outbound[0].balance) == (Affinity("header", "x-user"), "maglev")
    health = orders.outbound[0].health
    assert health is not None
    assert (health.http, health.grpc, str(health.expect)) == ("/healthz", None, "204")
    assert orders.allow[0].headers[3].value == b"7"


def test_defaults_hold_field_by_field(everything: MeshConfig) -> None:
    orders, bills = everything.services["orders"], everything.services["bills"]
    assert (orders.timeouts.connect, orders.timeouts.handshake) == (1.0, 90.0)
    assert (bills.timeouts.connect, bills.timeouts.handshake, bills.timeouts.idle) == (1.5, 90.0, 300.0)
    assert (orders.limits.pool, orders.limits.connections) == (7, 9)
    assert (orders.access_log.mode, bills.access_log.mode) == ("off", "all")
    assert (orders.audit.permits, orders.audit.on_full) == ("each", "refuse")
    assert (orders.tls.unsafe_tls12, bills.tls.unsafe_tls12) == (False, True)
    assert (orders.revocation.max_age, bills.revocation.max_age) == (3600.0, 7200.0)


def test_identities_and_callers_are_read_in_the_services_own_namespace(everything: MeshConfig) -> None:
    orders, bills = everything.services["orders"], everything.services["bills"]
    assert orders.identity == SpiffeId.parse("spiffe://demo.mesh/ns/elsewhere/sa/orders")
    assert bills.identity == SpiffeId.parse("spiffe://demo.mesh/ns/shop/sa/bills")
    web = orders.allow[0].callers[0]
    assert web.matches(SpiffeId.parse("spiffe://demo.mesh/ns/elsewhere/sa/web"))
    assert not web.matches(SpiffeId.parse("spiffe://demo.mesh/ns/shop/sa/web"))


def test_an_identity_of_another_form_keeps_the_meshs_namespace() -> None:
    text = HEAD + "services: {a: {identity: spiffe://demo.mesh/robots/a, allow: [{from: b}]}}\n"
    service = load_text(text).services["a"]
    assert service.identity.path == "/robots/a"
    assert service.allow[0].callers[0].matches(SpiffeId.parse("spiffe://demo.mesh/ns/default/sa/b"))


def test_an_upstream_is_completed_from_the_service_in_the_file(everything: MeshConfig) -> None:
    to_bills, abroad, old, *_ = everything.services["orders"].outbound
    assert to_bills.identity == everything.services["bills"].identity
    assert to_bills.endpoints == (EndpointEntry(Address("10.0.0.7", 9443)),)
    assert (to_bills.listener, to_bills.protocol, to_bills.host) == ("second", "http", "bills.example.org")
    assert (abroad.host, abroad.protocol, str(abroad.identity)) == ("abroad", "tcp", "spiffe://demo.mesh/ns/a/sa/b")
    assert (old.identity, old.unmeshed) == (None, "passthrough")
    assert [each.name for each in (to_bills, abroad, old)] == ["bills", "abroad", "old"]


def test_rules_are_named_by_their_place_and_name_listeners_not_ports(everything: MeshConfig) -> None:
    orders = everything.services["orders"]
    assert (orders.allow[0].name, orders.allow[0].effect, orders.allow[0].ports) == (
        "all-of-it",
        "allow",
        ("web", "web"),
    )
    assert (orders.deny[0].name, orders.deny[0].effect, orders.deny[0].ports) == ("deny-1", "deny", ("raw",))


def test_places_are_kept_for_explain(everything: MeshConfig) -> None:
    assert str(everything.services["bills"].inbound[1].where) == "team/bills.yaml:7"
    where = everything.services["orders"].where
    assert where == Where("mesh.yaml", EVERYTHING.split("\n").index("  orders:") + 1, 3)
    assert everything.files == ("mesh.yaml", "team/bills.yaml", "orders.yaml")


def test_default_ports_count_up_on_one_host_and_step_over_those_that_are_named() -> None:
    config = load_text(
        HEAD
        + """\
services:
  a: {inbound: [{app: "127.0.0.1:1"}]}
  b: {inbound: [{app: "127.0.0.1:2"}, {name: second, app: "127.0.0.1:2"}]}
  c: {inbound: [{app: "127.0.0.1:3", port: 17444}], health: {listen: "127.0.0.1:17091"}}
  d: {address: 10.0.0.4, inbound: [{app: "127.0.0.1:1"}]}
  e: {address: e.internal, inbound: [{app: "127.0.0.1:1"}], health: {listen: off}}
"""
    )
    ports = {name: [each.port for each in service.inbound] for name, service in config.services.items()}
    assert ports == {"a": [17443], "b": [17445, 17446], "c": [17444], "d": [17443], "e": [17443]}
    health = {name: service.health.listen and service.health.listen.port for name, service in config.services.items()}
    assert health == {"a": 17090, "b": 17092, "c": 17091, "d": 17090, "e": None}
    binds = {name: service.inbound[0].bind for name, service in config.services.items()}
    assert binds == {"a": "127.0.0.1", "b": "127.0.0.1", "c": "127.0.0.1", "d": "10.0.0.4", "e": "0.0.0.0"}


def test_a_service_called_on_two_listeners_gives_two_names() -> None:
    config = load_text(
        HEAD
        + """\
services:
  a: {inbound: [{name: one, app: "127.0.0.1:1"}, {name: two, app: "127.0.0.1:1"}]}
  b: {outbound: [{to: a, port: one}, {to: a, port: two, host: a2}], forward_proxy: "127.0.0.1:5"}
"""
    )
    assert [each.name for each in config.services["b"].outbound] == ["a.one", "a.two"]


# ---- includes and the disk -----------------------------------------------------------------------------------------


def write(folder: Path, **texts: str) -> str:
    """Files in a folder; returns the main one's path."""
    for name, text in texts.items():
        path = folder / (name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder / "mesh.yaml")


def failing(path: str) -> list[str]:
    """The mistakes of a config on disk, without its folder."""
    with pytest.raises(ConfigErrors) as caught:
        load_config(path)
    return [str(each).replace(str(Path(path).parent) + "/", "") for each in caught.value.mistakes]


def test_services_live_beside_their_code(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        mesh=HEAD + "include: ['*/mesh.yaml', extra.yaml]\nservices: {web: {}}\n",
        orders__mesh="services: {orders: {}}\ninclude: sub/more.yaml\n",
        orders__sub__more="services: {more: {}}\n",
        extra="services: {extra: {}}\n",
    )
    config = load_config(main)
    assert list(config.services) == ["web", "orders", "more", "extra"]
    assert [os.path.relpath(each, tmp_path) for each in config.files] == [
        "mesh.yaml", "orders/mesh.yaml", "orders/sub/more.yaml", "extra.yaml",
    ]  # fmt: skip
    assert str(config.services["more"].identity) == "spiffe://demo.mesh/ns/default/sa/more"


def test_a_wildcard_never_means_the_file_it_stands_in(tmp_path: Path) -> None:
    main = write(tmp_path, mesh=HEAD + "include: '**/*.yaml'\n", a="services: {a: {}}\n")
    assert list(load_config(main).services) == ["a"]


def test_mistakes_of_all_files_come_together(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        mesh=HEAD + "include: [a.yaml, gone.yaml, 'none/*.yaml']\nservices: {web: {colour: 1, outbound: [{to: x}]}}\n",
        a="services: {a: {shape: 2}, web: {}}\ntrust_domain: other\nca: {}\n",
    )
    found = failing(main)
    assert [each.split(": ")[0] for each in found] == [
        "mesh.yaml:2:19", "mesh.yaml:2:30", "mesh.yaml:3:18", "a.yaml:1:16", "a.yaml:1:27", "a.yaml:2:1", "a.yaml:3:1",
    ]  # fmt: skip
    assert "cannot read gone.yaml: No such file" in found[0]
    assert "matches no file" in found[1]
    assert "defined twice; see mesh.yaml:3" in found[4]
    assert "only the main file may say this; here: services, include" in found[5]


def test_a_cycle_is_a_mistake(tmp_path: Path) -> None:
    main = write(tmp_path, mesh=HEAD + "include: a.yaml\n", a="include: b.yaml\n", b="include: a.yaml\n")
    (found,) = failing(main)
    assert found.startswith(
        "b.yaml:1:10: include[0]: a cycle: mesh.yaml includes a.yaml includes b.yaml includes a.yaml"
    )


def test_a_file_is_included_once_by_whatever_name(tmp_path: Path) -> None:
    main = write(tmp_path, mesh=HEAD + "include: [a.yaml, ./a.yaml, link.yaml]\n", a="services: {}\n")
    (tmp_path / "link.yaml").symlink_to("a.yaml")
    assert [each.split(": ")[0] for each in failing(main)] == ["mesh.yaml:2:19", "mesh.yaml:2:29"]


def test_included_files_are_counted(tmp_path: Path) -> None:
    main = write(
        tmp_path, mesh=HEAD + "include: '*.yaml'\n", **{f"a{n}": "services: {}\n" for n in range(files.MAX_FILES)}
    )
    assert failing(main) == [f"mesh.yaml:2:10: include[0]: more than {files.MAX_FILES} files [MESH001]"]


def test_a_file_that_vanishes_meanwhile_is_not_believed(tmp_path: Path) -> None:
    disk = files.Disk()
    path = write(tmp_path, mesh=HEAD)
    disk.read(path)
    assert disk.unchanged()
    Path(path).unlink()
    assert not disk.unchanged()


def test_a_file_that_cannot_be_read_is_a_mistake_not_a_traceback(tmp_path: Path) -> None:
    said = f"mesh.yaml: cannot read: No such file or directory; {NO_FILE} [MESH001]"
    assert failing(str(tmp_path / "mesh.yaml")) == [said]
    said = f"{tmp_path}: cannot read: Is a directory [MESH001]"
    assert failing(str(tmp_path)) == [said.replace(f"{tmp_path.parent}/", "")]


def test_a_change_while_reading_never_gives_a_mixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = write(tmp_path, mesh=HEAD + "include: a.yaml\nservices: {web: {}}\n", a="services: {old: {}}\n")
    read = files.Disk.read
    swapped: list[str] = []

    def swap_after_the_first(disk: files.Disk, path: str) -> bytes:
        data = read(disk, path)
        if not swapped:
            swapped.append(path)
            write(tmp_path, mesh=HEAD + "include: a.yaml\nservices: {new-web: {}}\n", a="services: {new: {}}\n")
        return data

    monkeypatch.setattr(files.Disk, "read", swap_after_the_first)
    assert list(load_config(main).services) == ["new-web", "new"]


def test_files_that_never_stand_still_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = write(tmp_path, mesh=HEAD)
    monkeypatch.setattr(files.Disk, "unchanged", lambda disk: False)
    assert failing(main) == ["mesh.yaml: the files kept changing while they were read; try again"]


def test_the_digest_changes_exactly_with_the_files(tmp_path: Path) -> None:
    main = write(tmp_path, mesh=HEAD + "include: a.yaml\n", a="services: {a: {}}\n")
    first = load(main).digest
    assert load(main).digest == first
    write(tmp_path, a="services: {b: {}}\n")
    assert load(main).digest != first


def test_the_environment_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    config = load_text(HEAD + "services: {a: {run: echo $HOME ~, env: {A: '${HOME}'}}}\n")
    assert config.services["a"].run == ("echo", "$HOME", "~")
    assert config.services["a"].env == {"A": "${HOME}"}


def test_load_bytes_gives_warnings_too() -> None:
    loaded = load_bytes(HEAD.encode() + b"services: {a: {inbound: [{app: '127.0.0.1:1'}]}}\n")
    assert [each.path for each in loaded.warnings] == ["services.a"]

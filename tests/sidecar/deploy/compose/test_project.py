"""What a compose file tells of ports and callers, and what is said of one that cannot be injected."""

from __future__ import annotations

import pytest

from tests.kit.compose_files import calls, injected, mesh, mistakes, services


def shop(web: str, *others: str) -> str:
    """A file with a service `web` that says this, a database, and others."""
    return f"services:\n  web: {{image: w, {web}}}\n  db: {{image: 'postgres:16'}}\n" + "".join(
        f"  {each}\n" for each in others
    )


ORDERS = "orders: {image: o}"
HTTP = "orders: {image: o, expose: ['9000']}"


@pytest.mark.parametrize(
    ("web", "other", "found"),
    [
        ("depends_on: [db]", ORDERS, {"web → db:5432"}),
        ("depends_on: {db: {condition: service_completed_successfully}}", ORDERS, set()),
        ("links: ['db:database']", ORDERS, {"web → db:5432"}),
        ("environment: {URL: 'http://orders:8080/x'}", ORDERS, {"web → orders:8080"}),
        ("environment: ['URL=http://orders']", ORDERS, {"web → orders:80"}),
        ("environment: {URL: 'http://orders'}", HTTP, {"web → orders:80"}),
        ("environment: {DSN: 'postgresql+asyncpg://u:p@db/x'}", ORDERS, {"web → db:5432"}),
        ("environment: {DSN: 'jdbc:postgresql://db:5433/x'}", ORDERS, {"web → db:5433"}),
        ("environment: {KAFKA: 'orders:9092,db:5432'}", ORDERS, {"web → orders:9092", "web → db:5432"}),
        ("environment: {DB_HOST: db}", ORDERS, {"web → db:5432"}),
        ("environment: {POSTGRES_DB: db, ROLE: orders, NOTE: 'the db is fine'}", ORDERS, set()),
        ("environment: {URL: '${ORDERS:-http://orders:8081}'}", ORDERS, {"web → orders:8081"}),
        ("environment: {URL: 'http://orders.example.com:80', X: 'my-orders:80', Y: 'orders-2:80'}", ORDERS, set()),
        ("command: ['--upstream', 'orders:7000']", ORDERS, {"web → orders:7000"}),
        ("command: serve --upstream=http://orders:7001", ORDERS, {"web → orders:7001"}),
        ("env_file: .env.web", ORDERS, {"web → orders:7002"}),
        ("env_file: [{path: .env.web}]", ORDERS, {"web → orders:7002"}),
        ("environment: {SELF: 'http://web:80'}", ORDERS, set()),
        ("environment: {EMPTY: }", ORDERS, set()),
    ],
)
def test_who_calls_whom(web: str, other: str, found: set[str]) -> None:
    env = {".env.web": "# a comment\nexport ORDERS='http://orders:7002'\n"}
    assert calls(injected(shop(web, other), env_files=env)) == found


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("image: 'docker.io/library/redis:7@sha256:ab'", {6379: "tcp"}),
        ("image: '${REG:-x/y}/mysql:8'", {3306: "tcp"}),
        ("image: x, expose: [8080, '9000-9001']", {8080: "http", 9000: "http", 9001: "http"}),
        ("image: x, ports: ['8080:80', '127.0.0.1:5433:5432']", {80: "http", 5432: "tcp"}),
        ("image: x, ports: [{target: 50051, published: 50051, app_protocol: grpc}]", {50051: "http"}),
        ("image: x, ports: [{target: 9999, app_protocol: tcp}]", {9999: "tcp"}),
        ("image: x, labels: {sidecar.mesh/port: '8080'}", {8080: "http"}),
        ("image: x, labels: ['sidecar.mesh/port=8080/http, 9000/tcp']", {8080: "http", 9000: "tcp"}),
        ("image: x, labels: {sidecar.mesh/port: '8080', sidecar.mesh/protocol: auto}", {8080: "auto"}),
        ("image: postgres, labels: {sidecar.mesh/port: none}", {}),
        ("image: postgres, labels: {sidecar.mesh/port: 5432/http}", {5432: "http"}),
        ("image: worker", {}),
    ],
)
def test_where_a_service_listens(spec: str, found: dict[int, str]) -> None:
    service = mesh(injected(f"services:\n  one: {{{spec}}}\n")).services["one"]
    assert {each.port: each.protocol for each in service.inbound} == found


@pytest.mark.parametrize(
    ("ports", "found"),
    [
        ("'8080:80'", ["127.0.0.1:8080:80"]),
        ("'80'", ["127.0.0.1::80"]),
        ("80", ["127.0.0.1::80"]),
        ("'0.0.0.0:8080:80'", ["0.0.0.0:8080:80"]),
        ("'[::1]:8080:80'", ["[::1]:8080:80"]),
        ("'${PORT:-8080}:80'", ["127.0.0.1:${PORT:-8080}:80"]),
        ("'8080-8081:80-81'", ["127.0.0.1:8080:80", "127.0.0.1:8081:81"]),
        ("{target: 80, published: 8080, host_ip: 10.0.0.1}", ["10.0.0.1:8080:80"]),
    ],
)
def test_a_published_port_is_the_doors_and_local_unless_the_file_says_where(ports: str, found: list[str]) -> None:
    assert services(injected(f"services:\n  one: {{image: x, ports: [{ports}]}}\n"))["one-edge"]["ports"] == found


def test_a_label_says_where_doors_are_or_that_there_are_none() -> None:
    text = "services:\n  one: {image: x, ports: ['8080:80'], labels: {sidecar.mesh/publish: %s}}\n"
    assert services(injected(text % "0.0.0.0"))["one-edge"]["ports"] == ["0.0.0.0:8080:80"]
    assert "one-edge" not in services(injected(text % "'off'"))


def test_services_outside_the_mesh_are_called_in_plaintext_and_only_where_the_file_shows_it() -> None:
    made = injected(shop("environment: {URL: 'http://old:8080', API: 'https://api.example.com/v1'}, "
                         "labels: {sidecar.mesh/outside: '10.0.0.0/8:5432, files.example.com:443'}",
                         "old: {image: x, ports: ['1:1/udp'], labels: {sidecar.mesh/inject: 'false'}}"))  # fmt: skip
    web = mesh(made).services["web"]
    outside = {(each.to, str(each.endpoints[0].address)) for each in web.outbound if each.unmeshed == "passthrough"}
    assert outside == {("old", "old:8080"), ("files-example-com-443", "files.example.com:443")}
    assert web.redirect is not None
    assert [str(each) for each in web.redirect.passthrough] == ["10.0.0.0/8:5432"]
    assert "old-holder" not in services(made)
    assert any("api.example.com:443, outside the project" in note for note in made.project.notes)


def test_more_callers_by_label() -> None:
    made = injected(shop("labels: {sidecar.mesh/callers: 'orders', sidecar.mesh/port: '80'}", ORDERS))
    assert calls(made) == {"orders → web:80"}


def test_who_reads_the_metrics_of_all_does_so_by_mtls() -> None:
    made = injected(shop("depends_on: [db]", "prometheus: {image: prom/prometheus}"), metrics_to="prometheus")
    found = mesh(made).services
    assert {each.listener for each in found["prometheus"].outbound} == {"metrics"}
    (metrics,) = (each for each in found["db"].inbound if each.name == "metrics")
    assert metrics.app == found["db"].health.listen == found["web"].health.listen
    rule = next(each for each in found["db"].allow if each.name == "metrics")
    assert [str(path) for path in rule.paths] == ["/metrics"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("services:\n  web: [", "2:9: expected the node content"),
        ("services:\n\tweb: x", "2:1: found character '\\t' that cannot start any token"),
        ("services: {a: {image: x}, a: {image: y}}", "found duplicate key"),
        ("a: 1\n---\nb: 2\n", "keep one document in the file"),
        ("- a\n", "a compose file is a mapping"),
        ("", "a compose file is a mapping"),
        ("version: '3'\n", "has no services"),
        ("services: []\n", "has no services"),
        ("services:\n  web: nginx\n", "services.web: a service is a mapping"),
        ("include: [x.yml]\nservices: {a: {image: x}}", "include: other files are not followed; run `docker compose"),
        ("services: {a: {image: x, extends: {service: b}}}", "services.a.extends: what it inherits is not in sight"),
        ("services: {a: {image: x, network_mode: host}}", "'host' has no namespace of its own; the host's namespace"),
        ("services: {a: {image: x, network_mode: bridge}}", "'bridge' has no namespace of its own"),
        ("services: {a: {image: x, network_mode: 'service:b'}}", "'service:b' is no service that gets a sidecar"),
        ("services: {a: {image: x, privileged: true}}", "could remove the rules that protect it"),
        ("services: {a: {image: x, cap_add: [net_admin]}}", "could remove the rules that protect it"),
        ("services: {a: {image: x, user: '17000:0'}}", "17000 is the sidecar's own user"),
        ("services: {a: {image: x, ports: ['53:53/udp']}}", "services.a.ports[0]: 53:53/udp is UDP"),
        ("services: {a: {image: x, ports: ['80:${P}']}}", "'${P}' is set from outside; say it by the label"),
        ("services: {a: {image: x, ports: ['70000']}}", "'70000' is not a port"),
        ("services: {a: {image: x, ports: ['80:80']}, b: {image: x, ports: ['80:81']}}",
         "services.b.ports: port 80 of the host is published by a too"),
        ("services: {a: {image: x, depends_on: [b]}, b: {image: y}}",
         'nothing tells on which port b listens; give b the label sidecar.mesh/port: "8080"'),
        ("services: {orders: {image: x, depends_on: [ordres]}, b: {image: y}}", "there is no service 'ordres'"),
        ("services: {a: {image: x, labels: {sidecar.mesh/prot: http}}}", 'did you mean "port"?'),
        ("services: {a: {image: x, labels: {sidecar.mesh/port: 80/htp}}}", 'did you mean "http"?'),
        ("services: {a: {image: x, labels: {sidecar.mesh/port: '80'}, ports: ['81:81']}}", "81 is published, and"),
        ("services: {a: {image: x, environment: {U: 'http://b:90'}}, b: {image: x, labels: {sidecar.mesh/port: '80'}}}",
         "it names b:90, and the label sidecar.mesh/port of b does not have that port"),
        ("services: {a: {image: x, labels: {sidecar.mesh/callers: bb, sidecar.mesh/port: '1'}}, b: {image: x}}",
         "there is no service 'bb'"),
        ("services: {a: {image: x}, a-sidecar: {image: x}}", "this is the name of the sidecar of a; rename it"),
        ("services: {mesh-ca: {image: x}}", "this is the name of the CA"),
        ("services: {A_b: {image: x}}", "a SPIFFE ID has no room for this name"),
        ("services: {a: {image: x, deploy: {replicas: many}}}", "a number up to 50, written out, is needed"),
        ("services: {a: {image: x, scale: 2, container_name: n}}", "2 replicas cannot share one name"),
        ("services: {a: {image: x, external_links: [other]}}", "other projects have no identity here"),
        ("services: {a: {image: x, labels: {sidecar.mesh/part: door}}}", "was made by `mesh compose inject`"),
    ],
)  # fmt: skip
def test_what_cannot_be_injected_is_said_with_its_place(text: str, said: str) -> None:
    found = mistakes(text)
    assert any(said in each for each in found), found


def test_all_mistakes_are_told_at_once_with_their_lines() -> None:
    text = "services:\n  a:\n    image: x\n    privileged: true\n  b:\n    image: y\n    network_mode: host\n"
    assert [each.partition(" ")[0] for each in mistakes(text)] == ["4:5:", "7:5:"]


@pytest.mark.parametrize(
    "extra",
    [
        "profiles: [debug]", "secrets: [s]", "configs: [c]", "build: {context: ., args: {A: b}}", "env_file: [.env]",
        "network_mode: none", "x-own: 1", "shiny_new_key: {a: b}", "ulimits: {nofile: 10}", "pid: host",
    ],
)
def test_what_we_do_not_know_is_left_to_compose(extra: str) -> None:
    spec = services(injected(f"services:\n  a: {{image: x, {extra}}}\n  b: {{image: y}}\n"))["a"]
    key = extra.partition(":")[0]
    assert key in spec


def test_profiles_hold_for_what_is_around_a_service() -> None:
    found = services(injected("services:\n  a: {image: x, profiles: [debug], ports: ['1:1']}\n  b: {image: y}\n"))
    around = {name for name, spec in found.items() if spec.get("profiles") == ["debug"]}
    assert around == {"a", "a-holder", "a-sidecar", "a-edge"}


def test_a_name_that_nobody_scales() -> None:
    assert mistakes("services: {orders: {image: x}}", scale={"order": 2}) == [
        '1:1: --scale: there is no service \'order\' to scale; did you mean "orders"? [MESH001]'
    ]


def test_who_names_no_port_may_call_those_that_others_name() -> None:
    made = injected(shop("depends_on: [orders]", ORDERS, "jobs: {image: j, environment: {U: 'http://orders:8080'}}"))
    assert calls(made) == {"web → orders:8080", "jobs → orders:8080"}

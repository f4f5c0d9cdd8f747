"""Each kind of mistake: what is written, where it is reported, and what is proposed instead."""

from __future__ import annotations

import textwrap

import pytest

from sidecar.config.load import load_bytes, load_text
from sidecar.config.mistakes import MAX_MISTAKES, ConfigErrors, Mistake

HEAD = "trust_domain: demo.mesh\n"


def mistakes(text: str, others: dict[str, str] | None = None) -> tuple[Mistake, ...]:
    """All mistakes of this text; none where it loads."""
    try:
        load_text(text, "mesh.yaml", others)
    except ConfigErrors as errors:
        return errors.mistakes
    return ()


def one(text: str, others: dict[str, str] | None = None) -> Mistake:
    """The only mistake of this text."""
    found = mistakes(text, others)
    assert len(found) == 1, "\n".join(map(str, found)) or "no mistake at all"
    return found[0]


def service(block: str, name: str = "web") -> str:
    """A config with one service of this block, which begins in line 4."""
    return f"{HEAD}services:\n  {name}:\n{textwrap.indent(textwrap.dedent(block).strip(), '    ')}\n"


# ---- what YAML can say but a config must not (D1) ------------------------------------------------------------------

YAML = [
    ("a: b: c\n", 1, 5, "mapping values", "quote a value"),
    ("a: 'b\n", 1, 4, "unexpected end of stream", ""),
    ("trust_domain: a\ntrust_domain: b\n", 2, 1, 'duplicate key "trust_domain"', "line 1"),
    ("services:\n  web: {run: a, run: b}\n", 2, 17, 'duplicate key "run"', "line 2"),
    ("services:\n\tweb: {}\n", 2, 1, "a tab", "use spaces"),
    ("trust_domain:\tdemo\n", 1, 14, "a tab", "use spaces"),
    ("services:\n  a: &x {}\n  b: {}\n", 2, 6, "an anchor (&x)", "quote"),
    ("services:\n  a: *x\n", 2, 6, "an alias (*x)", 'quote it: "*x"'),
    ("a: *\n", 1, 5, "alias", 'quote a value that begins with *: "*"'),
    ("a: [*.example.org]\n", 1, 6, "alias", '"*.example.org"'),
    ("services:\n  <<: {a: {}}\n", 2, 3, "a merge key", "defaults"),
    ("trust_domain: !!str demo\n", 1, 15, "a tag", "quote"),
    ("trust_domain: !x demo\n", 1, 15, "a tag", "quote"),
    ("{[a]: b}\n", 1, 2, "a key has to be plain text", ""),
    ("a: [/x/{id}]\n", 1, 8, "flow sequence", '["/orders/{id}"]'),
    ("a: [::1]:80\n", 1, 5, "flow node", ""),
    ("a: [b] c\n", 1, 8, "expected <block end>", "quote values that begin with ["),
    ("a: @x\n", 1, 4, "cannot start any token", 'quote it: "@x"'),
    ("a: -\n b: 1\n", 1, 4, "sequence entries", 'quote a lone dash: "-"'),
    ("trust_domain: a\n---\ntrust_domain: b\n", 2, 1, "a second document", "one file"),
    ("", 1, 1, "the file is empty", "trust_domain"),
    ("# only a comment\n", 1, 1, "the file is empty", ""),
    ("- a\n", 1, 1, "a config is a mapping", "trust_domain"),
    ("text\n", 1, 1, "a config is a mapping", "trust_domain"),
    ('a: "\\UFFFFFFFF"\n', 1, 7, "an escape that stands for no character", ""),
    ('trust_domain: "a\\0b"\n', 1, 15, "a control character", ""),
    ("trust_domain: a\x07b\n", 1, 16, "U+0007", ""),
    ("a: " + "[" * 40 + "]" * 40, 1, 36, "nested more than 32 levels", ""),
    ("%YAML 3.0\n---\na: b\n", 1, 1, "not YAML", ""),
]


@pytest.mark.parametrize(("text", "line", "column", "message", "hint"), YAML)
def test_yaml_that_two_readers_could_read_differently_is_refused_at_its_place(
    text: str, line: int, column: int, message: str, hint: str
) -> None:
    first = next(each for each in mistakes(text) if message in str(each))
    assert (first.where.file, first.where.line, first.where.column) == ("mesh.yaml", line, column)
    assert hint in first.hint


def test_bytes_that_are_not_utf8_are_named_with_their_place() -> None:
    with pytest.raises(ConfigErrors) as caught:
        load_bytes(b"trust_domain: demo\nnamespace: caf\xe9\n")
    (mistake,) = caught.value.mistakes
    assert (mistake.where.line, mistake.where.column, mistake.message) == (2, 15, "byte 0xe9 is not UTF-8")


def test_a_file_over_one_mebibyte_is_not_read() -> None:
    assert "at most 1048576" in one(HEAD + "# " + "x" * (1 << 20)).message


def test_a_byte_order_mark_and_crlf_are_no_mistakes() -> None:
    assert load_text("\ufefftrust_domain: demo.mesh\r\nnamespace: shop\r\n").namespace == "shop"


def test_tabs_inside_quotes_and_comments_are_fine() -> None:
    text = service("run: \"printf 'a\tb'\" # tab\there")
    assert load_text(text).services["web"].run == ("printf", "a\tb")


def test_a_tab_in_a_line_with_a_comment_before_it_is_still_seen_where_it_matters() -> None:
    assert one(HEAD + "namespace:\tshop # and\ta comment\n").where.column == 11


# ---- single values -------------------------------------------------------------------------------------------------

VALUES = [
    ("run: no", 4, 10, "run", "take no for a boolean", 'quote it: "no"'),
    ("env: {DEBUG: on}", 4, 18, "env.DEBUG", "take on for a boolean", 'quote it: "on"'),
    ("env: {A: y}", 4, 14, "env.A", "take y for a boolean", 'quote it: "y"'),
    ("env: {A: 1:30}", 4, 14, "env.A", "take 1:30 for a number in base 60", 'quote it: "1:30"'),
    ("env: {A: 22:22}", 4, 14, "env.A", "base 60", 'quote it: "22:22"'),
    ("env: {A: 010}", 4, 14, "env.A", "take 010 for an octal number", 'quote it: "010"'),
    ("env: {A: 0o17}", 4, 14, "env.A", "octal", 'quote it: "0o17"'),
    ("env: {A: 1.10}", 4, 14, "env.A", "take 1.10 for a number", 'quote it: "1.10"'),
    ("env: {A: 1e3}", 4, 14, "env.A", "a number", 'quote it: "1e3"'),
    ("env: {A: 0x1F}", 4, 14, "env.A", "a number", 'quote it: "0x1F"'),
    ("env: {A: 1_000}", 4, 14, "env.A", "a number", 'quote it: "1_000"'),
    ("env: {A: .inf}", 4, 14, "env.A", "a number", 'quote it: ".inf"'),
    ("env: {A: 2026-01-02}", 4, 14, "env.A", "a date", 'quote it: "2026-01-02"'),
    ("env: {A: null}", 4, 14, "env.A", "no value", 'quote it: "null"'),
    ("env: {A: ~}", 4, 14, "env.A", "no value", 'quote it: "~"'),
    ("env: {A: }", 4, 13, "env.A", "has no value", "remove the key"),
    ("env: {no: a}", 4, 11, "env.no", "take no for a boolean", 'quote it: "no"'),
    ("env: {A-B: a}", 4, 11, "env.A-B", "not allowed", "digits and _"),
    ("env: {A: [b]}", 4, 14, "env.A", "found a list", "quote"),
    ("run: 'a \"b'", 4, 10, "run", "No closing quotation", "list"),
    ("run: []", 4, 10, "run", "is empty", ""),
    ("run: {a: b}", 4, 10, "run", "found a mapping", ""),
    ("address: http://x", 4, 14, "address", "neither an IP address nor a DNS name", ""),
    ("address: 127.0.0.256", 4, 14, "address", "neither an IP address", ""),
    ("address: orders:80", 4, 14, "address", "neither an IP address", 'without port: "orders"'),
    ("forward_proxy: 8080", 4, 20, "forward_proxy", "not host:port", "127.0.0.1:8080?"),
    ("forward_proxy: 127.0.0.1:0", 4, 20, "forward_proxy", "not a port", "1 to 65535"),
    ("forward_proxy: 127.0.0.1:99999", 4, 20, "forward_proxy", "not a port", "1 to 65535"),
    ("forward_proxy: :8080", 4, 20, "forward_proxy", "has no host", "127.0.0.1:8080?"),
    ("forward_proxy: ::1", 4, 20, "forward_proxy", "not host:port", "[::1]:8080"),
    ("forward_proxy: localhost", 4, 20, "forward_proxy", "not host:port", "localhost:8080"),
    ("identity: a//b", 4, 15, "identity", "is no identity", "namespace/service"),
    ("identity: a/b/c", 4, 15, "identity", "is no identity", "namespace/service"),
    ("identity: /a", 4, 15, "identity", "is no identity", "namespace/service"),
    ("identity: '*'", 4, 15, "identity", "letters, digits", "namespace/service"),
    ("identity: spiffe://demo.mesh/a/", 4, 15, "identity", "trailing slash", "namespace/service"),
    ("identity: https://a", 4, 15, "identity", "does not start with", "spiffe://"),
    ("timeouts: {connect: 5}", 4, 25, "timeouts.connect", "not a duration", "did you mean 5s?"),
    ("timeouts: {connect: 5 sec}", 4, 25, "timeouts.connect", "not a duration", "did you mean 5s?"),
    ("timeouts: {connect: 2 hours}", 4, 25, "timeouts.connect", "not a duration", "did you mean 2h?"),
    ("timeouts: {connect: 1:30}", 4, 25, "timeouts.connect", "not a duration", "did you mean 1m30s?"),
    ("timeouts: {connect: 0s}", 4, 25, "timeouts.connect", "no time at all", "1ms"),
    ("timeouts: {connect: -1s}", 4, 25, "timeouts.connect", "not a duration", "500ms"),
    ("timeouts: {connect: soon}", 4, 25, "timeouts.connect", "not a duration", "500ms"),
    ("limits: {connections: 0}", 4, 27, "limits.connections", "0 is not a count", "from 1"),
    ("limits: {connections: -4}", 4, 27, "limits.connections", "-4 is not a count", "from 1"),
    ("limits: {connections: 010}", 4, 27, "limits.connections", "differently", "write 10"),
    ("limits: {connections: 1_000}", 4, 27, "limits.connections", "differently", "write 1000"),
    ("limits: {connections: '7'}", 4, 27, "limits.connections", "is text", "without quotes"),
    ("limits: {connections: many}", 4, 27, "limits.connections", "not a whole number", "from 1"),
    ("limits: {connections: }", 4, 26, "limits.connections", "has no value", "remove"),
    ("limits: {head_bytes: 0}", 4, 26, "limits.head_bytes", "let nothing through", "default"),
    ("limits: {head_bytes: 64kb}", 4, 26, "limits.head_bytes", "not a size", "did you mean 64KiB?"),
    ("limits: {head_bytes: 1 M}", 4, 26, "limits.head_bytes", "not a size", "did you mean 1MiB?"),
    ("access_log: {sample: 10%}", 4, 26, "access_log.sample", "not a share", "did you mean 0.1?"),
    ("access_log: {sample: 2}", 4, 26, "access_log.sample", "more than the whole", "0 to 1"),
    ("access_log: {mode: eror}", 4, 24, "access_log.mode", '"eror" is not valid', 'did you mean "errors"?'),
    ("access_log: {mode: false}", 4, 24, "access_log.mode", '"false" is not valid', 'did you mean "off"?'),
    ("access_log: {mode: }", 4, 23, "access_log.mode", "has no value", "off, errors, all"),
    ("access_log: {headers: Cookie}", 4, 27, "access_log.headers", "never logged", "credentials"),
    ("access_log: {headers: [a b]}", 4, 28, "access_log.headers[0]", "not allowed", "letters"),
    ("tls: {unsafe_tls12: yes}", 4, 25, "tls.unsafe_tls12", "neither true nor false", "did you mean true?"),
    ("tls: {unsafe_tls12: 'true'}", 4, 25, "tls.unsafe_tls12", "neither true nor false", "without quotes"),
    ("tls: {unsafe_tls12: True}", 4, 25, "tls.unsafe_tls12", "neither true nor false", "did you mean true?"),
    ("tls: {unsafe_tls12: 1}", 4, 25, "tls.unsafe_tls12", "neither true nor false", "true or false"),
    ("access_log: {mode: [off]}", 4, 24, "access_log.mode", "found a list", "one of off"),
    ("run: ''", 4, 10, "run", "is empty", "name a program"),
    ("inbound: [{bind: localhost}]", 4, 22, "inbound[0].bind", "not an IP address", "127.0.0.1"),
    ("inbound: [{name: " + "a" * 65 + "}]", 4, 22, "inbound[0].name", "65 characters", "at most 64"),
    ("outbound: [{listen: '127.0.0.1:1'}]", 4, 16, "outbound[0].to", "is required", "A service of this file"),
    ("tls: yes", 4, 10, "tls", "expected a mapping", "unsafe_tls12"),
    ("tls:", 4, 9, "tls", "has no value", "{}"),
    ("inbound: {name: a}", 4, 14, "inbound", "expected a list", '"- "'),
    ("inbound:", 4, 13, "inbound", "has no value", "[]"),
    ("inbond: []", 4, 5, "inbond", "unknown key", 'did you mean "inbound"?'),
    ("colour: red", 4, 5, "colour", "unknown key", "valid here: identity, address"),
]


@pytest.mark.parametrize(("block", "line", "column", "path", "message", "hint"), VALUES)
def test_a_wrong_value_is_reported_with_place_path_and_proposal(
    block: str, line: int, column: int, path: str, message: str, hint: str
) -> None:
    mistake = one(service(block))
    assert (mistake.where.line, mistake.where.column) == (line, column), str(mistake)
    assert mistake.path == f"services.web.{path}"
    assert message in mistake.message, str(mistake)
    assert hint in mistake.hint, str(mistake)


RULES = [
    ("form: web", "form", "unknown key", 'did you mean "from"?'),
    ("callers: web", "callers", "unknown key", 'did you mean "from"?'),
    ("method: GET", "from", "is required", "Who calls"),
    ("from: []", "from", "is empty", "remove"),
    ("{from: web, method: []}", "method", "is empty, and nothing can match that", "remove the key"),
    ("{from: web, methods: GET}", "methods", "unknown key", 'did you mean "method"?'),
    ("{from: web, method: get}", "method", '"get" is not allowed', 'did you mean "GET"?'),
    ("{from: web, method: [GET, post]}", "method[1]", '"post" is not allowed', 'did you mean "POST"?'),
    ("{from: web, path: orders}", "path", "begins with `/`", ""),
    ("{from: web, path: /a/**/b}", "path", "may only stand last", ""),
    ("{from: web, host: 'a:80'}", "host", "without port", ""),
    ("{from: web, host: '*.*.a'}", "host", "", ""),
    ("{from: we*b}", "from", "one whole segment", ""),
    ("{from: 'spiffe://*/ns/a'}", "from", "trust domain must be written out", ""),
    ("{from: web, source: 10.0.0.1/8}", "source", "not a network", "did you mean 10.0.0.0/8?"),
    ("{from: web, source: any}", "source", "not a network", "10.0.0.0/8"),
    ("{from: web, headers: {}}", "headers", "is empty", ""),
    ("{from: web, headers: [x]}", "headers", "expected a mapping", "header: value"),
    ("{from: web, headers: {'a b': c}}", "headers.a b", "not allowed", "letters"),
    ("{from: web, headers: {x-a: yes}}", "headers.x-a", "take yes for a boolean", 'quote it: "yes"'),
    ("{from: web, headers: {x-a: {prefx: b}}}", "headers.x-a.prefx", "unknown key", 'did you mean "prefix"?'),
    ("{from: web, headers: {x-a: {present: false}}}", "headers.x-a", "can only be true", "present: true"),
    ("{from: web, headers: {x-a: {present: yes}}}", "headers.x-a.present", "neither", "did you mean true?"),
    ("{from: web, headers: {x-a: {}}}", "headers.x-a", "exactly one", ""),
    ("{from: web, headers: {x-a: b, X-A: c}}", "headers.X-A", "named twice", "no case"),
    ("{from: web, headers: {mesh-peer: b}}", "headers.mesh-peer", "reserved", "mesh-*"),
    ("{from: web, headers: {mesh_peer: b}}", "headers.mesh_peer", "reserved", "mesh-*"),
    ("{from: web, port: htp}", "port", 'no inbound listener "htp"', 'did you mean "http"?'),
    ("{from: web, port: [http, 1]}", "port[1]", 'no inbound listener "1"', "web has: http"),
    ("{from: web, shadow: on}", "shadow", "neither true nor false", "did you mean true?"),
    ("{from: web, name: a b}", "name", "not allowed", "letters"),
    ("{from: web, effect: deny}", "effect", "unknown key", "valid here"),
    ("web", "", "expected a mapping", "its keys are name, from"),
]


@pytest.mark.parametrize("effect", ["allow", "deny"])
@pytest.mark.parametrize(("rule", "path", "message", "hint"), RULES)
def test_a_wrong_rule_is_reported_with_path_and_proposal(
    rule: str, path: str, message: str, hint: str, effect: str
) -> None:
    mistake = one(service(f"inbound: [{{app: '127.0.0.1:1'}}]\n{effect}:\n  - {rule}\n"))
    assert mistake.path == f"services.web.{effect}[0]" + (f".{path}" if path else "")
    assert mistake.where.line == 6
    assert message in mistake.message, str(mistake)
    assert hint in mistake.hint, str(mistake)


TOP = [
    ("namespace: shop\n", "trust_domain", "is required", ""),
    ("trust_domain: Demo\n", "trust_domain", "only a-z", 'did you mean "demo"?'),
    ("trust_domain: spiffe://demo.mesh\n", "trust_domain", "only a-z", 'did you mean "demo.mesh"?'),
    ("trust_domian: demo\n", "trust_domian", "unknown key", 'did you mean "trust_domain"?'),
    ("trust_domain: A b\n", "trust_domain", "only a-z", ""),
    (HEAD + "namespace: a/b\n", "namespace", "not allowed", ""),
    (HEAD + "services: []\n", "services", "expected a mapping", ""),
    (HEAD + "services:\n", "services", "has no value", "{}"),
    (HEAD + "services:\n  Web: {}\n", "services.Web", "not allowed", 'did you mean "web"?'),
    (HEAD + "services:\n  no: {}\n", "services.no", "take no for a boolean", 'quote it: "no"'),
    (HEAD + "services:\n  web:\n", "services.web", "has no value", "{}"),
    (HEAD + "services:\n  web: 5\n", "services.web", "expected a mapping", "its keys are identity"),
    (
        f"trust_domain: {'a' * 200}\nnamespace: x\nservices: {{{'b' * 64}: {{}}}}\n",
        f"services.{'b' * 64}",
        "64 char",
        "",
    ),
    (HEAD + "ca: {address: ca.example.org}\n", "ca.address", "not host:port", "ca.example.org:8080"),
    (HEAD + "defaults: {timeout: {}}\n", "defaults.timeout", "unknown key", 'did you mean "timeouts"?'),
]


@pytest.mark.parametrize(("text", "path", "message", "hint"), TOP)
def test_a_wrong_key_of_the_file_is_reported(text: str, path: str, message: str, hint: str) -> None:
    mistake = one(text)
    assert mistake.path == path
    assert message in mistake.message
    assert hint in mistake.hint


# ---- all at once ---------------------------------------------------------------------------------------------------


def test_every_mistake_is_reported_at_once_in_the_order_of_the_file() -> None:
    text = """\
trust_domain: demo.mesh
services:
  web:
    inbound:
      - port: 22:22
        app: 10.0.0.5:80
        protocol: htp
    outbound:
      - to: ordrs
    allow:
      - form: orders
        method: get
        shadow: yes
  orders:
    timeouts: {connect: 5, drain: 1:30}
    inbound:
      - {app: "127.0.0.1:9000", protocol: tcp}
    allow:
      - from: "*"
        method: GET
    env: {DEBUG: no}
"""
    found = [(each.where.line, each.path.removeprefix("services.")) for each in mistakes(text)]
    assert found == [
        (5, "web.inbound[0].port"),
        (6, "web.inbound[0].app"),
        (7, "web.inbound[0].protocol"),
        (9, "web.outbound[0].to"),
        (11, "web.allow[0].form"),
        (12, "web.allow[0].method"),
        (13, "web.allow[0].shadow"),
        (15, "orders.timeouts.connect"),
        (15, "orders.timeouts.drain"),
        (20, "orders.allow[0].method"),
        (21, "orders.env.DEBUG"),
    ]


def test_what_follows_from_a_mistake_is_not_reported_as_a_second_one() -> None:
    """`web` loses its listener to one mistake; that orders cannot find it is no second one."""
    text = """\
trust_domain: demo.mesh
services:
  web:
    inbound: [{name: http, prot: 1}, 5]
    allow: [{from: orders, port: second}]
  orders:
    outbound: [{to: web, port: second}]
"""
    assert [each.path for each in mistakes(text)] == ["services.web.inbound[0].prot", "services.web.inbound[1]"]


def test_a_mistake_reads_like_a_compilers() -> None:
    text = service("allow:\n  - form: orders")
    assert str(one(text)) == 'mesh.yaml:5:9: services.web.allow[0].form: unknown key; did you mean "from"? [MESH001]'


def test_the_error_says_everything_and_keeps_the_text_for_quoting() -> None:
    with pytest.raises(ConfigErrors) as caught:
        load_text("a: 1\nb: 2\n")
    assert len(str(caught.value).splitlines()) == 3
    assert caught.value.sources == {"mesh.yaml": "a: 1\nb: 2\n"}
    assert caught.value.name == "config"


def test_a_file_that_is_no_config_at_all_is_not_quoted_back_whole() -> None:
    text = HEAD + "".join(f"key{n}: 1\n" for n in range(2000))
    found = mistakes(text)
    assert len(found) == MAX_MISTAKES + 1
    assert "was not read" in found[-1].message

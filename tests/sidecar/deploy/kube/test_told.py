"""A pod is held to what its mesh.yaml says, and told where its Services are not held."""

from __future__ import annotations

import textwrap

import pytest

from sidecar.config.load import load_text
from sidecar.deploy.kube.files import Outlook, work
from sidecar.deploy.kube.told import Around, gather, given

WEB = """\
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  serviceAccountName: web
  containers: [{name: app, image: web}]
"""
ORDERS = "  orders: {address: 10.0.0.2, inbound: [{port: 8080, app: '127.0.0.1:8080'}], allow: [{from: web}]}\n"
MESH = "trust_domain: demo.mesh\nnamespace: shop\nservices:\n"
CAPTURED = f"{MESH}  web:\n    redirect: {{}}\n    outbound: [{{to: orders}}]\n{ORDERS}"
EXPLICIT = f"{MESH}  web:\n    outbound: [{{to: orders, listen: '127.0.0.1:9001'}}]\n{ORDERS}"
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec: {clusterIP: 10.96.0.7, ports: [{port: 80, targetPort: 8080}, {port: 53, protocol: UDP}]}
"""


def config_map(text: str, name: str = "mesh-config", more: str = "") -> str:
    """A ConfigMap with this mesh.yaml; it begins at line 6."""
    head = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}{more}}}\ndata:\n  mesh.yaml: |\n"
    return head + textwrap.indent(text, "    ")


def injected(*documents: str, mode: str = "redirect", around: Around | None = None) -> Outlook:
    """What becomes of one file of these documents."""
    text = "---\n".join(documents)
    found = gather([("app.yaml", text)], around or Around())
    return work("app.yaml", text, {"mode": mode}, around=found)


@pytest.mark.parametrize(("text", "mode"), [(CAPTURED, "redirect"), (EXPLICIT, "explicit")])
def test_where_both_say_the_same_nothing_is_said(text, mode):
    by_hand = given(load_text(text))
    for outlook in (injected(config_map(text), WEB, mode=mode), injected(WEB, mode=mode, around=by_hand)):
        assert (outlook.mistakes, outlook.warnings) == ([], [])
        assert [each.outcome for each in outlook.done] == ["injected"]


@pytest.mark.parametrize(
    ("text", "mode", "what", "advice"),
    [
        (
            EXPLICIT, "redirect", "mode redirect, and app.yaml:9 says no `redirect` of web",
            "write `redirect: {}` in app.yaml:9, or inject it with --mode explicit",
        ),
        (CAPTURED, "explicit", "mode explicit installs no rules, and app.yaml:9 says `redirect` of web", "app.yaml:9"),
    ],
)  # fmt: skip
def test_where_they_differ_nothing_is_done_and_both_places_are_named(text, mode, what, advice):
    outlook = injected(config_map(text), WEB, mode=mode)
    [mistake] = outlook.mistakes
    assert (mistake.file, mistake.whose) == ("app.yaml", "Pod/web")
    assert mistake.what.startswith(what)
    assert advice in mistake.advice
    assert "mesh-sidecar" not in outlook.text


def test_one_on_the_command_line_holds_for_every_pod_and_is_named_as_it_is_called():
    outlook = injected(WEB, around=given(load_text(EXPLICIT, "deploy/mesh.yaml")))
    assert "deploy/mesh.yaml:4" in outlook.mistakes[0].what


def test_a_service_that_the_config_does_not_have_would_not_start():
    outlook = injected(config_map(CAPTURED), WEB.replace("serviceAccountName: web", "serviceAccountName: wbe"))
    [mistake] = outlook.mistakes
    assert str(mistake).endswith('app.yaml:6 has no service wbe, so the sidecar would not start; did you mean "web"?')
    around = given(load_text(CAPTURED, "deploy/mesh.yaml"))
    outlook = injected(WEB.replace("serviceAccountName: web", "serviceAccountName: stock"), around=around)
    assert "deploy/mesh.yaml:1 has no service stock" in outlook.mistakes[0].what
    assert outlook.mistakes[0].advice == "it has: web, orders"


@pytest.mark.parametrize("other", [config_map(EXPLICIT, "other"), config_map(EXPLICIT, more=", namespace: bank")])
def test_the_config_of_others_says_nothing(other):
    assert not injected(other, WEB).mistakes


def test_a_config_with_mistakes_is_named_and_nothing_is_compared_with_it():
    outlook = injected(config_map(EXPLICIT.replace("outbound", "outbond")), WEB)
    assert not outlook.mistakes
    [warning] = outlook.warnings
    assert str(warning).startswith("app.yaml:1: ConfigMap/mesh-config: data: this mesh.yaml has mistakes")
    assert "outbond" in warning.what


def test_a_part_of_the_config_has_its_own_lines():
    main, part = "trust_domain: demo.mesh\nnamespace: shop\ninclude: [web.yaml]\n", EXPLICIT.removeprefix(MESH)
    both = config_map(main) + "  web.yaml: |\n" + textwrap.indent(f"services:\n{part}", "    ")
    assert "app.yaml:11" in injected(both, WEB).mistakes[0].what


LISTED = "apiVersion: v1\nkind: List\nitems:\n-" + textwrap.indent(SERVICE, "  ")[1:]


@pytest.mark.parametrize("kept", [SERVICE, LISTED])
def test_the_address_of_a_service_that_no_upstream_holds(kept):
    outlook = injected(config_map(CAPTURED), kept, WEB)
    [warning] = outlook.warnings
    assert not outlook.mistakes
    assert "connects to orders by the address of its Service (app.yaml:" in warning.what
    assert "the upstream in app.yaml:11 does not hold" in warning.what
    assert warning.advice == "write there `addresses: ['orders.shop.svc:80']`"


@pytest.mark.parametrize(
    ("address", "heard"),
    [("orders.shop.svc:80", False), ("orders:80", False), ("10.96.0.7:80", False), ("10.96.0.7:81", True)],
)
def test_addresses_hold_it(address, heard):
    text = CAPTURED.replace("{to: orders}", f"{{to: orders, addresses: '{address}'}}")
    assert bool(injected(config_map(text), SERVICE, WEB).warnings) is heard


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        ("clusterIP: 10.96.0.7", "clusterIP: None"), ("clusterIP: 10.96.0.7", "type: ExternalName"),
        ("namespace: shop", "namespace: bank"), ("name: orders", "name: stock"), ("port: 80,", "protocol: UDP,"),
        ("{clusterIP: 10.96.0.7, ports: [{port: 80, targetPort: 8080}, {port: 53, protocol: UDP}]}", "null"),
    ],
)  # fmt: skip
def test_other_services_are_none_of_its_business(said, instead):
    assert said in SERVICE
    assert not injected(config_map(CAPTURED), SERVICE.replace(said, instead), WEB).warnings


def test_what_is_found_by_slices_is_held_by_the_services_name():
    slices = "{to: stock, identity: stock, endpoints_from: {kubernetes: {service: orders, port: http}}}"
    [warning] = injected(config_map(CAPTURED.replace("{to: orders}", slices)), SERVICE, WEB).warnings
    assert "orders.shop.svc:80" in warning.advice


def test_manifests_that_cannot_be_read_are_somebody_elses_to_report():
    around = gather([("a.yaml", "kind: Service\nmetadata: ["), ("b.yaml", SERVICE)], Around())
    assert [each.name for each in around.services] == ["orders"]

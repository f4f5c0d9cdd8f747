"""Reaching a cluster: kubeconfigs that are read and that are not; lists from an API server with bad days."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
import yaml
from click.testing import CliRunner

from sidecar.cli.root import run_command
from sidecar.cli.uninjected import uninjected
from sidecar.deploy.cluster import listing
from sidecar.deploy.cluster.access import Access, find, of_kubeconfig, of_pod, proxied
from sidecar.deploy.cluster.listing import listed
from sidecar.net import http_client
from sidecar.net.http_server import Request, Response, serve_http
from sidecar.net.kube_api import CannotAsk
from tests.kit.fake_slices import FakeApi
from tests.sidecar.deploy.cluster.test_escaped import a_pod

PODS = "/api/v1/namespaces/shop/pods"
MANY = 25


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "WAIT", 0.01)
    monkeypatch.setattr(listing, "PAGE", 10)


def pods(many: int = MANY) -> list[dict[str, Any]]:
    found = []
    for number in range(many):
        pod = a_pod() if number else a_pod([])
        pod["metadata"]["name"] = f"orders-{number}"
        found.append(pod)
    return found


def kubeconfig(folder: Path, api: FakeApi, user: dict[str, Any], **cluster: Any) -> Path:
    ca = base64.b64encode(api.authority.cert_pem.bytes()).decode()
    path = folder / "config"
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [
                    {"name": "c", "cluster": {"server": api.url, "certificate-authority-data": ca, **cluster}},
                ],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    return path


def names(folder: Path, spoil: Callable[[FakeApi], None] = lambda api: None) -> tuple[list[str], FakeApi]:
    with FakeApi() as api:
        api.others[PODS] = ("Pod", pods())
        spoil(api)
        access = of_kubeconfig(kubeconfig(folder, api, {"token": api.token}))
        found = trio.run(listed, access, PODS, "Pod", lambda pod: str(pod["metadata"]["name"]))
    return found, api


ALL = [f"orders-{number}" for number in range(MANY)]


def test_a_list_in_pages(tmp_path: Path) -> None:
    found, api = names(tmp_path)
    assert found == ALL
    assert api.asked == ["list", "page", "page"]


@pytest.mark.parametrize(
    ("bad", "asked"),
    [
        ([("page", 410, "too old", {})], ["list", "page", "list", "page", "page"]),
        ([("list", 429, "later", {"retry-after": "0"})], ["list", "list", "page", "page"]),
        ([("list", 500, "no leader", {}), ("page", 503, "", {})], ["list", "list", "page", "list", "page", "page"]),
    ],
)
def test_bad_days(tmp_path: Path, bad: list[Any], asked: list[str]) -> None:
    found, api = names(tmp_path, lambda api: setattr(api, "bad_days", bad))
    assert found == ALL
    assert api.asked == asked


def test_a_server_that_restarts_between_pages_or_closes_after_each(tmp_path: Path) -> None:
    found, api = names(tmp_path, lambda api: setattr(api, "breaks", 1))
    assert found == ALL
    assert api.asked == ["list", "page", "list", "page", "page"]
    assert names(tmp_path, lambda api: setattr(api, "closes", True))[0] == ALL


def test_large_objects_come_in_smaller_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "MAX_ANSWER", 2000)
    found, api = names(tmp_path)
    assert found == ALL
    assert api.limits[:2] == [10, 1]


@pytest.mark.parametrize(
    ("status", "why", "times"),
    [
        (401, "does not accept who we are (401)", 1), (403, "may not list /api/v1", 1), (404, "with 404", 1),
        (503, "with 503", 5),
    ],
)
def test_refusals(tmp_path: Path, status: int, why: str, times: int) -> None:
    seen: list[FakeApi] = []

    def spoil(api: FakeApi) -> None:
        api.refuse = (status, "who are you")
        seen.append(api)

    with pytest.raises(CannotAsk) as caught:
        names(tmp_path, spoil)
    assert why in str(caught.value)
    assert "who are you" in str(caught.value)
    assert len(seen[0].asked) == times


def test_another_ones_certificate_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(CannotAsk, match="certificate is refused"):
        names(tmp_path, lambda api: setattr(api, "authority", trustme.CA()))


def test_a_token_file_is_read_anew_and_a_client_certificate_shown(tmp_path: Path) -> None:
    mine = trustme.CA().issue_cert("me")
    (tmp_path / "chain").write_bytes(mine.cert_chain_pems[0].bytes())
    (tmp_path / "key").write_bytes(mine.private_key_pem.bytes())
    with FakeApi() as api:
        api.others[PODS] = ("Pod", pods(3))
        (tmp_path / "token").write_text(api.token)
        user = {"tokenFile": "token", "client-certificate": "chain", "client-key": "key"}
        access = of_kubeconfig(kubeconfig(tmp_path, api, user))
        assert len(trio.run(listed, access, PODS, "Pod", str)) == 3
        (tmp_path / "token").write_text("another")
        with pytest.raises(CannotAsk, match="401"):
            trio.run(listed, access, PODS, "Pod", str)
        (tmp_path / "key").write_bytes(trustme.CA().issue_cert("you").private_key_pem.bytes())
        with pytest.raises(CannotAsk, match="client certificate"):
            trio.run(listed, of_kubeconfig(tmp_path / "config"), PODS, "Pod", str)


@pytest.mark.parametrize(
    ("user", "cluster", "why"),
    [
        ({"exec": {"command": "aws"}}, {}, "`exec` is not read here; run `kubectl proxy`"),
        ({"auth-provider": {"name": "gcp"}}, {}, "`auth-provider`"),
        ({}, {"proxy-url": "http://p"}, "`proxy-url`"),
        ({}, {"insecure-skip-tls-verify": True}, "nobody knows who answers"),
        ({}, {"server": "http://plain"}, "is not an https:// URL"),
        ({"client-certificate": "/nowhere", "client-key": "/nowhere"}, {}, "No such file"),
        ({"client-certificate-data": "!", "client-key-data": "!"}, {}, "client-certificate"),
    ],
)
def test_kubeconfigs_that_are_not_taken(tmp_path: Path, user: Any, cluster: Any, why: str) -> None:
    with FakeApi() as api, pytest.raises(CannotAsk) as caught:
        of_kubeconfig(kubeconfig(tmp_path, api, user, **cluster))
    assert why in str(caught.value)


def test_what_is_there_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeApi() as api:
        path = kubeconfig(tmp_path, api, {"token": "t"})
        assert str(find("", "", "here", {"KUBECONFIG": f"{path}:/other"})) == api.url
        with pytest.raises(CannotAsk, match="contexts has no 'there'; it has: here"):
            find("", str(path), "there", {})
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(CannotAsk, match="No such file"):
            find("", "", "", {})
        path.write_text("- 7")
        with pytest.raises(CannotAsk, match="is no kubeconfig"):
            find("", str(path), "", {})
        path.write_text("{")
        with pytest.raises(CannotAsk, match="not YAML"):
            find("", str(path), "", {})
    (tmp_path / "ca.crt").write_bytes(trustme.CA().cert_pem.bytes())
    assert str(of_pod({"KUBERNETES_SERVICE_HOST": "fd00::1"}, tmp_path)) == "https://[fd00::1]"
    with pytest.raises(CannotAsk, match="this is no pod"):
        of_pod({}, tmp_path)


@pytest.mark.parametrize("url", ["https://127.0.0.1:8001", "http://10.0.0.1:8001", "http://u@127.0.0.1", "x", "http://h:x"])
def test_a_proxy_is_on_this_machine(url: str) -> None:
    with pytest.raises(CannotAsk, match="kubectl proxy"):
        proxied(url)
    assert proxied("http://[::1]:8001/") == Access("::1", 8001, "", tls=False)


def test_through_a_proxy() -> None:
    async def answer(request: Request) -> Response:
        assert not request.header(b"authorization")
        return Response.of_json(200, {"kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": pods(2)})

    async def run() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, lambda stream: serve_http(stream, answer), [listener])
            assert len(await listed(proxied(f"http://127.0.0.1:{port}"), PODS, "Pod", str)) == 2
            nursery.cancel_scope.cancel()

    trio.run(run)


def test_the_verb(tmp_path: Path) -> None:
    shop = {"metadata": {"name": "shop", "labels": {"sidecar.mesh/inject": "enabled"}}}
    with FakeApi() as api:
        api.others[PODS] = ("Pod", pods())
        api.others["/api/v1/namespaces"] = ("Namespace", [shop, {"metadata": {"name": "plain"}}])
        config = str(kubeconfig(tmp_path, api, {"token": api.token}))
        told = CliRunner().invoke(uninjected, ["--kubeconfig", config], standalone_mode=False)
        assert told.return_value == 1
        assert "shop       orders-0  no-sidecar  no container mesh-sidecar" in told.stdout
        assert "made before the namespace was labelled" in told.stdout
        facts = CliRunner().invoke(uninjected, ["--kubeconfig", config, "-o", "json"], standalone_mode=False)
        document = json.loads(facts.stdout)
        assert (document["namespaces"], document["pods"]) == (["shop"], MANY)
        assert [each["pod"] for each in document["escaped"]] == ["orders-0"]
        api.others[PODS] = ("Pod", pods()[1:])
        well = CliRunner().invoke(uninjected, ["--kubeconfig", config], standalone_mode=False)
        assert (well.return_value, well.stdout) == (0, "All 24 pods of 1 namespace have a sidecar.\n")
        api.others["/api/v1/namespaces"] = ("Namespace", [])
        none = CliRunner().invoke(uninjected, ["--kubeconfig", config], standalone_mode=False)
        assert "has the label sidecar.mesh/inject=enabled" in none.stdout


def test_the_verb_reads_what_kubectl_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = {"kind": "Namespace", "metadata": {"name": "shop", "labels": {"sidecar.mesh/inject": "enabled"}}}
    text = json.dumps({"kind": "List", "items": [shop, *pods(3)]})
    told = CliRunner().invoke(uninjected, ["-f", "-"], input=text, standalone_mode=False)
    assert told.return_value == 1
    assert "orders-0" in told.stdout
    for bad in ("", "[]", '{"items": 7}', '{"items": [7]}'):
        (tmp_path / "bad").write_text(bad)
        assert run_command(["uninjected", "-f", str(tmp_path / "bad")]) == 2
    assert run_command(["uninjected", "-f", str(tmp_path / "no")]) == 2
    assert run_command(["uninjected", "--api", "http://10.0.0.1"]) == 3
    assert "`kubectl proxy` listens here" in capsys.readouterr().err

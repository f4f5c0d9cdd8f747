"""The commands for proofs without a secret, clusters, and keys of tokens: what they write, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from certs.enrolment import Enrolment, KubernetesToken, UnixSocket
from tests.ca.test_cli import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    shell.init()
    return shell


K8S = ("--selector", "k8s:cluster:prod", "--selector", "k8s:ns:shop", "--selector", "k8s:sa:orders")


def test_an_entry_says_what_must_be_shown(shell: Shell) -> None:
    added = shell.json("entry", "add", "orders", *K8S, "--expired-for", "7d")
    assert added["selectors"] == ["k8s:cluster:prod", "k8s:ns:shop", "k8s:sa:orders"]
    assert added["expired_for_seconds"] == 7 * 86400
    shown = shell.ok("entry", "show", "orders")
    assert "selector k8s:sa:orders" in shown
    assert "expired certificates are accepted for 7d" in shown
    assert "mesh ca enrolment web-" in shell.ok("entry", "add", "web", "--selector", "unix:uid:7")
    assert "fit too many" in shell.refused("entry", "add", "bad", "--selector", "k8s:sa:orders")
    assert "at most 7d" in shell.refused("entry", "add", "bad", "--expired-for", "8d")


def test_a_file_without_a_secret(shell: Shell) -> None:
    shell.ok("entry", "add", "orders", *K8S)
    out = shell.folder / "orders.json"
    shell.ok("enrolment", "orders", "--kubernetes", "/t", "--cluster", "prod", "--out", str(out))
    assert Enrolment.load(out).proof == KubernetesToken("/t", "prod")
    assert "give --force" in shell.refused("enrolment", "orders", "--kubernetes", "/t", "--out", str(out))
    printed = shell.ok("enrolment", "orders", "--socket", "/run/ca.sock")
    assert Enrolment.parse(printed.encode()).proof == UnixSocket("/run/ca.sock")
    assert json.loads(shell.ok("enrolment", "orders", "--kubernetes"))["kubernetes_token_file"].endswith("/mesh/token")
    assert "one of --kubernetes and --socket" in shell.refused("enrolment", "orders")
    shell.ok("entry", "add", "bare")
    assert "has no selectors" in shell.refused("enrolment", "bare", "--socket", "/x")


def test_clusters_come_and_go(shell: Shell) -> None:
    assert "are proofs from now on" in shell.ok("cluster", "add", "prod", "--oidc", "https://issuer.example")
    assert shell.json("cluster", "list")["clusters"] == [
        {"name": "prod", "mode": "oidc", "url": "https://issuer.example", "audience": "mesh-ca"}
    ]
    assert "known already" in shell.refused("cluster", "add", "prod", "--oidc", "https://issuer.example")
    assert "one of --review" in shell.refused("cluster", "add", "two")
    both = ("--review", "https://a", "--oidc", "https://b")
    assert "one of --review" in shell.refused("cluster", "add", "two", *both)
    assert "token file" in shell.refused("cluster", "add", "two", "--review", "https://a")
    assert "https" in shell.refused("cluster", "add", "two", "--oidc", "http://a")
    same = ("cluster", "add", "prod", "--oidc", "https://issuer.example", "--replace")
    lines = len(shell.ok("log", "--all").splitlines())
    shell.ok(*same)  # a step that runs at every start of a pod
    assert len(shell.ok("log", "--all").splitlines()) == lines
    shell.ok(*same[:-2], "https://other.example", "--replace")
    assert [each["url"] for each in shell.json("cluster", "list")["clusters"]] == ["https://other.example"]
    shell.ok("cluster", "add", "third", *same[3:])
    shell.ok("cluster", "remove", "third")
    shell.ok("cluster", "remove", "prod")
    assert "no cluster" in shell.refused("cluster", "remove", "prod")
    assert "the log holds" in shell.ok("log", "verify")


def test_a_key_of_tokens_is_replaced(shell: Shell) -> None:
    secret = ("--passphrase-file", shell.passphrase)
    first = shell.json("renew-jwt-key", *secret)
    assert first["revoked"] == []
    second = shell.json("renew-jwt-key", "--revoke", *secret)
    assert first["kid"] in second["revoked"]
    assert len(second["revoked"]) == 2, "the one before was still published"
    wrong = shell.secret("wrong", "another passphrase\n")
    before = shell.ok("log", "--all", "-o", "json")
    assert "passphrase" in shell.refused("renew-jwt-key", "--revoke", "--passphrase-file", wrong)
    assert shell.ok("log", "--all", "-o", "json") == before, "nothing is made under a passphrase that opens nothing"
    assert "10s to 1h" in shell.refused("serve", "--jwt-ttl", "2h", "--passphrase-file", wrong, code=2)

"""`mesh injector`: wrong arguments are told before anything starts. tests/integration/test_injector.py has the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from certs.enrolment import Enrolment, KubernetesToken
from certs.spiffe import SpiffeId, TrustDomain
from sidecar.cli.console import Code, Failure
from sidecar.cli.injector import injector


@pytest.fixture
def enrolment(tmp_path: Path) -> Path:
    """An enrolment file, as the CA would write it for the injector."""
    who = SpiffeId.parse("spiffe://shop.example/ns/mesh-system/sa/mesh-injector")
    proof = KubernetesToken("/var/run/secrets/mesh/token")
    domain = TrustDomain.parse("shop.example")
    Enrolment(domain, "ca:17012", ("a" * 64,), "injector", who, proof).save(tmp_path / "e.json")
    return tmp_path / "e.json"


@pytest.mark.parametrize(
    ("arguments", "what", "advice"),
    [
        (["--enrolment", "/nowhere"], "there is no enrolment file /nowhere", "mesh ca enrolment"),
        ([], "this is no pod (KUBERNETES_SERVICE_HOST is not set)", "--configuration ''"),
        (["--api", "http://localhost"], "is not an https:// URL", "--configuration ''"),
        (["--configuration", ""], "the namespace that we run in is not known", "--dns-name mesh-injector.NAMESPACE"),
        (["--set", "mode=both"], "mode: 'both' is none of the words", "redirect"),
    ],
)
def test_wrong_arguments(enrolment, tmp_path, monkeypatch, arguments, what, advice):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    own = [] if "--enrolment" in arguments else ["--enrolment", str(enrolment)]
    result = CliRunner().invoke(injector, [*own, "--state", str(tmp_path / "s"), *arguments], standalone_mode=False)
    assert isinstance(result.exception, Failure), result.exception
    assert what in str(result.exception)
    assert advice in result.exception.advice
    assert result.exception.code is Code.USAGE
    assert not (tmp_path / "s").exists()

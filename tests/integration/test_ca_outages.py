"""The CA away at the start, later, and back again; and a sidecar that dies without a word."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.meshes import Pair
from tests.kit.nonce import NonceLoad
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Nothing but the application runs yet; at the end everything must."""
    pair = Pair(tmp_path)
    with echo_app(tmp_path, pair.ports.app), pair:
        yield pair
        assert curl("-w", "%{http_code}", "-o", "/dev/null", pair.url).text == "200"
        pair.assert_well()


def test_sidecars_that_start_before_the_ca_come_up_by_themselves(pair: Pair) -> None:
    for name in ("web", "app"):
        pair[name].start(ready=False)
        eventually("it has tried", lambda: tried(pair, name))  # noqa: B023
    status = pair["web"].status()
    assert status["state"] == "starting"
    assert "no identity yet" in status["not_ready"][0]
    assert f"127.0.0.1:{pair.ports.ca}" in status["identity"]["last_error"]  # which CA, not only that there is none
    assert pair["web"].probe("/livez") == 200
    assert pair["web"].probe("/readyz") == 503
    assert pair.mesh("status", "--ready").returncode == 1
    assert curl("-w", "%{http_code}", pair.url).code == 7  # nobody listens: there is no half-open door
    pair.start_ca()
    for name in ("web", "app"):
        pair[name].wait_ready()
    assert pair["web"].probe("/readyz") == 200
    assert pair["web"].identity()["consecutive_failures"] == 0
    assert pair["web"].identity()["last_error"] == ""
    assert pair.mesh("status", "--ready").returncode == 0


def tried(pair: Pair, name: str) -> bool:
    sidecar = pair[name]
    return sidecar.state_word() == "starting" and sidecar.identity()["consecutive_failures"] >= 2


def test_a_ca_that_dies_and_returns(pair: Pair) -> None:
    pair.start_all()
    eventually("both watches stand", lambda: all(connected(pair)))
    assert pair.ca is not None
    with NonceLoad(pair.ports.door, rate=50) as load:
        pair.ca.kill()
        eventually("they have noticed", lambda: not any(connected(pair)))
        assert pair["web"].metrics().total("mesh_ca_connected") == 0
        assert "CA out of reach" in pair.mesh("status").stdout.replace("\n", " ")
        refused = pair.mesh("certs", "rotate", "web")
        assert refused.returncode != 0
        assert "keeps its certificate" in refused.stderr
        serial = pair["web"].identity()["serial"]
        pair.start_ca()
        eventually("both watches stand again", lambda: all(connected(pair)), 60)
        eventually("and the rotation came after all", lambda: pair["web"].identity()["serial"] != serial, 60)
        assert pair["app"].identity()["watch_error"] == ""
    load.tally.assert_flawless()


def connected(pair: Pair) -> list[bool]:
    return [bool(pair[name].identity()["ca_connected"]) for name in ("web", "app")]


def test_a_sidecar_that_is_killed_enrols_again_with_its_key(pair: Pair) -> None:
    pair.start_all()
    before = pair["app"].identity()["serial"]
    connection_id = pair["app"].status()["instance"]
    pair["app"].process.signal(signal.SIGKILL)
    assert pair["app"].process.wait() == -signal.SIGKILL
    down = curl("-i", pair.url)
    assert " 503 " in down.text
    assert "UF" in down.text.lower().replace("uf connect_failed", "UF")
    assert pair["app"].socket.exists()  # left by the one that was killed; the next one takes it over
    pair["app"].start()
    assert pair["app"].identity()["serial"] != before
    assert pair["app"].status()["instance"] != connection_id
    log = pair.mesh("ca", "log", "--dir", str(pair.folder / "ca"), "--entry", "app")
    assert log.stdout.count("enrolment_key") == 2, log


def test_a_join_token_is_spent_once_and_still_outlives_the_sidecar(pair: Pair) -> None:
    """The token buys one enrolment; the key that the sidecar made then is its proof after a crash (decision D14)."""
    ca = str(pair.folder / "ca")
    pair.enrolment("app").unlink()
    made = pair.mesh("ca", "token", "app", "--dir", ca, "--out", str(pair.enrolment("app")))
    assert made.returncode == 0, made.stderr
    pair.start_all()
    pair["app"].process.kill()
    pair["app"].start()
    log = pair.mesh("ca", "log", "--dir", ca, "--entry", "app").stdout
    assert (log.count("join_token"), log.count("enrolment_key")) == (1, 1)


def test_a_ca_of_somebody_else_at_the_same_address_gets_nothing(pair: Pair, tmp_path: Path) -> None:
    """The enrolment file pins the roots: another CA, with the very same names, is refused and named."""
    other = tmp_path / "other"
    other.mkdir()
    foreign = Pair(other, ports=pair.ports)
    try:
        foreign.start_ca()
        pair["web"].start(ready=False)
        eventually("it has tried", lambda: tried(pair, "web"))
        status = pair["web"].status()
        assert status["state"] == "starting"
        assert "root" in status["identity"]["last_error"]
    finally:
        foreign.__exit__()
    pair.start_ca()
    pair["app"].start()
    pair["web"].wait_ready(60)

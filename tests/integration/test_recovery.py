"""What takes other meshes down for a morning, and what becomes of this one: a machine that slept past the end of every
certificate, an issuing CA that has expired, an outage longer than a leaf's life, a CA copied back from yesterday.

Nobody restarts anything here, and nobody is asked to help but where the text says so.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.meshes import Pair
from tests.kit.nonce import NonceLoad
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app
from tests.kit.wrong_clock import DAYS, WrongClock

A_WHILE = 100.0  # seconds: two looks at the wall clock, 30 s apart, and a few tries


def status_of(pair: Pair) -> str:
    return curl("-o", "/dev/null", "-w", "%{http_code}", pair.url).text


def command(pair: Pair, *arguments: str) -> str:
    done = pair.mesh(*arguments)
    assert done.returncode == 0, done
    return done.stdout


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    with echo_app(tmp_path, pair.ports.app), pair:
        yield pair
        pair.assert_well()


@pytest.mark.parametrize(
    "days", [pytest.param(2, marks=pytest.mark.deep), 40], ids=["every leaf has ended", "the issuing CA has ended"]
)
def test_a_machine_that_slept(pair: Pair, days: int) -> None:
    """The wall clock is days ahead when it wakes, the monotonic clock stood still: CA and sidecars alike."""
    clock = WrongClock(pair.folder / "ca")  # which all three may read
    pair.start_ca(env=clock.env)
    for name in ("web", "app"):
        pair[name].start(env=clock.env)
    assert status_of(pair) == "200"
    before = {name: pair[name].identity()["serial"] for name in ("web", "app")}
    clock.set(days * DAYS)
    assert status_of(pair) == "503", "nothing is served on a certificate that has ended"
    assert pair["app"].probe("/readyz") == 503
    eventually("everything has come back by itself", lambda: status_of(pair) == "200", A_WHILE)
    for name in ("web", "app"):
        identity = pair[name].identity()
        assert identity["serial"] != before[name]
        eventually("its watch stands", lambda: pair[name].identity()["ca_connected"], A_WHILE)  # noqa: B023
        assert pair[name].probe("/readyz") == 200
        assert pair[name].identity()["clock_warning"] == ""
    eventually("and so has the denylist", lambda: pair["app"].identity()["denylist_error"] == "", A_WHILE)


def test_an_outage_longer_than_a_certificates_life(tmp_path: Path) -> None:
    pair = Pair(tmp_path, ttl=20.0)
    with echo_app(tmp_path, pair.ports.app), pair:
        pair.start_all()
        assert pair.ca is not None
        pair.ca.kill()
        survival = pair["web"].metrics().total("mesh_ca_survival_seconds")
        assert 0 < survival <= 20
        eventually("the end", lambda: status_of(pair) == "503", 30)
        eventually("no more survival", lambda: pair["web"].metrics().total("mesh_ca_survival_seconds") == 0, 10)
        assert pair["web"].probe("/readyz") == 503
        pair.start_ca()
        eventually("both have enrolled again", lambda: status_of(pair) == "200", 60)
        log = command(pair, "ca", "log", "--dir", str(pair.folder / "ca"), "--entry", "app")
        assert log.count("enrolment_key") == 2, "by the proof, since no certificate was left to show"
        pair.assert_well()


def replace_ca(pair: Pair, how: Any) -> None:
    """Stop the CA, put another state in the place of its folder, start it again."""
    assert pair.ca is not None
    pair.ca.stop()
    shutil.rmtree(pair.folder / "ca")
    how()
    pair.start_ca()


def denylist(pair: Pair, name: str = "app") -> dict[str, Any]:
    identity = pair[name].identity()
    return {key: identity[f"denylist_{key}"] for key in ("sequence", "entries", "refused", "error")}


def test_a_ca_restored_from_yesterday_counts_on_and_forgets_what_came_after(pair: Pair, tmp_path: Path) -> None:
    pair.start_all()
    ca, copy = str(pair.folder / "ca"), str(tmp_path / "yesterday.tar")
    command(pair, "ca", "backup", "--dir", ca, copy)
    command(pair, "certs", "revoke", "web", "--ca-dir", ca, "--watch")
    seen = denylist(pair)
    assert (seen["entries"], status_of(pair)) == (1, "503")
    replace_ca(pair, lambda: command(pair, "ca", "restore", "--dir", ca, copy))
    eventually("the next denylist", lambda: denylist(pair)["sequence"] > seen["sequence"], A_WHILE)
    assert denylist(pair)["refused"] == 0, "it counts on past all that was told"
    command(pair, "certs", "revoke", "web", "--ca-dir", ca, "--watch")
    assert denylist(pair)["entries"] == 1


def test_a_ca_copied_back_by_hand_is_refused_and_the_operator_is_told_what_to_do(pair: Pair, tmp_path: Path) -> None:
    """A snapshot of the disk, say. What was revoked since stays so, and the way out is in the words of the refusal."""
    pair.start_all()
    folder, snapshot, ca = pair.folder / "ca", tmp_path / "snapshot", str(pair.folder / "ca")
    assert pair.ca is not None
    pair.ca.stop()
    shutil.copytree(folder, snapshot)
    pair.start_ca()
    eventually("both watches stand", lambda: all(pair[name].identity()["ca_connected"] for name in ("web", "app")))
    command(pair, "certs", "revoke", "web", "--ca-dir", ca, "--watch")
    seen = denylist(pair)
    assert status_of(pair) == "503"
    replace_ca(pair, lambda: shutil.copytree(snapshot, folder))
    eventually("it is refused", lambda: denylist(pair)["refused"], A_WHILE)
    found = denylist(pair)
    assert (found["sequence"], found["entries"]) == (seen["sequence"], 1), "the one in force stays"
    assert "mesh ca restore" in found["error"]
    assert "mesh ca restore" in " ".join(command(pair, "status").split())
    assert "a denylist is refused, denylist" in pair["app"].process.text()
    assert pair["app"].metrics().total("mesh_denylist_refused_total") >= 1
    assert status_of(pair) == "503", "a stolen identity gains nothing by a snapshot"

    copy = str(tmp_path / "copy.tar")
    command(pair, "ca", "backup", "--dir", ca, copy)
    replace_ca(pair, lambda: command(pair, "ca", "restore", "--dir", ca, copy))
    eventually("believed again", lambda: denylist(pair)["sequence"] > seen["sequence"], A_WHILE)
    assert denylist(pair)["error"] == ""
    revoked = json.loads(command(pair, "certs", "revoke", "--list", "--ca-dir", ca, "-o", "json"))
    assert revoked["revoked"] == [], "what came after the snapshot has to be revoked again, as docs/ca.md says"


def test_the_ca_away_while_somebody_was_revoked(pair: Pair) -> None:
    """It is written where the CA is, though that does not run; whoever is partitioned applies it on return."""
    pair.start_all()
    ca = str(pair.folder / "ca")
    assert pair.ca is not None
    pair.ca.stop()
    with NonceLoad(pair.ports.door, rate=50) as load:
        watched = json.loads(command(pair, "certs", "revoke", "web", "--ca-dir", ca, "--watch", "-o", "json"))
        assert all(not row["connected"] and row["seconds"] is None for row in watched["sidecars"])
        assert load.stop().sent
    load.tally.assert_flawless()
    pair.start_ca()
    eventually("it is applied", lambda: status_of(pair) == "503", A_WHILE)
    assert denylist(pair)["entries"] == 1

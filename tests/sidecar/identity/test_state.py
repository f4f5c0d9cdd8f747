"""What is kept between two lives, who may read it, and whom it makes us trust."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from certs.bundle import root_hash
from certs.enrolment import Enrolment, EnrolmentKey, JoinToken
from certs.errors import PrivateFileUnavailable
from sidecar.identity.state import DamagedState, KeptKey, StateFolder, token_hash
from tests.kit.fake_ca import ROOT, TOKEN, TRUST_DOMAIN, WEB
from tests.kit.identities import a_bundle, a_root

PINS = (root_hash(ROOT.certificate),)
ENROLMENT = Enrolment(TRUST_DOMAIN, "127.0.0.1:1", PINS, "web-1", WEB, JoinToken(TOKEN))
KEPT = KeptKey(EnrolmentKey.generate(), token_hash(JoinToken(TOKEN)), confirmed=True)


def test_nothing_is_kept_at_first(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state", ENROLMENT)
    assert state.load_key() is None
    assert state.load_bundle() is None
    assert not (tmp_path / "state").exists()


def test_key_and_bundle_come_back_and_are_ours_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    state = StateFolder(folder, ENROLMENT)
    bundle = a_bundle(ROOT, a_root(name="next"), sequence=7)
    state.save_key(KEPT)
    state.save_bundle(bundle)
    assert StateFolder(folder, ENROLMENT).load_key() == KEPT
    assert StateFolder(folder, ENROLMENT).load_bundle() == bundle
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert TOKEN not in "".join(file.read_text() for file in folder.iterdir())


def test_an_empty_bundle_is_kept_too_for_it_means_trust_nothing(tmp_path: Path) -> None:
    state = StateFolder(tmp_path, ENROLMENT)
    state.save_bundle(replace(a_bundle(ROOT), roots=(), sequence=9))
    loaded = state.load_bundle()
    assert loaded is not None
    assert loaded.roots == ()


def test_two_entries_share_a_folder(tmp_path: Path) -> None:
    StateFolder(tmp_path, ENROLMENT).save_key(KEPT)
    assert StateFolder(tmp_path, replace(ENROLMENT, entry="orders-1")).load_key() is None


def test_an_enrolment_file_with_other_pins_speaks_louder_than_the_bundle(tmp_path: Path) -> None:
    StateFolder(tmp_path, ENROLMENT).save_bundle(a_bundle(ROOT))
    rotated = replace(ENROLMENT, root_sha256=("ab" * 32,))
    assert StateFolder(tmp_path, rotated).load_bundle() is None


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    state = StateFolder(tmp_path, ENROLMENT)
    state.save_key(KEPT)
    next(tmp_path.iterdir()).chmod(0o644)
    with pytest.raises(PrivateFileUnavailable, match="chmod 600"):
        state.load_key()


SHORT_KEY = '{"enrolment_key": "AA==", "token_sha256": "", "confirmed": true}'


@pytest.mark.parametrize("content", ["", "[]", "{}", SHORT_KEY])
def test_a_damaged_key_is_named(tmp_path: Path, content: str) -> None:
    state = StateFolder(tmp_path, ENROLMENT)
    state.save_key(KEPT)
    next(tmp_path.iterdir()).write_text(content)
    with pytest.raises(DamagedState, match=r"web-1\.enrolment-key\.json is damaged"):
        state.load_key()


def test_a_damaged_bundle_is_named(tmp_path: Path) -> None:
    state = StateFolder(tmp_path, ENROLMENT)
    state.save_bundle(a_bundle(ROOT))
    file = next(tmp_path.iterdir())
    file.write_text(file.read_text().replace('"x5c"', '"x5"'))
    with pytest.raises(DamagedState, match=r"web-1\.bundle\.json is damaged"):
        state.load_bundle()

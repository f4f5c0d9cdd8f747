"""An identity from files: taken over when they change, through Kubernetes' symlinks, never half of it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from certs.bundle import BundleSet
from certs.errors import MeshError
from certs.keys import key_to_pem, new_key
from certs.source import Source
from certs.spiffe import SpiffeId, TrustDomain
from certs.svid import X509Svid
from sidecar.identity.from_files import AGAIN_SECONDS, PATIENCE, FromFiles
from sidecar.identity.given import Held, NoTokens
from sidecar.identity.status import IdentityStatus
from tests.kit.fake_ca import on_the_spot
from tests.kit.identities import NOW, Authority, a_bundle, a_root, an_issuer, an_svid
from tests.kit.trio_time import in_virtual_time

WEB = SpiffeId.parse("spiffe://demo.mesh/ns/default/sa/web")
ROOT = a_root()
ISSUER = an_issuer(ROOT)
NAMES = ("tls.crt", "tls.key", "ca.crt")


def contents(svid: X509Svid, root: Authority = ROOT) -> dict[str, bytes]:
    pems = (svid.chain_pem(), key_to_pem(svid.key, None), a_bundle(root).to_pem())
    return dict(zip(NAMES, pems, strict=True))


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o640)


class Volume:
    """A secret as Kubernetes mounts it: names lead through `..data`, which is swapped under all of them at once."""

    def __init__(self, folder: Path, files: dict[str, bytes]) -> None:
        self.folder = folder
        self._number = 0
        self._current = self._new(files)
        (folder / "..data").symlink_to(self._current.name)
        for name in NAMES:
            (folder / name).symlink_to(f"..data/{name}")

    def _new(self, files: dict[str, bytes]) -> Path:
        self._number += 1
        place = self.folder / f"..2026_{self._number}"
        place.mkdir()
        write(place, files)
        return place

    def swap(self, files: dict[str, bytes]) -> None:
        old, self._current = self._current, self._new(files)
        (self.folder / "..data_tmp").symlink_to(self._current.name)
        (self.folder / "..data_tmp").rename(self.folder / "..data")
        shutil.rmtree(old)


class Still:
    """A clock that stands still, across runs of trio."""

    def wall(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return 0.0


class Reader:
    """A FromFiles and what it has published."""

    def __init__(self, folder: Path, disk: Any = on_the_spot) -> None:
        self.svids: Source[X509Svid] = Source("SVID")
        self.bundles: Source[BundleSet] = Source("bundle")
        self.status: Source[IdentityStatus] = Source("status")
        self.seen: list[X509Svid] = []
        self.svids.subscribe(self.seen.append)
        held = Held(WEB, self.svids, self.bundles, Still(), self.status)
        self.keeper = FromFiles(held, *(folder / name for name in NAMES), disk=disk)

    @property
    def error(self) -> str:
        return self.status.current.last_error


def look(reader: Reader) -> bool:
    return trio.run(reader.keeper.look)


def refused(reader: Reader) -> str:
    with pytest.raises(MeshError) as caught:
        look(reader)
    return str(caught.value)


def test_what_the_files_hold_is_taken_over_once(tmp_path: Path) -> None:
    first, second = an_svid(ISSUER), an_svid(ISSUER)
    write(tmp_path, contents(first))
    reader = Reader(tmp_path)
    assert (look(reader), look(reader)) == (True, False)
    assert reader.svids.current.serial == first.serial
    assert reader.bundles.current.of(TrustDomain.parse("demo.mesh")) is not None
    os.utime(tmp_path / "tls.crt")
    assert not look(reader), "a file that was touched is no news"
    write(tmp_path, contents(second))
    assert look(reader)
    assert [svid.serial for svid in reader.seen] == [first.serial, second.serial]
    assert (reader.bundles.number, reader.error) == (1, "")


def test_a_new_root_comes_before_what_it_vouches_for(tmp_path: Path) -> None:
    other = a_root()
    write(tmp_path, contents(an_svid(ISSUER)))
    reader = Reader(tmp_path)
    look(reader)
    write(tmp_path, contents(an_svid(an_issuer(other)), other))
    assert look(reader)
    (bundle,) = reader.bundles.current
    assert (bundle.roots, bundle.sequence) == ((other.certificate,), 2)


BAD: list[tuple[str, Callable[[Path], None]]] = [
    ("key_matches", lambda folder: write(folder, {"tls.key": key_to_pem(new_key(), None)})),
    ("does not hold", lambda folder: write(folder, {"ca.crt": a_bundle(a_root()).to_pem()})),
    ("we are", lambda folder: write(folder, contents(an_svid(ISSUER, "api")))),
    ("does not hold", lambda folder: write(folder, contents(an_svid(ISSUER, not_after=NOW - 1)))),
    ("malformed", lambda folder: write(folder, {"tls.crt": b"no pem"})),
    ("malformed", lambda folder: write(folder, {"tls.crt": b""})),
    ("neither PEM", lambda folder: write(folder, {"ca.crt": b""})),
    ("not JSON", lambda folder: write(folder, {"ca.crt": b"{"})),
    ("signer_is_ca", lambda folder: write(folder, {"ca.crt": an_svid(ISSUER).chain_pem()})),
    ("cannot be read", lambda folder: write(folder, {"tls.key": b"no key"})),
    ("is encrypted", lambda folder: write(folder, {"tls.key": key_to_pem(new_key(), b"pass", 10)})),
    ("No such file", lambda folder: (folder / "tls.key").unlink()),
    ("open to others", lambda folder: (folder / "tls.key").chmod(0o644)),
    ("open to others", lambda folder: (folder / "ca.crt").chmod(0o666)),
    ("larger than", lambda folder: write(folder, {"ca.crt": b"x" * (1 << 20) + b"x"})),
]


@pytest.mark.parametrize(("words", "spoil"), BAD)
def test_what_does_not_hold_changes_nothing(tmp_path: Path, words: str, spoil: Callable[[Path], None]) -> None:
    good = an_svid(ISSUER)
    write(tmp_path, contents(good))
    reader = Reader(tmp_path)
    look(reader)
    spoil(tmp_path)
    words_said = refused(reader)
    assert words in words_said
    assert "PRIVATE" not in words_said
    assert reader.svids.current.serial == good.serial
    (tmp_path / "tls.key").unlink(missing_ok=True)
    write(tmp_path, contents(an_svid(ISSUER)))
    assert look(reader), "and what is good again is taken over"


def test_a_bundle_may_be_spiffes_own(tmp_path: Path) -> None:
    write(tmp_path, contents(an_svid(ISSUER)) | {"ca.crt": a_bundle(ROOT, sequence=7).to_jwks()})
    reader = Reader(tmp_path)
    assert look(reader)
    assert next(iter(reader.bundles.current)).sequence == 7


def test_a_reading_between_two_writes_is_tried_again_and_a_lasting_one_is_told(tmp_path: Path) -> None:
    write(tmp_path, contents(an_svid(ISSUER)))

    @in_virtual_time
    async def story() -> None:
        reader = Reader(tmp_path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.keeper.run)
            await trio.sleep(1)
            second = an_svid(ISSUER)
            write(tmp_path, {"tls.crt": contents(second)["tls.crt"]})
            await trio.sleep(1 + AGAIN_SECONDS * (PATIENCE - 2))
            assert reader.error == "", "a writer may be between two files"
            write(tmp_path, contents(second))
            await trio.sleep(1)
            assert reader.svids.current.serial == second.serial
            write(tmp_path, {"tls.key": key_to_pem(new_key(), None)})
            await trio.sleep(10)
            assert "for another key" in reader.error
            assert reader.svids.current.serial == second.serial
            assert reader.status.current.consecutive_failures == 1
            third = an_svid(ISSUER)
            write(tmp_path, contents(third))
            reader.keeper.renew_soon()
            await trio.sleep(0.1)
            assert (reader.svids.current.serial, reader.error) == (third.serial, "")
            nursery.cancel_scope.cancel()

    story()


def test_there_are_no_tokens_in_files(tmp_path: Path) -> None:
    async def story() -> None:
        with pytest.raises(NoTokens):
            await Reader(tmp_path).keeper.fetch_jwt(("a",))

    trio.run(story)


# ---- real swaps ------------------------------------------------------------------------------------------------------


def swapping(act: Callable[[], None], folder: Path, least: int) -> tuple[Reader, int]:
    """Look at the files again and again while `act` changes them in a thread; the reader, and how often it failed."""
    reader, failures, done = Reader(folder), 0, threading.Event()

    def change() -> None:
        try:
            act()
        finally:
            done.set()

    thread = threading.Thread(target=change)
    thread.start()
    while not done.is_set() or len(reader.seen) < least:
        try:
            look_at(reader)
        except (MeshError, OSError):
            failures += 1
    thread.join()
    while look_at(reader):
        pass
    return reader, failures


def look_at(reader: Reader) -> bool:
    async def once() -> bool:
        return await reader.keeper.look()

    return trio.run(once)


def matches(svid: X509Svid) -> bool:
    return bool(svid.key.public_key() == svid.leaf.public_key())


def test_kubernetes_swaps_in_a_loop_never_pair_a_key_with_a_wrong_certificate(tmp_path: Path) -> None:
    generations = [contents(an_svid(ISSUER)) for _ in range(60)]
    volume = Volume(tmp_path, generations[0])

    def swap() -> None:
        for files in generations * 5:
            volume.swap(files)

    reader, _ = swapping(swap, tmp_path, 2)
    assert len(reader.seen) > 5
    assert all(map(matches, reader.seen))
    assert reader.svids.current.chain_pem() == generations[-1]["tls.crt"]


def test_files_that_are_written_one_after_another_never_pair_either(tmp_path: Path) -> None:
    generations = [contents(an_svid(ISSUER)) for _ in range(40)]
    write(tmp_path, generations[0])

    def rewrite() -> None:
        for files in generations * 5:
            write(tmp_path, files)

    reader, _ = swapping(rewrite, tmp_path, 1)
    assert all(map(matches, reader.seen))
    assert reader.svids.current.chain_pem() == generations[-1]["tls.crt"]

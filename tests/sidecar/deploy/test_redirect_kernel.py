"""What the complaints of nft and iptables come to; and the choice of one of them."""

from __future__ import annotations

import os
import shlex
import socket
from pathlib import Path

import pytest

from sidecar.deploy import redirect_install, redirect_kernel
from sidecar.deploy.redirect_kernel import MODULES, RIGHTS, Found, RedirectFailed
from sidecar.deploy.redirect_rules import Redirection
from sidecar.deploy.redirect_verify import inside
from sidecar.net.proc_net import parse

HINT = "`mesh redirect show`"
COMPLAINTS = (  # what the program says, whether we have the right to change rules, what we advise, another may do
    ("Operation not permitted (you must be root)", False, RIGHTS, False),
    ("netlink: Error: cache initialization failed: Operation not permitted", False, RIGHTS, False),
    ("Fatal: can't open lock file /run/xtables.lock: Permission denied", True, RIGHTS, False),
    ("/dev/stdin:4:9-20: Error: Could not process rule: No such file or directory", True, MODULES, True),
    ("/dev/stdin:4:9-20: Error: Could not process rule: Operation not supported", True, MODULES, True),
    ("iptables v1.8.9 (legacy): can't initialize iptables table `nat': Table does not exist", True, MODULES, True),
    ("iptables: No chain/target/match by that name.", True, MODULES, True),
    ("/dev/stdin:4:9-20: Error: syntax error, unexpected junk", True, HINT, False),
)


@pytest.mark.parametrize(("said", "may", "advice", "other"), COMPLAINTS, ids=[each[0][:30] for each in COMPLAINTS])
def test_complaints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, may: bool, advice: str, other: bool
) -> None:
    monkeypatch.setattr(redirect_kernel, "may_change", lambda: may)
    with pytest.raises(RedirectFailed) as raised:
        redirect_kernel.run([program(tmp_path, "nft", f"cat >/dev/null; echo {shlex.quote(said)} >&2; exit 1")], "text")
    assert raised.value.kernel is other
    assert raised.value.advice.startswith(advice)
    assert str(raised.value).startswith("nft")


def program(folder: Path, name: str, does: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)
    return str(path)


def test_a_program_that_is_broken_or_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RedirectFailed, match="could not be run"):
        redirect_kernel.run([str(tmp_path / "nft")])
    monkeypatch.setattr(redirect_kernel, "SECONDS", 0.1)
    with pytest.raises(RedirectFailed, match="did not end within"):
        redirect_kernel.run([program(tmp_path, "nft", "exec sleep 10")])


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without nft and iptables."""
    monkeypatch.setenv("PATH", os.pathsep.join((str(tmp_path), "/bin/nowhere")))
    monkeypatch.setattr(redirect_kernel, "PLACES", ())
    return tmp_path


def test_a_machine_without_any_of_them(bare: Path) -> None:
    for call in (lambda: redirect_install.install(Redirection()), redirect_install.remove):
        with pytest.raises(RedirectFailed, match="neither nft nor iptables is installed") as raised:
            call()
        assert "Install the package nftables" in raised.value.advice
    with pytest.raises(RedirectFailed, match="iptables-legacy is not installed"):
        redirect_install.install(Redirection(), "iptables-legacy")
    assert redirect_install.found() == []


def test_where_the_kernel_has_no_nftables_iptables_is_asked(bare: Path) -> None:
    lacks = "echo 'Error: Could not process rule: Operation not supported' >&2; exit 1"
    program(bare, "nft", f'[ "$1" = list ] && exit 0; {lacks}')
    for name in ("iptables", "ip6tables"):
        program(bare, f"{name}-restore", f"/bin/cat >> {bare}/restored")
        program(bare, f"{name}-save", "exit 0")
    done = redirect_install.install(Redirection())
    assert (done.backend, done.changed) == ("iptables", True)
    assert "MESH_PREROUTING" in (bare / "restored").read_text()
    with pytest.raises(RedirectFailed, match="Operation not supported"):
        redirect_install.install(Redirection(), "nft")


def test_one_at_a_time(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(bare, "nft", "exit 0")
    monkeypatch.setattr(redirect_install, "LOCK", f"\0mesh-redirect-{os.getpid()}")
    monkeypatch.setattr(redirect_install, "PATIENCE", 0.1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(redirect_install.LOCK)
        with pytest.raises(RedirectFailed, match="another `mesh redirect` has been at work"):
            redirect_install.install(Redirection())
    assert redirect_install.remove() == ()


HEAD = "  sl  local_address rem_address   st tx rx tr uid\n"
LISTENS = "   0: 00000000:{port:04X} 00000000:0000 0A 0:0 00:0 0 {uid} 0 1\n"
GOOD = Found("nft", "d" * 16, whole=True)
WORDS = (  # what is found, the digest that is asked for, who listens on the two ports, what is wrong
    ([GOOD], None, (17000, 17000), []),
    ([GOOD], "d" * 16, (17000, 17000), []),
    ([GOOD], "e" * 16, (17000, 17000), ["other options"]),
    ([], None, (17000, 17000), ["there are none here"]),
    ([GOOD, Found("iptables-nft", "d" * 16, whole=True)], None, (17000, 17000), ["two sets"]),
    ([Found("nft", "d" * 16, whole=False)], None, (17000, 17000), ["somebody has changed them"]),
    ([GOOD], None, (None, 17000), ["nobody listens on the way in"]),
    ([GOOD], None, (17000, None), ["nobody listens on the way out"]),
    ([GOOD], None, (0, 17000), ["uid 0 listens on the way in"]),
)


@pytest.mark.parametrize(("found", "asked", "uids", "wrong"), WORDS)
def test_a_look_from_inside(
    found: list[Found], asked: str | None, uids: tuple[int | None, int | None], wrong: list[str]
) -> None:
    pairs = zip((17006, 17001), uids, strict=True)
    lines = [HEAD, *(LISTENS.format(port=port, uid=uid) for port, uid in pairs if uid is not None)]
    seen = inside(found, (lambda _: asked) if asked else None, list(parse(lines)), Redirection())
    complaints = [each.detail for each in seen if not each.well]
    assert len(complaints) == len(wrong)
    for complaint, words in zip(complaints, wrong, strict=True):
        assert words in complaint

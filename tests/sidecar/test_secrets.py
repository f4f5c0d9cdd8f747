"""No private key, token or passphrase in anything that we say: values, errors, tracebacks, log lines."""

from __future__ import annotations

import base64
import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from ca.cli_common import read_passphrase
from ca.signers import Issuer
from certs import keys
from certs.enrolment import Enrolment, EnrolmentKey, JoinToken
from certs.spiffe import SpiffeId, TrustDomain
from certs.svid import X509Svid
from sidecar.identity.answers import Issued, parse_issued
from sidecar.identity.holdings import IdentityConfig
from sidecar.identity.state import KeptKey, StateFolder, token_hash
from sidecar.telemetry import redact
from sidecar.telemetry.log import Log
from tests.kit.identities import a_bundle, a_root, an_issuer, an_svid
from tests.kit.secrets import spellings

ROOT = Path(__file__).parents[2]
DOMAIN = TrustDomain.parse("demo.mesh")
WEB = SpiffeId.parse("spiffe://demo.mesh/ns/default/sa/web")
KEY = EnrolmentKey.generate()
TOKEN = JoinToken("s3cret-" + base64.urlsafe_b64encode(os.urandom(18)).decode())
PASSPHRASE = b"correct horse battery staple " + os.urandom(6).hex().encode()
NOW = 1_800_000_000.0
AUTHORITY = an_issuer(a_root(now=NOW), now=NOW)
SVID = an_svid(AUTHORITY, WEB.text, now=NOW)


def enrolment(proof: JoinToken | EnrolmentKey) -> Enrolment:
    return Enrolment(DOMAIN, "127.0.0.1:17012", ("00" * 32,), "web-1", WEB, proof)


def secrets() -> list[bytes]:
    """Every secret of this file, in every spelling."""
    found = [TOKEN.token.encode(), PASSPHRASE, *spellings(KEY.private_bytes)]
    return found + spellings(SVID.key)


def assert_silent(text: str) -> None:
    data = text.encode("utf-8", "replace")
    assert b"PRIVATE KEY-----" not in data
    assert not [secret for secret in secrets() if secret in data], text


@pytest.mark.parametrize(
    "value",
    [
        SVID,
        KEY,
        TOKEN,
        enrolment(KEY),
        enrolment(TOKEN),
        KeptKey(KEY, token_hash(TOKEN), True),
        IdentityConfig(enrolment(KEY), Path("/state"), ""),
        Issuer(SVID.leaf, SVID.key, SVID.leaf),
        Issued(SVID, a_bundle(a_root(now=NOW)), NOW),
        SVID.key,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_holds_a_secret_does_not_show_it(value: object) -> None:
    """Neither by itself nor inside something else, nor as the log would write it."""
    for text in (repr(value), str(value), f"{value}", repr([value]), repr({"it": value}), redact.text(str(value))):
        assert_silent(text)


def failing(tmp_path: Path) -> dict[str, Callable[[], object]]:
    """What fails with a secret in its hands."""
    good = json.loads(enrolment(KEY).to_json())
    spoilt = {
        "another version": good | {"version": 2},
        "unknown field": good | {"more": 1},
        "both proofs": good | {"join_token": TOKEN.token},
        "a token that is none": {**good, "join_token": TOKEN.token + " !"} | {"enrolment_key": None},
        "a key of another length": good | {"enrolment_key": base64.b64encode(KEY.private_bytes + b"x").decode()},
        "a key that is no base64": good | {"enrolment_key": good["enrolment_key"][:-1] + "!"},
        "no pins": good | {"root_sha256": []},
    }
    acts: dict[str, Callable[[], object]] = {}
    for name, document in spoilt.items():
        path = tmp_path / f"{name}.json"
        keys.write_private(path, json.dumps(document).encode())
        acts[name] = lambda path=path: Enrolment.load(path)  # type: ignore[misc]
    cut = tmp_path / "cut.json"
    keys.write_private(cut, enrolment(KEY).to_json()[:-3])
    acts["a file that is cut"] = lambda: Enrolment.load(cut)

    state = StateFolder(tmp_path / "state", enrolment(TOKEN))
    state.save_key(KeptKey(KEY, token_hash(TOKEN), True))
    (kept,) = (tmp_path / "state").iterdir()
    whole = kept.read_bytes()

    def damaged(data: bytes) -> object:
        keys.write_private(kept, data)
        return state.load_key()

    acts["a kept key that is cut"] = lambda: damaged(whole[:-4])
    acts["a kept key without a field"] = lambda: damaged(whole.replace(b"confirmed", b"confined"))
    acts["a kept key that is too long"] = lambda: damaged(whole.replace(b'key": "', b'key": "AAAA'))

    private = tmp_path / "key.pem"
    keys.save_key(private, SVID.key, PASSPHRASE)
    acts["a wrong passphrase"] = lambda: keys.load_key(private, PASSPHRASE + b"x")
    plain = tmp_path / "plain.pem"
    keys.save_key(plain, SVID.key, None)
    acts["a passphrase for a key in the clear"] = lambda: keys.load_key(plain, PASSPHRASE)
    open_to_all = tmp_path / "open.pem"
    open_to_all.write_bytes(plain.read_bytes())
    open_to_all.chmod(0o644)
    acts["a key that others can read"] = lambda: keys.load_key(open_to_all, None)
    acts["a certificate of another key"] = lambda: X509Svid.parse(SVID.chain_pem(), keys.new_key())
    acts["an answer for another key"] = lambda: parse_issued({"svid": "x", "bundle": {}, "now": 1}, SVID.key, WEB)
    acts["a nonce with a NUL"] = lambda: KEY.sign(DOMAIN, "web-1", "\0", b"")
    acts["a key as text"] = lambda: int(plain.read_text())  # an error of Python's own that quotes its argument

    long = tmp_path / "long"
    long.write_bytes(PASSPHRASE * 40)
    acts["a passphrase that is too long"] = lambda: read_passphrase(long, new=False)
    short = tmp_path / "short"
    short.write_bytes(b"")
    acts["no passphrase"] = lambda: read_passphrase(short, new=False)
    return acts


NAMES = [
    "another version", "unknown field", "both proofs", "a token that is none", "a key of another length",
    "a key that is no base64", "no pins", "a file that is cut", "a kept key that is cut",
    "a kept key without a field", "a kept key that is too long", "a wrong passphrase",
    "a passphrase for a key in the clear", "a key that others can read", "a certificate of another key",
    "an answer for another key", "a nonce with a NUL", "a key as text", "a passphrase that is too long",
    "no passphrase",
]  # fmt: skip


def caught(act: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as info:
        act()
    return info.value


def test_the_table_of_failures_is_whole(tmp_path: Path) -> None:
    assert sorted(failing(tmp_path)) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_fails_with_a_secret_in_its_hands_does_not_tell_it(name: str, tmp_path: Path) -> None:
    """Our words, the whole chain of causes, and the traceback in the log, which goes through the redactor."""
    error = caught(failing(tmp_path)[name])
    if name != "a key as text":
        assert_silent(f"{error} {error!r} {''.join(traceback.format_exception(error))}")
    file = tmp_path / "log"
    with file.open("wb") as written:
        log = Log(human=False, fd=written.fileno())
        log.fault("it broke", error, detail=str(error))
        log.close()
    assert b"it broke" in file.read_bytes()
    assert_silent(file.read_text())


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("a kept", "another", "unknown", "both"))])
def test_files_with_secrets_fail_without_one_in_a_local_of_any_frame(name: str, tmp_path: Path) -> None:
    """Should somebody render locals (a debugger, a crash reporter): what was read from a file is not among them."""
    error = caught(failing(tmp_path)[name])
    frames = traceback.TracebackException.from_exception(error, capture_locals=True)
    for frame in frames.stack:
        if frame.filename.startswith(str(ROOT / "certs")) or "/sidecar/identity/" in frame.filename:
            assert_silent(str(frame.locals))
    assert frames.__cause__ is None
    assert frames.__context__ is None or frames.__suppress_context__


def test_nothing_of_ours_renders_locals_or_dumps_frames() -> None:
    """What makes tracebacks show values is not in the product; a new use must think of keys first."""
    words = ("capture_locals", "show_locals", "cgitb", "faulthandler", "rich.traceback", "format_locals", "f_locals")
    found = [
        (path.name, word)
        for package in ("sidecar", "ca", "certs")
        for path in (ROOT / package).rglob("*.py")
        for word in words
        if word in path.read_text()
    ]
    assert found == []


PEM = keys.key_to_pem(SVID.key, None).decode()


@pytest.mark.parametrize(
    "text",
    [
        PEM,
        repr(PEM),
        PEM[30:],
        f"cut in the middle {PEM[60:]}",
        f"ValueError: {PEM!r} is not a number"[40:],
        json.dumps(json.loads(enrolment(KEY).to_json())),
        enrolment(KEY).to_json().decode(),
        enrolment(TOKEN).to_json().decode(),
        f"{{'join_token': '{TOKEN.token}'}}",
        f"passphrase: {PASSPHRASE.decode().replace(' ', '-')}",
    ],
    ids=["pem", "repr", "no head", "cut", "cut in an error", "a line", "key file", "token file", "dict", "passphrase"],
)
def test_the_redactor_knows_our_own_secrets_by_their_looks(text: str) -> None:
    """The last net, for text that no one foresaw: PEM blocks, cut at either end too, and our own JSON fields."""
    shown = redact.text(text)
    assert_silent(shown)
    body = "".join(PEM.split("\n")[1:-2])
    assert not any(body[at : at + 24] in shown.replace("\\n", "") for at in range(len(body) - 24))
    assert PASSPHRASE.decode().replace(" ", "-") not in shown


@pytest.mark.parametrize("unit", ["A", "A ", "x-----END ", "\\n", "token", "token ", "private_key", "=", '"', "a:b@", "://"])
def test_the_redactor_takes_linear_time(unit: str) -> None:
    """A caller chooses paths and headers; sixteen times the text is not two hundred and fifty-six times the work."""

    def cpu_seconds(size: int) -> float:
        text = (":" + unit * size)[:size]
        began = time.process_time()
        redact.text(text, size)
        return time.process_time() - began

    small = min(cpu_seconds(8_000) for _ in range(5))
    assert min(cpu_seconds(128_000) for _ in range(5)) < 100 * small + 0.1

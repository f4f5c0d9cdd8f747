"""The Workload API as applications see it: the `spiffe` library, and bare gRPC for what that library never does."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from certs.bundle import BundleSet
from certs.denylist import Denylist
from certs.jwt_svid import make_jwt_svid
from certs.keys import new_key
from sidecar.http import protobuf
from sidecar.identity import workload_messages as messages
from sidecar.runtime.listening import CannotListen
from tests.kit.identities import a_bundle, a_root
from tests.kit.processes import eventually
from tests.kit.workloads import ServedApi, ask, watching

pytestmark = pytest.mark.integration
WEB = "spiffe://demo.mesh/ns/default/sa/web"
NOBODY = 65534
HEADER = (("workload.spiffe.io", "true"),)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ServedApi]:
    with ServedApi(tmp_path, time.time()) as served:
        yield served


def call(api: ServedApi, path: str, request: bytes = b"", metadata: Any = HEADER, timeout: float = 10.0) -> bytes:
    """The first message of one call by grpcio. Raises grpc.RpcError."""
    with grpc.insecure_channel(api.socket) as channel:
        stream = channel.unary_stream(path, lambda data: data, lambda data: data)
        answer: bytes = next(iter(stream(request, metadata=metadata, timeout=timeout)))
        return answer


def refusal(api: ServedApi, path: str, request: bytes = b"", metadata: Any = HEADER) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(api, path, request, metadata)
    return caught.value.code().name, caught.value.details()


# ---- the library ---------------------------------------------------------------------------------------------------


def test_the_spiffe_library_takes_svid_bundles_and_tokens(api: ServedApi) -> None:
    others = a_root("other.mesh", now=api.now)
    api.publish(bundles=BundleSet((api.bundle(), a_bundle(others))))
    svid = api.svids.current
    assert ask(api.socket, "x509") == {
        "spiffe_id": WEB, "serial": svid.serial, "chain": 2, "key_fits": True,
        "bundles": {"demo.mesh": 1, "other.mesh": 1},
    }  # fmt: skip
    assert ask(api.socket, "bundles") == {"demo.mesh": 1, "other.mesh": 1}
    assert ask(api.socket, "jwt-bundles") == {"demo.mesh": ["k1"], "other.mesh": []}
    token = ask(api.socket, "jwt", "reports")
    assert (token["spiffe_id"], token["audience"]) == (WEB, ["reports"])
    assert ask(api.socket, "validate", "reports", token["token"]) == {"spiffe_id": WEB, "audience": ["reports"]}
    assert api.asked == [("reports",)]
    told = [each[:3] for each in api.acted]
    assert told == [("FetchX509SVID", 200, os.geteuid()), ("FetchJWTSVID", 200, os.geteuid())]


def test_the_spiffe_library_sees_a_rotation_pushed(api: ServedApi) -> None:
    with watching(api.socket) as heard:
        first = next(heard)
        assert first["serial"] == api.svids.current.serial
        renewed = api.an_svid()
        api.publish(renewed)
        assert next(heard) == {**first, "serial": renewed.serial}
        next_root = a_root(now=api.now)
        api.publish(bundles=BundleSet((api.bundle(api.root, next_root),)))
        assert next(heard)["bundles"] == {"demo.mesh": 2}
        api.publish(bundles=BundleSet((api.bundle(next_root), a_bundle(a_root("other.mesh", now=api.now)))))
        assert next(heard)["bundles"] == {"demo.mesh": 1, "other.mesh": 1}
        api.publish(bundles=BundleSet((api.bundle(next_root),)))
        assert next(heard)["bundles"] == {"demo.mesh": 1}, "what is missing has been withdrawn"
        last = api.an_svid()
        api.publish(renewed)  # nothing is pushed for what has changed back before anybody looked, or not at all
        api.publish(last)
        assert {next(heard)["serial"] for _ in range(1)} <= {renewed.serial, last.serial}


def test_the_spiffe_library_sees_keys_of_tokens_come_and_go(api: ServedApi) -> None:
    with watching(api.socket, "watch-jwt") as heard:
        assert next(heard) == {"demo.mesh": ["k1"]}
        api.publish(bundles=BundleSet((api.bundle(kids=("k1", "k2")),)))
        assert next(heard) == {"demo.mesh": ["k1", "k2"]}
        api.publish(bundles=BundleSet((api.bundle(kids=("k2",)),)))
        assert next(heard) == {"demo.mesh": ["k2"]}


def test_the_library_waits_for_an_identity_that_comes_late(tmp_path: Path) -> None:
    with ServedApi(tmp_path, time.time(), quiet=True) as api:
        assert refusal(api, messages.FETCH_X509_SVID)[0] == "UNAVAILABLE"
        assert refusal(api, messages.FETCH_JWT_BUNDLES)[0] == "UNAVAILABLE"
        assert api.acted == [], "nobody has got anything yet"
        with watching(api.socket) as heard:
            api.publish(api.an_svid(), BundleSet((api.bundle(),)))
            assert next(heard)["spiffe_id"] == WEB


def test_the_library_refuses_what_the_api_refuses(api: ServedApi) -> None:
    svid = api.svids.current
    stranger = make_jwt_svid(svid.spiffe_id, ["reports"], "k1", new_key(), api.now, 300)
    answer = ask(api.socket, "validate", "reports", stranger)
    assert "changed, or another key" in answer["detail"]
    assert "INVALID_ARGUMENT" in answer["detail"] or answer["error"] == "ValidateJwtSvidError"


# ---- codes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metadata", [(), (("workload.spiffe.io", "false"),), (("x-workload.spiffe.io", "true"),)])
@pytest.mark.parametrize(
    "path",
    [messages.FETCH_X509_SVID, messages.FETCH_X509_BUNDLES, messages.FETCH_JWT_SVID, messages.FETCH_JWT_BUNDLES,
     messages.VALIDATE_JWT_SVID],
)  # fmt: skip
def test_without_the_security_header_nothing_is_answered(api: ServedApi, path: str, metadata: Any) -> None:
    code, detail = refusal(api, path, metadata=metadata)
    assert (code, "workload.spiffe.io" in detail) == ("INVALID_ARGUMENT", True)


def jwt_request(*audience: str, subject: str = "") -> bytes:
    return b"".join(protobuf.data(1, one.encode()) for one in audience) + protobuf.text(2, subject)


@pytest.mark.parametrize(
    ("path", "request_", "code"),
    [
        (messages.FETCH_JWT_SVID, jwt_request(), "INVALID_ARGUMENT"),
        (messages.FETCH_JWT_SVID, jwt_request(""), "INVALID_ARGUMENT"),
        (messages.FETCH_JWT_SVID, jwt_request(*"abcdefghijklmnopq"), "INVALID_ARGUMENT"),
        (messages.FETCH_JWT_SVID, jwt_request("a", subject=WEB + "x"), "PERMISSION_DENIED"),
        (messages.FETCH_JWT_SVID, b"\x0a\xff", "INVALID_ARGUMENT"),
        (messages.FETCH_JWT_SVID, b"\x0a\x02\xff\xfe", "INVALID_ARGUMENT"),
        (messages.VALIDATE_JWT_SVID, b"", "INVALID_ARGUMENT"),
        (messages.VALIDATE_JWT_SVID, protobuf.text(1, "a") + protobuf.text(2, "no.token.at-all"), "INVALID_ARGUMENT"),
        (messages.SERVICE + "FetchEverything", b"", "UNIMPLEMENTED"),
        ("/grpc.health.v1.Health/Check", b"", "UNIMPLEMENTED"),
        (messages.FETCH_X509_BUNDLES, b"x" * 70_000, "RESOURCE_EXHAUSTED"),
    ],
)
def test_the_codes_of_the_specification(api: ServedApi, path: str, request_: bytes, code: str) -> None:
    assert refusal(api, path, request_)[0] == code
    assert call(api, messages.FETCH_X509_SVID), "and the next call is served"


def test_our_own_subject_may_be_named(api: ServedApi) -> None:
    answer = call(api, messages.FETCH_JWT_SVID, jwt_request("b", "a", "b", subject=WEB))
    assert protobuf.one_text(protobuf.all_data(answer, 1)[0], 1) == WEB
    assert api.asked == [("a", "b")]


def test_an_svid_that_has_ended_is_not_handed_out(api: ServedApi) -> None:
    api.publish(api.an_svid(not_before=api.now - 100, not_after=api.now - 1))
    code, detail = refusal(api, messages.FETCH_X509_SVID)
    assert (code, "expired" in detail) == ("UNAVAILABLE", True)
    assert call(api, messages.FETCH_X509_BUNDLES), "bundles hold on"


# ---- revoked -------------------------------------------------------------------------------------------------------


def test_a_certificate_that_was_revoked_is_handed_out_no_more(api: ServedApi) -> None:
    svid = api.svids.current
    with grpc.insecure_channel(api.socket) as channel:
        svids, bundles = (
            iter(channel.unary_stream(path, None, None)(b"", metadata=HEADER, timeout=20))
            for path in (messages.FETCH_X509_SVID, messages.FETCH_X509_BUNDLES)
        )
        assert next(svids)
        assert next(bundles)
        api.deny(serials=frozenset({svid.serial}))
        assert ended(svids) == "UNAVAILABLE", "the stream ends with the key that it brought"
        assert refusal(api, messages.FETCH_JWT_SVID, jwt_request("reports"))[0] == "UNAVAILABLE"
        assert api.asked == []
        renewed = api.an_svid()
        api.publish(renewed)
        assert call(api, messages.FETCH_X509_SVID), "the next one is handed out"
        api.publish(bundles=BundleSet((api.bundle(a_root(now=api.now)),)))
        assert next(bundles), "and bundles went on all the time"


def test_a_revoked_identity_has_no_workload_api(api: ServedApi) -> None:
    token = ask(api.socket, "jwt", "reports")["token"]
    paths = (messages.FETCH_X509_SVID, messages.FETCH_X509_BUNDLES, messages.FETCH_JWT_BUNDLES)
    with grpc.insecure_channel(api.socket) as channel:
        streams = [iter(channel.unary_stream(path, None, None)(b"", metadata=HEADER, timeout=20)) for path in paths]
        assert all(next(stream) for stream in streams)
        api.deny(spiffe_ids=frozenset({api.svids.current.spiffe_id}))
        assert {ended(stream) for stream in streams} == {"PERMISSION_DENIED"}
    validate = protobuf.text(1, "reports") + protobuf.text(2, token)
    for path, request in (*((one, b"") for one in paths), (messages.FETCH_JWT_SVID, jwt_request("reports")),
                          (messages.VALIDATE_JWT_SVID, validate)):  # fmt: skip
        assert refusal(api, path, request)[0] == "PERMISSION_DENIED", path
    api.publish(api.an_svid())
    assert refusal(api, messages.FETCH_X509_SVID)[0] == "PERMISSION_DENIED", "whatever certificate it holds"
    api.deny()
    assert call(api, messages.FETCH_X509_SVID), "until it is taken off the list"


def test_a_token_that_is_under_way_when_its_identity_is_revoked_is_kept_back(api: ServedApi) -> None:
    async def slowly(audience: tuple[str, ...]) -> Any:
        api.denylists.publish(Denylist(svid.spiffe_id.trust_domain, 1, api.now, spiffe_ids=frozenset({svid.spiffe_id})))
        return await api._jwt(audience)

    svid = api.svids.current
    api.jwt = slowly  # type: ignore[method-assign]
    assert refusal(api, messages.FETCH_JWT_SVID, jwt_request("reports"))[0] == "PERMISSION_DENIED"


def ended(stream: Iterator[bytes]) -> str:
    """The code with which a stream ends that says nothing more."""
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    code: str = caught.value.code().name
    return code


# ---- who may -------------------------------------------------------------------------------------------------------


def as_nobody(api: ServedApi, *arguments: str) -> str:
    """What a client of another user makes of it: connect, one call, the code."""
    program = (
        "import os, sys, grpc\n"
        "with grpc.insecure_channel(sys.argv[1]) as channel:\n"
        "    stream = channel.unary_stream(sys.argv[2], lambda data: data, lambda data: data)\n"
        "    os.setgroups([]), os.setgid(int(sys.argv[3])), os.setuid(int(sys.argv[3]))\n"
        "    try:\n"
        "        next(iter(stream(b'', metadata=[('workload.spiffe.io', 'true')], timeout=10)))\n"
        "        print('OK')\n"
        "    except grpc.RpcError as error:\n"
        "        print(error.code().name)\n"
    )
    command = [sys.executable, "-c", program, api.socket, messages.FETCH_X509_SVID, str(NOBODY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout.strip() or done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user")
def test_another_user_gets_an_identity_only_where_it_is_named(tmp_path: Path) -> None:
    place = Path(tempfile.mkdtemp(prefix="mesh-wl-"))
    place.chmod(0o755)
    try:
        with ServedApi(place, time.time()) as api:
            assert stat.S_IMODE(api.path.stat().st_mode) == 0o600
            assert as_nobody(api) == "UNAVAILABLE", "the file alone keeps it out"
            api.path.parent.chmod(0o755)
            api.path.chmod(0o666)
            assert as_nobody(api) == "PERMISSION_DENIED", "and so does the kernel's word"
            eventually("the refusal in the log", lambda: f'"uid":{NOBODY}' in (place / "api.log").read_text())
        shutil.rmtree(place / "api")
        with ServedApi(place, time.time(), allow_uids=(NOBODY,)) as api:
            assert stat.S_IMODE(api.path.stat().st_mode) == 0o666
            assert as_nobody(api) == "OK"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_a_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    (tmp_path / "api").chmod(0o777)
    with pytest.raises(BaseException) as caught, ServedApi(tmp_path, time.time()):
        pass
    (found,) = getattr(caught.value, "exceptions", (caught.value,))
    assert isinstance(found, CannotListen)
    assert "written by others" in str(found)


def test_the_socket_goes_with_its_sidecar(tmp_path: Path) -> None:
    with ServedApi(tmp_path, time.time()) as api:
        assert api.path.is_socket()
    assert not api.path.exists()

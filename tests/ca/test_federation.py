"""Other trust domains: what a bundle must keep, endpoints that are away, forged or misnamed, and what sidecars hear."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import ca.https
from ca.checkpoints import verify_log
from ca.errors import CaError, FederationRefused, FederationUnreachable
from ca.federating import Federator, federated, take
from ca.federation import MAX_REFRESH, MIN_REFRESH, Partner, accept, check_partner
from ca.fetch import fetch_bundle
from certs.bundle import BundleSet, TrustBundle
from certs.errors import UntrustedSvid
from certs.spiffe import TrustDomain
from certs.verify import verify_chain
from tests.ca.desk import Desk, at_the_desk
from tests.ca.office import DEMO, NOW, Office, open_office
from tests.ca.test_cli import Shell
from tests.ca.test_with_sidecar import a_sidecar, a_token_file
from tests.kit.identities import Authority, a_bundle, a_certificate, a_root, an_issuer, an_svid
from tests.kit.trio_time import in_trio

PARTNER = TrustDomain.parse("partner.example")
THEIRS, NEXT = a_root("partner.example"), a_root("partner.example", name="next")
OURS = a_root("demo.mesh")
THIRD = a_root("third.example")
URL = "https://bundles.partner.example/keys"


def jwks(*roots: Authority, sequence: int = 3, hint: int | None = None) -> bytes:
    certificates = tuple(root.certificate for root in roots)
    return TrustBundle(PARTNER, certificates, sequence, hint).to_jwks()


HELD = Partner(PARTNER, URL, bundle=TrustBundle.parse_jwks(PARTNER, jwks(THEIRS)))
OTHERS = (a_bundle(OURS), a_bundle(THIRD))


# ---- what is accepted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sequence", "roots"),
    [(3, [THEIRS]), (4, [THEIRS, NEXT]), (9, [NEXT]), (4, [])],
    ids=["same", "both", "next", "none"],
)
def test_a_bundle_that_keeps_the_rules_is_taken(sequence: int, roots: list[Authority]) -> None:
    found = accept(HELD, jwks(*roots, sequence=sequence), OTHERS)
    assert (found.sequence, len(found.roots)) == (sequence, len(roots))


REFUSED = [
    (jwks(NEXT, sequence=2), "serves bundle 2, and we hold 3"),
    (jwks(sequence=2), "serves bundle 2, and we hold 3"),  # not even to trust nothing
    (b'{"keys":[]}', "serves bundle 0, and we hold 3"),
    (jwks(NEXT, sequence=3), "other roots under the same number 3"),
    (jwks(THEIRS, OURS, sequence=4), "names another trust domain|of trust domain|demo.mesh"),
    (jwks(a_root("partner.example", uris=["spiffe://third.example"]), sequence=4), "third.example"),
    (b"<html>not found</html>", "no bundle"),
    (b'{"keys":1}', "no bundle"),
    (b'{"keys":[{"use":"x509-svid","kty":"EC","x5c":["AAAA"]}],"spiffe_sequence":4}', "no bundle"),
]


@pytest.mark.parametrize(("document", "why"), REFUSED)
def test_a_bundle_that_breaks_one_is_not(document: bytes, why: str) -> None:
    with pytest.raises(FederationRefused, match=why):
        accept(HELD, document, OTHERS)


def test_nobody_shows_a_root_of_somebody_else_that_names_no_domain() -> None:
    nameless = a_root("third.example", uris=[])
    with pytest.raises(FederationRefused, match=r"shows a root of third\.example"):
        accept(HELD, jwks(THEIRS, nameless, sequence=4), (a_bundle(nameless),))


def test_endpoints_without_numbers_are_taken_as_they_come() -> None:
    held = replace(HELD, bundle=TrustBundle.parse_jwks(PARTNER, jwks(THEIRS, sequence=0)))
    assert accept(held, jwks(NEXT, sequence=0), OTHERS).roots == (NEXT.certificate,)


@pytest.mark.parametrize(
    "url",
    ["http://a/b", "https:///b", "https://u:p@a/b", "https://a/b?c", "https://a/b#c", "https://a:x/", "https://a /b"],
)
def test_an_endpoint_is_https_and_nothing_odd(url: str) -> None:
    with pytest.raises(FederationRefused):
        check_partner(PARTNER, url, DEMO)


def test_our_own_domain_is_no_partner() -> None:
    check_partner(PARTNER, URL, DEMO)
    with pytest.raises(FederationRefused, match="own trust domain"):
        check_partner(DEMO, URL, DEMO)


@pytest.mark.parametrize(("hint", "seconds"), [(None, 300), (0, 300), (60, 60), (1, MIN_REFRESH), (10**9, MAX_REFRESH)])
def test_the_hint_decides_within_bounds(hint: int | None, seconds: float) -> None:
    partner = replace(HELD, bundle=TrustBundle(PARTNER, (), 1, hint))
    assert partner.next_fetch(0.5) == seconds
    assert 0.9 * seconds <= partner.next_fetch(0.0) < partner.next_fetch(0.99) <= 1.1 * seconds


# ---- endpoints -------------------------------------------------------------------------------------------------------


@dataclass
class Endpoint:
    """A web server with a certificate for `name`, which answers everybody with these bytes."""

    folder: Path
    name: str = "localhost"
    answer: bytes = b""
    asked: list[bytes] = field(default_factory=list)
    web_root: Authority = field(default_factory=lambda: a_root("web.pki", uris=[]))
    port: int = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Endpoint]:
        leaf = an_svid(self.web_root, "web")
        certificate = a_certificate(
            leaf.key, self.web_root.certificate, self.web_root.key, dns=[self.name], san_critical=False, subject="web"
        )
        pem = self.folder / "web.pem"
        pem.touch(mode=0o600)
        key = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        pem.write_bytes(certificate.public_bytes(Encoding.PEM) + key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_ssl_over_tcp, self._serve, 0, context)
            self.port = listeners[0].transport_listener.socket.getsockname()[1]
            yield self
            nursery.cancel_scope.cancel()

    async def _serve(self, stream: trio.SSLStream[Any]) -> None:
        try:
            self.asked.append(bytes(await stream.receive_some()))
            if self.answer == b"silence":
                await trio.sleep_forever()
            await stream.send_all(self.answer)
            await stream.aclose()
        except (trio.BrokenResourceError, ssl.SSLError):
            pass

    def url(self, host: str = "localhost") -> str:
        return f"https://{host}:{self.port}/keys"

    @property
    def roots(self) -> bytes:
        return self.web_root.certificate.public_bytes(Encoding.PEM)


def http(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{more}\r\n".encode() + body


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    return Endpoint(tmp_path, answer=http(jwks(THEIRS)))


def test_an_endpoint_is_asked_by_its_name(endpoint: Endpoint) -> None:
    @in_trio
    async def story() -> None:
        async with endpoint.open():
            assert await fetch_bundle(endpoint.url(), endpoint.roots) == jwks(THEIRS)
            assert await fetch_bundle(endpoint.url() + "?of=us", endpoint.roots) == jwks(THEIRS)
        assert endpoint.asked[1].startswith(b"GET /keys?of=us HTTP/1.1\r\n")
        assert endpoint.asked[0].startswith(b"GET /keys HTTP/1.1\r\nhost: localhost:%d\r\n" % endpoint.port)

    story()


WRONG = [
    ("another name", {"name": "other.example"}, "certificate is refused"),
    ("an unknown root", {"roots": b""}, "certificate is refused"),
    ("a redirect", {"answer": http(b"", "302 Found", "location: https://localhost/\r\n")}, "302; redirects are not"),
    ("an error", {"answer": http(b"", "500 Oops")}, "answers 500"),
    ("a flood", {"answer": http(b" " * ((1 << 20) + 1))}, "at most 1048576 are read"),
    ("half an answer", {"answer": http(jwks(THEIRS))[:-10]}, "cannot be asked"),
    ("no HTTP", {"answer": b"hello\r\n\r\n"}, "cannot be asked"),
    ("silence", {"answer": b"silence"}, "did not answer within"),
    ("nobody there", {"port": 1}, "cannot be asked"),
]


@pytest.mark.parametrize(("name", "changes", "why"), WRONG, ids=[row[0] for row in WRONG])
def test_an_endpoint_that_is_not_itself(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, name: str, changes: dict[str, Any], why: str
) -> None:
    monkeypatch.setattr(ca.https, "SECONDS", 1.0 if name != "silence" else 0.3)

    @in_trio
    async def story() -> None:
        roots = changes.pop("roots", endpoint.roots)
        port = changes.pop("port", None)
        for key, value in changes.items():
            setattr(endpoint, key, value)
        async with endpoint.open():
            endpoint.port = port or endpoint.port
            with pytest.raises(FederationUnreachable, match=why):
                await fetch_bundle(endpoint.url(), roots)

    story()


# ---- kept fresh ------------------------------------------------------------------------------------------------------


@dataclass
class Web:
    """Answers in the place of the network."""

    answer: bytes | CaError = b""
    asked: int = 0

    async def fetch(self, url: str, web_roots: bytes) -> bytes:
        self.asked += 1
        await trio.sleep(0)
        if isinstance(self.answer, CaError):
            raise self.answer
        return self.answer


@asynccontextmanager
async def a_federator(office: Office, web: Web) -> AsyncIterator[Federator]:
    office.store.add_partner(Partner(PARTNER, URL, added_at=NOW))
    one = Federator(DEMO, office.threads, office.clock, 0.01, web.fetch, lambda: 0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        yield one
        nursery.cancel_scope.cancel()


async def asked(web: Web, times: int) -> None:
    while web.asked < times:
        await trio.sleep(0.005)
    await trio.sleep(0.05)


@in_trio
async def test_bundles_follow_their_endpoint_and_stay_while_it_is_away() -> None:
    office, web = open_office(), Web(jwks(THEIRS, hint=60))

    def held() -> TrustBundle | None:
        return federated(office.store).bundles.of(PARTNER)

    async with a_federator(office, web) as one:
        await asked(web, 1)
        assert one.told.current.bundles.of(PARTNER) == held()
        before = one.told.current.sequence
        office.clock.now += 59
        await trio.sleep(0.05)
        assert web.asked == 1
        web.answer = FederationUnreachable("away")
        office.clock.now += 1
        await asked(web, 2)
        assert (one.problems, one.told.current.sequence) == ({PARTNER: "away"}, before)
        web.answer = jwks(NEXT, sequence=2)  # replayed, or forged
        office.clock.now += 61
        await asked(web, 3)
        assert "we hold 3" in one.problems[PARTNER]
        assert held() == TrustBundle.parse_jwks(PARTNER, jwks(THEIRS, hint=60))
        web.answer = jwks(THEIRS, NEXT, sequence=4, hint=60)
        office.clock.now += 61
        await asked(web, 4)
        assert one.problems == {}
        assert len(one.told.current.bundles.roots()) == 2
        web.answer = jwks(sequence=5)
        office.clock.now += 61
        await asked(web, 5)
        assert one.told.current.bundles.roots() == ()
        office.store.remove_partner(PARTNER, office.clock.now)
        while len(one.told.current.bundles):
            await trio.sleep(0.005)
    assert verify_log(office.store, DEMO).findings == []


@in_trio
async def test_an_endpoint_that_hangs_keeps_nobody_from_being_removed() -> None:
    office = open_office()

    async def hang(_: str, __: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    office.store.add_partner(Partner(PARTNER, URL, added_at=NOW))
    office.store.add_partner(third := Partner(THIRD.trust_domain, added_at=NOW))
    take(office.store, DEMO, third, a_bundle(THIRD).to_jwks(), NOW)
    one = Federator(DEMO, office.threads, office.clock, 0.01, hang)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        while not one.told.number or not len(one.told.current.bundles):
            await trio.sleep(0.005)
        office.store.remove_partner(THIRD.trust_domain, NOW)
        while len(one.told.current.bundles):
            await trio.sleep(0.005)
        nursery.cancel_scope.cancel()


# ---- what sidecars make of it ----------------------------------------------------------------------------------------


@at_the_desk(bundle_poll=0.05)
async def test_sidecars_hear_of_partners_keep_them_and_forget_them(desk: Desk) -> None:
    store, enrolment = desk.server.store.store, a_token_file(desk)
    friend = an_svid(an_issuer(THEIRS), "billing")
    store.add_partner(partner := Partner(PARTNER, added_at=desk.clock.now))
    take(store, DEMO, partner, jwks(THEIRS), desk.clock.now)
    async with a_sidecar(desk, enrolment) as side:
        while side.bundles.current.of(PARTNER) is None:
            await trio.sleep(0.01)
        bundles: BundleSet = side.bundles.current
        assert verify_chain(friend.chain, bundles, desk.clock.now) == friend.spiffe_id
        borrowed = an_svid(THEIRS, "spiffe://demo.mesh/ns/default/sa/web", chain=())
        with pytest.raises(UntrustedSvid):  # a root of theirs vouches for nobody of ours
            verify_chain(borrowed.chain, bundles, desk.clock.now)
        while not any(ack.topic == "federation" for ack in store.acks()):
            await trio.sleep(0.01)
    store.remove_partner(PARTNER, desk.clock.now)
    async with a_sidecar(desk, enrolment) as again:  # it begins with what it kept, and forgets it once it is told
        while again.bundles.current.of(PARTNER) is not None:
            await trio.sleep(0.01)
        assert again.bundles.current.of(DEMO) is not None


# ---- the command -----------------------------------------------------------------------------------------------------


def test_by_a_file_from_the_command_line(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.ok("init", "--trust-domain", "demo.mesh", "--passphrase-file", shell.passphrase)
    assert "nobody is federated with" in shell.ok("federation", "list")
    first, old, second = (str(tmp_path / name) for name in ("first", "old", "second"))
    Path(first).write_bytes(jwks(THEIRS))
    Path(old).write_bytes(jwks(NEXT, sequence=1))
    Path(second).write_bytes(jwks(sequence=4))
    assert "bundle 3 with 1 roots" in shell.ok("federation", "add", "partner.example", "--file", first)
    assert "already" in shell.refused("federation", "add", "partner.example", "--file", first)
    assert "we hold 3" in shell.refused("federation", "update", "partner.example", "--file", old)
    shell.ok("federation", "update", "partner.example", "--file", second)
    assert "NOTHING IS TRUSTED" in shell.ok("federation", "list")
    assert json.loads(shell.ok("federation", "list", "-o", "json"))["federation"][0]["sequence"] == 4
    assert "trusted no longer" in shell.ok("federation", "remove", "partner.example")
    assert "not federated" in shell.refused("federation", "remove", "partner.example")
    assert "own trust domain" in shell.refused("federation", "add", "demo.mesh", "--file", first)
    nowhere = ["federation", "add", "partner.example", "--url", "https://127.0.0.1:1/keys"]
    assert "cannot be asked" in shell.refused(*nowhere)
    assert shell.json("federation", "list")["federation"] == []
    shell.refused("federation", "add", "partner.example", code=2)
    kinds = [line["kind"] for line in shell.json("log", "--all")["lines"]]
    assert kinds.count("federated_bundle") == 2


def test_the_status_of_the_ca_names_its_partners_and_its_next_step(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.ok("init", "--trust-domain", "demo.mesh", "--passphrase-file", shell.passphrase)
    (tmp_path / "first").write_bytes(jwks(THEIRS))
    shell.ok("federation", "add", "partner.example", "--file", str(tmp_path / "first"))
    status = shell.ok("status")
    assert "trusts partner.example for its own: bundle 3, 1 root, from a file, 0s old" in status
    assert "next by schedule, in 14d 23h" in status.replace("15d 0h", "14d 23h")
    assert "the next issuing CA is prepared" in status
    assert shell.json("status")["federation"][0]["sequence"] == 3

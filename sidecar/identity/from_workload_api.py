"""An identity from a Workload API that another agent serves (SPIRE's, say): SPIFFE_Workload_API.md, as its client.

Two streams, of X.509-SVIDs and of the keys of JWT-SVIDs, each opened again after a back-off when it ends. Every message
is the whole state. PermissionDenied and Unavailable are waited for; what we are handed is judged as in `given`. The
agent is whoever answers on the socket that the operator named.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import trio
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key

from certs.bundle import BundleSet, JwtKey, TrustBundle
from certs.errors import MeshError
from certs.jwt import InvalidJwt
from certs.jwt_svid import JwtSvid, read_jwt_svid
from certs.keys import PrivateKey
from certs.rotation import backoff
from certs.spiffe import TrustDomain
from certs.svid import X509Svid, check_signer
from sidecar.http import protobuf
from sidecar.http.protobuf import InvalidMessage
from sidecar.identity import workload_messages as messages
from sidecar.identity.given import Held, NotOurs
from sidecar.net.grpc_client import call

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 15.0
MAX_CERTIFICATES = 1000  # in one bundle
_SCHEME = "spiffe://"

_log = logging.getLogger("mesh.identity")


class FromWorkloadApi:
    """Keeps the identity that the agent behind this socket hands us."""

    def __init__(self, held: Held, socket: str, dice: Callable[[], float]) -> None:
        self._held = held
        self._socket = socket
        self._dice = dice
        self._jwt_keys: dict[TrustDomain, tuple[JwtKey, ...]] = {}
        self._latest: tuple[X509Svid, BundleSet] | None = None
        self._nudge = trio.Event()
        self._sequence = 0

    async def run(self) -> NoReturn:
        """Keep both streams open until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep, messages.FETCH_X509_SVID, self._take_svid, True)
            nursery.start_soon(self._keep, messages.FETCH_JWT_BUNDLES, self._take_jwt_keys, False)
        raise AssertionError("the streams are opened again and again")

    def renew_soon(self) -> None:
        """Ask the agent again now; when it renews is its own affair."""
        self._nudge.set()

    async def fetch_jwt(self, audience: tuple[str, ...]) -> JwtSvid:
        """A token from the agent. Raises CallFailed, NotOurs."""
        request = b"".join(protobuf.data(1, each.encode()) for each in audience)
        request += protobuf.text(2, self._held.spiffe_id.text)
        with trio.move_on_after(ANSWER_SECONDS):
            async with self._open(messages.FETCH_JWT_SVID, request) as answers:
                async for answer in answers:
                    return self._token(answer, audience)
        raise NotOurs(f"the agent at {self._socket} gave no JWT-SVID in time")

    # ---- streams ---------------------------------------------------------------------------------------------------

    async def _keep(self, path: str, take: Callable[[bytes], None], ours: bool) -> NoReturn:
        """Keep one stream open. Of a failure of `ours` the status tells; the other is for tokens alone."""
        failures = 0
        while True:
            try:
                async with self._open(path, b"") as answers:
                    with trio.fail_after(ANSWER_SECONDS):  # the first message is immediate, by the standard
                        take(await self._first(answers))
                    failures = 0
                    async for answer in answers:
                        take(answer)
                        failures = 0
                raise NotOurs(f"the agent at {self._socket} ended the stream")
            except (MeshError, InvalidMessage, OSError, trio.TooSlowError) as error:
                self._complain(error, ours)
            except Exception as error:  # noqa: BLE001 - no surprise may take down a sidecar with a valid certificate
                self._complain(error, ours)
            wait = backoff(failures, self._dice())
            failures += 1
            self._nudge = trio.Event()
            with trio.move_on_after(wait):
                await self._nudge.wait()

    async def _first(self, answers: AsyncGenerator[bytes, None]) -> bytes:
        async for answer in answers:
            return answer
        raise NotOurs(f"the agent at {self._socket} ended the stream")

    def _complain(self, error: Exception, ours: bool) -> None:
        if isinstance(error, trio.TooSlowError):
            error = NotOurs(f"the agent at {self._socket} says nothing")
        elif isinstance(error, OSError):
            error = NotOurs(f"the agent at {self._socket}: {error.strerror or error}")
        if ours:
            self._held.fail(error)
        else:
            _log.info("keys of JWT-SVIDs: %s", error)

    @asynccontextmanager
    async def _open(self, path: str, request: bytes) -> Any:
        with trio.fail_after(CONNECT_SECONDS):
            stream = await trio.open_unix_socket(self._socket)
        answers: AsyncGenerator[bytes, None] = call(stream, path, request, [messages.SECURITY_HEADER])
        try:
            yield answers
        finally:
            await answers.aclose()
            await trio.aclose_forcefully(stream)

    # ---- what comes ------------------------------------------------------------------------------------------------

    def _take_svid(self, message: bytes) -> None:
        update = messages.read_x509_svid_response(message)
        found = next((one for one in update.svids if one.spiffe_id == self._held.spiffe_id.text), None)
        if found is None:
            names = ", ".join(one.spiffe_id for one in update.svids)[:300] or "none"
            raise NotOurs(f"the agent at {self._socket} has no identity {self._held.spiffe_id} for us; it has {names}")
        bundles = {found.spiffe_id: found.bundle, **update.federated}
        self._sequence += 1
        parsed = BundleSet.of_all(
            TrustBundle(_domain(name), tuple(_roots(der)), self._sequence) for name, der in bundles.items()
        )
        self._latest = (_svid(found.chain, found.key), parsed)
        self._publish()

    def _take_jwt_keys(self, message: bytes) -> None:
        tables = protobuf.read_table(message, 1)
        self._jwt_keys = {
            _domain(name): TrustBundle.parse_jwks(_domain(name), jwks).jwt_keys for name, jwks in tables.items()
        }
        if self._latest is not None:
            self._publish()

    def _publish(self) -> None:
        assert self._latest is not None
        svid, bundles = self._latest
        self._held.accept(svid, BundleSet.of_all(self._with_keys(bundle) for bundle in bundles))

    def _with_keys(self, bundle: TrustBundle) -> TrustBundle:
        keys = self._jwt_keys.get(bundle.trust_domain, ())
        return TrustBundle(bundle.trust_domain, bundle.roots, bundle.sequence, None, keys)

    def _token(self, answer: bytes, audience: tuple[str, ...]) -> JwtSvid:
        try:
            token = read_jwt_svid(protobuf.one_text(protobuf.one_data(answer, 1), 2))
        except (InvalidMessage, InvalidJwt) as error:
            raise NotOurs(f"the agent's JWT-SVID cannot be read: {error}") from None
        if token.spiffe_id != self._held.spiffe_id or set(token.audience) != set(audience):
            raise NotOurs("the agent's JWT-SVID is for another identity or audience")
        return token


def _domain(name: str) -> TrustDomain:
    """The trust domain of a SPIFFE ID, or of its bare name, as some agents have it. Raises InvalidSpiffeId."""
    return TrustDomain.parse(name.removeprefix(_SCHEME).partition("/")[0])


def _svid(chain: bytes, key: bytes) -> X509Svid:
    """An SVID of concatenated DER and PKCS #8. Raises InvalidSvid, NotOurs."""
    try:
        private = load_der_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise NotOurs("the agent's private key cannot be read") from None
    if not isinstance(private, PrivateKey):
        raise NotOurs("the agent's private key is of a kind that is not accepted")
    pem = b"".join(one.public_bytes(Encoding.PEM) for one in _certificates(chain))
    return X509Svid.parse(pem, private)


def _roots(der: bytes) -> Iterator[x509.Certificate]:
    for root in _certificates(der):
        check_signer(root)
        yield root


def _certificates(der: bytes) -> Iterator[x509.Certificate]:
    """Certificates that stand one after another. Raises NotOurs."""
    at = count = 0
    while at < len(der):
        size, count = _length(der, at), count + 1
        if count > MAX_CERTIFICATES or at + size > len(der):
            raise NotOurs("the agent's certificates cannot be told apart")
        try:
            yield x509.load_der_x509_certificate(der[at : at + size])
        except ValueError:
            raise NotOurs("one of the agent's certificates cannot be read") from None
        at += size


def _length(der: bytes, at: int) -> int:
    """Bytes of the ASN.1 SEQUENCE that begins here, with its head (X.690 section 8.1.3). Raises NotOurs."""
    if der[at] != 0x30 or len(der) < at + 2:
        raise NotOurs("the agent's certificates are not DER")
    first = der[at + 1]
    if first < 0x80:
        return 2 + first
    size = first & 0x7F
    if not 1 <= size <= 3 or len(der) < at + 2 + size:
        raise NotOurs("the agent's certificates are not DER")
    return 2 + size + int.from_bytes(der[at + 2 : at + 2 + size], "big")

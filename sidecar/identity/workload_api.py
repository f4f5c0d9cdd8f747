"""The SPIFFE Workload API for the application beside us: its identity, as any SPIFFE library asks for it (S4).

Five calls (SPIFFE_Workload_API.md sections 5 and 6). Streams begin with the whole state at once, and every further
message is the whole state again: what is missing has been withdrawn. A message is sent when the SVID or a bundle has
changed, and only if that makes it another message.

Who may ask is decided by the caller's user, which the kernel tells (`may`); without that nothing is answered but
PermissionDenied. A call without the header `workload.spiffe.io: true` is InvalidArgument: no page, and nothing that is
tricked into making requests, can send it. While there is no valid certificate the answer is Unavailable, and SPIFFE
libraries ask again.

Revocation (decision D10) ends what is open as well. Revoked by SPIFFE ID: every call and stream ends with
PermissionDenied, as for whoever has no identity. Revoked by its serial or its issuing CA: the certificate and its key
are handed out no more, and streams of SVIDs end with Unavailable until there is the next one, which comes in seconds.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import trio

from certs.bundle import BundleSet
from certs.denylist import Denylist, Why
from certs.errors import MeshError
from certs.jwt import InvalidJwt
from certs.jwt_svid import JwtSvid, check_audience, validate_jwt_svid
from certs.source import Source
from certs.svid import X509Svid
from sidecar.http.grpc import Status
from sidecar.http.protobuf import InvalidMessage
from sidecar.identity import workload_messages as messages
from sidecar.net.clock import Clock
from sidecar.net.grpc_server import CallRefused, GrpcCall, Method

_OF_OURSELVES = (messages.FETCH_X509_SVID, messages.FETCH_JWT_SVID)
FetchJwt = Callable[[tuple[str, ...]], Awaitable[JwtSvid]]  # by audience; raises MeshError


@dataclass(frozen=True, slots=True)
class WorkloadApi:
    """The calls. `may` judges a peer; `fetch_jwt` gets a JWT-SVID of our own identity; `denylists` tell who is revoked.
    """

    svids: Source[X509Svid]
    bundles: Source[BundleSet]
    fetch_jwt: FetchJwt
    clock: Clock
    may: Callable[[Any], bool]
    denylists: Source[Denylist]
    given: Callable[[Any, str], None] = lambda peer, call: None  # hears of each call that gets an identity, and of whom

    def methods(self) -> dict[str, Method]:
        """What `serve_grpc` serves."""
        table: dict[str, Method] = {
            messages.FETCH_X509_SVID: self._fetch_x509_svid,
            messages.FETCH_X509_BUNDLES: self._fetch_x509_bundles,
            messages.FETCH_JWT_SVID: self._fetch_jwt_svid,
            messages.FETCH_JWT_BUNDLES: self._fetch_jwt_bundles,
            messages.VALIDATE_JWT_SVID: self._validate_jwt_svid,
        }
        return {path: self._guarded(path, method) for path, method in table.items()}

    def _guarded(self, path: str, method: Method) -> Method:
        async def guarded(call: GrpcCall) -> AsyncGenerator[bytes, None]:
            if messages.SECURITY_HEADER not in call.headers:
                raise CallRefused(Status.INVALID_ARGUMENT, "the metadata lacks workload.spiffe.io: true")
            if not self.may(call.peer):
                raise CallRefused(Status.PERMISSION_DENIED, "no identity is issued to this user; see allow_uids")
            self._check_not_cast_out()
            answers, told = method(call), path not in _OF_OURSELVES
            try:
                async for answer in answers:
                    self._check_not_cast_out()  # it may have been while we asked the CA
                    if not told:
                        self.given(call.peer, path.rpartition("/")[2])
                        told = True
                    yield answer
            except InvalidMessage as error:
                raise CallRefused(Status.INVALID_ARGUMENT, f"the request cannot be read: {error}") from None
            finally:
                await answers.aclose()

        return guarded

    # ---- X.509 -----------------------------------------------------------------------------------------------------

    def _fetch_x509_svid(self, call: GrpcCall) -> AsyncGenerator[bytes, None]:
        return self._each(lambda: messages.x509_svid_response(self._svid(), self.bundles.current))

    def _fetch_x509_bundles(self, call: GrpcCall) -> AsyncGenerator[bytes, None]:
        return self._each(lambda: messages.x509_bundles_response(self._known_bundles()))

    def _svid(self) -> X509Svid:
        """The SVID in hand. Raises CallRefused where there is none, or none that still holds."""
        self._known_bundles()
        if not self.svids.number:
            raise CallRefused(Status.UNAVAILABLE, "this sidecar has no certificate yet")
        svid = self.svids.current
        if self.clock.wall() >= svid.not_after:
            raise CallRefused(Status.UNAVAILABLE, "this sidecar's certificate has expired and is being replaced")
        if (why := self._revoked()) is not None:
            raise CallRefused(Status.UNAVAILABLE, f"this certificate was revoked, by {why}, and is being replaced")
        return svid

    def _revoked(self) -> Why | None:
        """Why the certificate in hand is on the denylist in force; None where it is not, or there is neither."""
        if not self.denylists.number or not self.svids.number:
            return None
        svid = self.svids.current
        return self.denylists.current.denies_chain(svid.spiffe_id, svid.chain)

    def _check_not_cast_out(self) -> None:
        """Raise CallRefused where our identity itself is revoked: then there is nobody here to answer for."""
        if self._revoked() == "spiffe_id":
            raise CallRefused(Status.PERMISSION_DENIED, "the identity of this workload was revoked")

    def _known_bundles(self) -> BundleSet:
        if not self.bundles.number:
            raise CallRefused(Status.UNAVAILABLE, "this sidecar has no trust bundle yet")
        return self.bundles.current

    # ---- JWT -------------------------------------------------------------------------------------------------------

    async def _fetch_jwt_svid(self, call: GrpcCall) -> AsyncGenerator[bytes, None]:
        wanted, subject = messages.read_jwt_svid_request(call.message)
        try:
            audience = check_audience(wanted)
        except InvalidJwt as error:
            raise CallRefused(Status.INVALID_ARGUMENT, error.detail) from None
        spiffe_id = self._svid().spiffe_id
        if subject and subject != spiffe_id.text:
            raise CallRefused(Status.PERMISSION_DENIED, f"the identity of this workload is {spiffe_id}")
        try:
            svid = await self.fetch_jwt(audience)
        except MeshError as error:
            raise CallRefused(Status.UNAVAILABLE, f"no JWT-SVID can be had now ({error.name})") from None
        yield messages.jwt_svid_response(svid.spiffe_id.text, svid.token)

    def _fetch_jwt_bundles(self, call: GrpcCall) -> AsyncGenerator[bytes, None]:
        return self._each(lambda: messages.jwt_bundles_response(self._known_bundles()))

    async def _validate_jwt_svid(self, call: GrpcCall) -> AsyncGenerator[bytes, None]:
        audience, token = messages.read_validate_request(call.message)
        if not audience or not token:
            raise CallRefused(Status.INVALID_ARGUMENT, "both the audience and the JWT-SVID are needed")
        bundles = self._known_bundles()
        try:
            svid = validate_jwt_svid(token, audience, bundles, self.clock.wall())
        except InvalidJwt as error:
            raise CallRefused(Status.INVALID_ARGUMENT, str(error)) from None
        yield messages.validate_response(svid.spiffe_id.text, svid.claims)

    # ---- streams ---------------------------------------------------------------------------------------------------

    async def _each(self, make: Callable[[], bytes]) -> AsyncGenerator[bytes, None]:
        """The message as it is now, and as it comes to be with each change."""
        sources: tuple[Source[Any], ...] = (self.svids, self.bundles, self.denylists)
        told: bytes | None = None
        while True:
            numbers = [source.number for source in sources]
            self._check_not_cast_out()
            message = make()
            if message != told:
                told = message
                yield message
            await _any_past(zip(sources, numbers, strict=True))


async def _any_past(waits: Iterable[tuple[Source[Any], int]]) -> None:
    """Wait until one of these sources has a value newer than its number."""
    async with trio.open_nursery() as nursery:

        async def wait(source: Source[Any], number: int) -> None:
            await source.wait_past(number)
            nursery.cancel_scope.cancel()

        for source, number in waits:
            nursery.start_soon(wait, source, number)

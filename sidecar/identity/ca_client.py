"""One connection to the CA: first it proves itself, then we ask.

The CA shows an SVID of its own, `spiffe://<trust domain>/mesh/ca`; DNS name and address prove nothing (decision D15).
What makes that SVID good is either the trust bundle that we hold, or, at first contact, the SHA-256 of the roots that
the enrolment file names. No request is written, and no certificate of ours is shown, before that has held.

Judging a chain needs the time, and the commonest reason for a good CA to look bad is our own clock. So a refusal over
time is followed by one more connection that asks the CA for its time and nothing else; the answer is only put in words.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import trio
from cryptography import x509
from OpenSSL import SSL

from certs.bundle import BundleSet, TrustBundle
from certs.denylist import Denylist
from certs.errors import IdentityError, MeshError, UntrustedSvid
from certs.jwt_svid import JwtSvid
from certs.keys import PrivateKey
from certs.signed import Statement
from certs.spiffe import SpiffeId, TrustDomain, ca_id
from certs.svid import X509Svid
from certs.verify import verify_chain, verify_pinned
from sidecar.identity.answers import Issued, parse_bundle, parse_issued, parse_jwt_svid, parse_refusal, parse_time
from sidecar.identity.errors import BadAnswer, CaRefused, CaUnreachable, CaUntrusted
from sidecar.identity.status import CLOCK_TOLERANCE, describe_skew
from sidecar.net.clock import Clock
from sidecar.net.contexts import make_context
from sidecar.net.http_client import Answer, BadHttp, Duplex, HttpClient
from sidecar.net.http_message import JSON, BadJson
from sidecar.net.tls_errors import TlsError
from sidecar.net.tls_stream import TlsStream

CONNECT_SECONDS = 2.0  # D8
HANDSHAKE_SECONDS = 5.0  # D8
ANSWER_SECONDS = 15.0  # D8: response head after the request's end; our answers are one piece
ALPN = (b"http/1.1",)
_TIME_REASONS = ("expired", "not_yet_valid")

Dial = Callable[[str], Awaitable[trio.abc.Stream]]


@dataclass(frozen=True, slots=True)
class Trust:
    """What makes a CA ours: a bundle that we hold, or else the pinned hashes of roots that it may show; and never a
    certificate that our denylist denies, for the key of an issuing CA that was revoked could make one of a CA.
    """

    trust_domain: TrustDomain
    bundle: TrustBundle | None = None
    pins: tuple[str, ...] = ()
    denied: Denylist | None = None

    def check(self, chain: tuple[x509.Certificate, ...], now: float) -> SpiffeId:
        """Whose chain this is. Raises InvalidSvid, UntrustedSvid."""
        if self.bundle is not None:
            found = verify_chain(chain, BundleSet((self.bundle,)), now)
        else:
            found = verify_pinned(chain, self.pins, self.trust_domain, now)
        if self.denied is not None and self.denied.denies_chain(found, chain) is not None:
            raise UntrustedSvid("revoked", f"the certificate of {found}, or an issuing CA above it, was revoked")
        return found


async def dial_tcp(address: str) -> trio.abc.Stream:
    """A TCP connection to `host:port`, or one to `unix:/path`. Raises OSError."""
    if address.startswith("unix:"):
        return await trio.open_unix_socket(address.removeprefix("unix:"))
    host, _, port = address.rpartition(":")
    return await trio.open_tcp_stream(host.strip("[]"), int(port))


async def connect(address: str, trust: Trust, svid: X509Svid | None, clock: Clock, dial: Dial = dial_tcp) -> CaSession:
    """Connect and make sure that it is the CA, showing `svid` where there is one. Raises CaUnreachable, CaUntrusted.

    A CA that refuses *our* certificate in the handshake is a CaRefused with status 401; under TLS 1.3 that comes to
    light with the first answer only.
    """
    try:
        return await _connect(address, trust, svid, clock, dial)
    except CaUntrusted as error:
        if error.reason not in _TIME_REASONS:
            raise
        raise await _blame_clock(error, address, trust, clock, dial) from None


class CaSession:
    """A connection to a CA that has proved itself. Every call raises CaError's kinds."""

    def __init__(self, stream: TlsStream, address: str, trust_domain: TrustDomain) -> None:
        self.trust_domain = trust_domain
        self._address = address
        self._http = HttpClient(stream, address)

    async def time(self) -> float:
        """The CA's wall clock."""
        return parse_time((await self._call("GET", "/v1/time")).get("now"))

    async def skew(self, clock: Clock) -> float:
        """Our clock minus the CA's, to half the time that the question took."""
        asked = clock.wall()
        theirs = await self.time()
        return (asked + clock.wall()) / 2 - theirs

    async def bundle(self) -> TrustBundle:
        """The trust bundle."""
        answer = await self._exchange("GET", "/v1/bundle", None)
        return parse_bundle(self.trust_domain, answer.body)

    async def challenge(self, entry: str) -> str:
        """A nonce for an enrolment key to sign; good once and for a minute."""
        nonce = (await self._call("POST", "/v1/challenge", {"entry": entry})).get("nonce")
        if not isinstance(nonce, str):
            raise BadAnswer("the CA's challenge has no nonce")
        return nonce

    async def enrol(self, csr: bytes, proof: dict[str, Any], key: PrivateKey, expected: SpiffeId) -> Issued:
        """Ask for a certificate with this proof of who we are."""
        answer = await self._call("POST", "/v1/enrol", {"csr": _b64(csr), "proof": proof})
        return parse_issued(answer, key, expected)

    async def renew(self, csr: bytes, key: PrivateKey, expected: SpiffeId) -> Issued:
        """Ask for a certificate with the one that this connection shows."""
        return parse_issued(await self._call("POST", "/v1/renew", {"csr": _b64(csr)}), key, expected)

    async def jwt_svid(self, audience: tuple[str, ...], expected: SpiffeId) -> JwtSvid:
        """Ask for a token for this audience, of the identity that this connection shows."""
        return parse_jwt_svid(await self._call("POST", "/v1/jwt", {"audience": list(audience)}), audience, expected)

    async def witness(self, heads: Sequence[Statement]) -> int:
        """Have heads of our audit written into the CA's log, oldest first; how many of them it took."""
        answer = await self._call("POST", "/v1/audit/heads", {"heads": [head.to_json() for head in heads]})
        taken = answer.get("witnessed")
        if not isinstance(taken, int) or not 0 <= taken <= len(heads):
            raise BadAnswer("the CA does not say how many heads it has witnessed")
        return taken

    async def watch(self) -> Duplex:
        """Open the watch."""
        with _patience(self._address):
            opened = await self._http.duplex("POST", "/v1/watch", ((b"content-type", b"application/x-ndjson"),))
        if isinstance(opened, Answer):
            raise parse_refusal(opened)
        return opened

    async def aclose(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def __aenter__(self) -> CaSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(deadline=trio.current_time() + 1.0, shield=True):
            await self.aclose()

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = await self._exchange(method, path, body)
        try:
            return answer.json()
        except BadJson as error:
            raise BadAnswer(f"{method} {path}: {error}") from error

    async def _exchange(self, method: str, path: str, body: dict[str, Any] | None) -> Answer:
        with _patience(self._address):
            answer = await self._http.request(method, path, b"" if body is None else _json(body), (JSON,))
        if answer.status != 200:
            raise parse_refusal(answer)
        return answer


@contextmanager
def _patience(address: str) -> Iterator[None]:
    """A limit of time around a call, which also turns what can go wrong on the way into CaError's kinds."""
    try:
        with trio.fail_after(ANSWER_SECONDS):
            yield
    except trio.TooSlowError:
        raise CaUnreachable(f"the CA at {address} did not answer in time") from None
    except TlsError as error:
        if error.alert:
            raise CaRefused(401, error.reason, error.detail) from error
        raise CaUnreachable(f"the connection to the CA at {address} broke: {error}") from error
    except (OSError, BadHttp, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise CaUnreachable(f"the connection to the CA at {address} broke: {error}") from error


async def _connect(address: str, trust: Trust, svid: X509Svid | None, clock: Clock, dial: Dial) -> CaSession:
    stream = await _handshake(address, trust, svid, clock, dial)
    try:
        _check_ca(stream.peer_chain(), trust, clock.wall())
    except TlsError as error:
        await trio.aclose_forcefully(stream)
        raise CaUntrusted(error.reason, f"not our CA: {error}") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return CaSession(stream, address, trust.trust_domain)


async def _handshake(address: str, trust: Trust, svid: X509Svid | None, clock: Clock, dial: Dial) -> TlsStream:
    try:
        with trio.fail_after(CONNECT_SECONDS):
            transport = await dial(address)
    except (OSError, trio.TooSlowError) as error:
        reason = str(error) or "no answer in time"
        raise CaUnreachable(f"cannot reach the CA at {address}: {reason}") from error
    stream = TlsStream(transport, _context(trust, svid, clock.wall()), server=False)
    try:
        with trio.fail_after(HANDSHAKE_SECONDS):
            await stream.do_handshake()
    except TlsError as error:
        await trio.aclose_forcefully(stream)
        if error.alert or error.reason in ("truncated", "closed"):
            raise CaUnreachable(f"the TLS handshake with the CA at {address} failed: {error}") from error
        raise CaUntrusted(error.reason, f"the CA at {address}: {error}") from error
    except (OSError, trio.TooSlowError, trio.BrokenResourceError) as error:
        await trio.aclose_forcefully(stream)
        reason = str(error) or "it took too long"
        raise CaUnreachable(f"the TLS handshake with the CA at {address} failed: {reason}") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def _context(trust: Trust, svid: X509Svid | None, now: float) -> SSL.Context:
    if trust.bundle is None:  # first contact: judged by its pins as soon as the handshake is over; we show nothing
        return make_context(None, (), server=False, verify="none", alpn=ALPN)
    return make_context(svid, trust.bundle.roots, server=False, verify="require", alpn=ALPN, now=now)


def _check_ca(chain: tuple[x509.Certificate, ...], trust: Trust, now: float) -> None:
    wanted = ca_id(trust.trust_domain)
    try:
        shown = trust.check(chain, now)
    except UntrustedSvid as error:
        raise CaUntrusted(error.reason, f"not our CA: {error}") from error
    except IdentityError as error:
        raise CaUntrusted(error.name, f"not our CA: {error}") from error
    if shown != wanted:
        raise CaUntrusted("wrong_identity", f"not our CA: it proved to be {shown}, and the CA is {wanted}")


async def _blame_clock(error: CaUntrusted, address: str, trust: Trust, clock: Clock, dial: Dial) -> CaUntrusted:
    """The same refusal, with what the CA's own clock says about it, if it will tell."""
    try:
        skew = await _measure(address, trust, clock, dial)
    except MeshError:
        return error  # it speaks of the clock already
    if abs(skew) <= CLOCK_TOLERANCE:
        return CaUntrusted(error.reason, f"{error.detail}; our clock and the CA's agree, so the CA must renew", skew)
    return CaUntrusted("clock", f"{error.detail}; {describe_skew(skew)}", skew)


async def _measure(address: str, trust: Trust, clock: Clock, dial: Dial) -> float:
    """Our clock minus that of a CA whose certificate holds but for the time. Sends no secret, shows no certificate."""
    stream = await _handshake(address, Trust(trust.trust_domain), None, clock, dial)
    async with CaSession(stream, address, trust.trust_domain) as session:
        chain = stream.peer_chain()
        if not chain:
            raise CaUntrusted("no_certificate", "no certificate was shown")
        latest = min(certificate.not_valid_after_utc for certificate in chain)
        _check_ca(chain, trust, latest.timestamp() - 1)
        return await session.skew(clock)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")

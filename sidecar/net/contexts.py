"""TLS contexts: who we are and whom we trust, frozen into one pyOpenSSL `Context` for each generation of either.

A `Context` that has made a `Connection` can no longer be changed (pyOpenSSL since 26.2), which suits us: a new SVID or
a new bundle means a new context, and connections keep the one they began with. Nothing is read from the system: the
store holds exactly the roots that are passed in, so that unknown, expired and broken chains fail inside the handshake
with OpenSSL's own alert (decision D18). Whether an accepted chain is an SVID that we want is decided afterwards.

No session ever resumes: tickets are off, and no session is kept. OpenSSL may still send a TLS 1.3 ticket (the
number of tickets cannot be set through pyOpenSSL); it names a session that nobody remembers.

The verify callback decides nothing. It writes down OpenSSL's reason, which the error queue does not tell ("certificate
verify failed" is all it says), so that a refusal can be explained.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from cryptography import x509
from OpenSSL import SSL, crypto

from sidecar.net import openssl

if TYPE_CHECKING:
    from certs.svid import X509Svid

Verify = Literal["require", "optional", "none"]

TLS12_SUITES = b"ECDHE+AESGCM:ECDHE+CHACHA20"  # AEAD with forward secrecy only; RFC 9325 section 4.2
NO_AUTO_CHAIN = 0x8  # SSL_MODE_NO_AUTO_CHAIN: send exactly what we were given, never a root found in the store
MAX_CHAIN = 5  # leaf, at most three intermediates, root; ours are two long
MOST_NAMES_BYTES = 4096  # of roots, in a request for a certificate: the flight must fit into TCP's first ten segments

_MODES = {
    "require": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
    "optional": SSL.VERIFY_PEER,
    "none": SSL.VERIFY_NONE,
}


class VerifyFailure(NamedTuple):
    """Why OpenSSL refused the peer's chain, and which certificate of it."""

    number: int  # X509_V_ERR_*
    depth: int  # 0 is the leaf
    certificate: x509.Certificate | None  # None where only OpenSSL can read it


_alive: WeakSet[SSL.Context] = WeakSet()
_verify_failures: WeakKeyDictionary[SSL.Connection, VerifyFailure] = WeakKeyDictionary()


class NoCommonProtocol(SSL.Error):
    """The client offered application protocols (ALPN), and none of them is ours. OpenSSL has sent the alert."""

    def __init__(self) -> None:
        super().__init__([("SSL routines", "", "no application protocol")])


def make_context(
    svid: X509Svid | None,
    roots: Sequence[x509.Certificate],
    *,
    server: bool,
    verify: Verify,
    alpn: tuple[bytes, ...] = (),
    tls12: bool = False,
    extra_chain: tuple[x509.Certificate, ...] = (),
    now: float | None = None,
) -> SSL.Context:
    """A context that shows `svid` and trusts `roots`, and nothing else.

    `verify="optional"` (servers only) lets a client come without a certificate; one that it does show must hold. A
    server picks the first protocol of `alpn` that the client offers and refuses a client that offers only others.
    `extra_chain` is sent after the SVID's own chain. `now` (seconds since the epoch) pins the time against which chains
    are judged, for contexts that serve a single connection; without it OpenSSL asks the system's clock each time.
    """
    if server and svid is None:
        raise ValueError("a server needs an SVID")
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION if tls12 else SSL.TLS1_3_VERSION)
    if tls12:
        context.set_cipher_list(TLS12_SUITES)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS | NO_AUTO_CHAIN)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF | SSL.SESS_CACHE_NO_INTERNAL)
    context.set_verify(_MODES[verify], _note_verify_failure)
    context.set_verify_depth(MAX_CHAIN)
    _trust(context, roots, now)
    if server and verify == "require":
        _name_authorities(context, roots)
    if svid is not None:
        _show(context, svid, extra_chain)
    if alpn:
        _negotiate(context, alpn, server)
    openssl.quicken(context, _MODES[verify], alpn if server else ())
    _alive.add(context)
    return context


def contexts_alive() -> int:
    """How many contexts this process holds: those of generations that a connection still keeps, too."""
    return len(_alive)


def verify_failure(connection: SSL.Connection) -> VerifyFailure | None:
    """Why OpenSSL refused the peer's chain on this connection; None where it did not."""
    return _verify_failures.get(connection)


def _trust(context: SSL.Context, roots: Sequence[x509.Certificate], now: float | None) -> None:
    store = context.get_cert_store()
    assert store is not None
    for root in roots:
        store.add_cert(crypto.X509.from_cryptography(root))
    if now is not None:
        store.set_time(datetime.fromtimestamp(now, UTC))


def _name_authorities(context: SSL.Context, roots: Sequence[x509.Certificate]) -> None:
    """Tell clients by name whose certificates count here (RFC 8446 section 4.2.4). Our sidecars have one certificate
    and send it anyway; browsers, Go and GnuTLS pick theirs by it, and a browser sends intermediates only if told.

    Roots that have no name, or too many names for a first flight, are left out altogether: to name some of them would
    turn away clients of the others.
    """
    names = {root.subject.public_bytes(): root for root in roots}
    if not all(root.subject.rdns for root in roots) or sum(map(len, names)) > MOST_NAMES_BYTES:
        return
    for root in names.values():
        context.add_client_ca(root)


def _show(context: SSL.Context, svid: X509Svid, extra_chain: tuple[x509.Certificate, ...]) -> None:
    context.use_certificate(svid.leaf)
    context.use_privatekey(svid.key)
    for certificate in (*svid.chain[1:], *extra_chain):
        context.add_extra_chain_cert(certificate)


def _negotiate(context: SSL.Context, alpn: tuple[bytes, ...], server: bool) -> None:
    if not server:
        context.set_alpn_protos(list(alpn))
        return

    def select(_: SSL.Connection, offered: list[bytes]) -> bytes:
        for protocol in alpn:
            if protocol in offered:
                return protocol
        raise NoCommonProtocol  # pyOpenSSL makes this the fatal alert no_application_protocol and raises it again

    context.set_alpn_select_callback(select)


def _note_verify_failure(
    connection: SSL.Connection, certificate: crypto.X509, number: int, depth: int, ok: int
) -> bool:
    if not ok:
        try:
            readable = certificate.to_cryptography()
        except (ValueError, x509.InvalidVersion):
            readable = None
        _verify_failures[connection] = VerifyFailure(number, depth, readable)
    return bool(ok)

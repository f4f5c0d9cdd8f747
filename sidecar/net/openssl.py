"""OpenSSL's own calls without pyOpenSSL's wrapping, where a request or a handshake would feel it.

pyOpenSSL's `recv_into` allocates a buffer for each call and copies out of it, and `send` copies in; together 3 to 4 µs
of a request. Here OpenSSL reads into the reactor's shared buffer and writes from the bytes themselves. In a handshake
`get_verified_chain` copies and parses each certificate again; here OpenSSL hashes them, and who has come before is
known by that. Its callbacks build objects for what is in order, too; here they are asked only about the rest.

This takes private names of pyOpenSSL (`Connection._ssl`, `Connection._raise_ssl_error`, `Context._context` and the
helpers of its callbacks, `_util`), so a self-test at import asks whether they still mean what we think; where they do
not, the public calls do the same work more slowly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from OpenSSL import SSL

Read = Callable[[SSL.Connection, "SharedBuffer", int], int]
ReadOn = Callable[[SSL.Connection, "SharedBuffer", int, int], int]
Write = Callable[[SSL.Connection, "bytes | memoryview"], int]
ShakeHands = Callable[[SSL.Connection], bool]
ChainHashes = Callable[[SSL.Connection], tuple[bytes, ...]]
Quicken = Callable[[SSL.Context, int, "tuple[bytes, ...]"], None]


class SharedBuffer:
    """One buffer for all reads of a reactor: each reader copies out, or passes on, what it got before it waits."""

    __slots__ = ("address", "data", "view")

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.view = memoryview(self.data)
        self.address: Any = _address(self.data)


def _public_read(connection: SSL.Connection, buffer: SharedBuffer, size: int) -> int:
    return connection.recv_into(buffer.view, size)


def _public_write(connection: SSL.Connection, data: bytes | memoryview) -> int:
    return connection.send(data)


def _public_shake_hands(connection: SSL.Connection) -> bool:
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        return False
    return True


def _public_chain_hashes(connection: SSL.Connection) -> tuple[bytes, ...]:
    chain: list[x509.Certificate] | None = connection.get_verified_chain(as_cryptography=True)
    chain = chain or []
    return tuple(certificate.fingerprint(SHA256()) for certificate in chain[: max(1, len(chain) - 1)])


def _leave(context: SSL.Context, mode: int, alpn: tuple[bytes, ...]) -> None:
    return None


def _no_more(connection: SSL.Connection, buffer: SharedBuffer, start: int, end: int) -> int:
    return 0


def _nothing(data: bytearray) -> None:
    return None


_address: Callable[[bytearray], Any] = _nothing
read: Read = _public_read  # as SSL.Connection.recv_into
read_on: ReadOn = _no_more  # into the buffer from `start` to `end`: 0 where nothing has come yet
write: Write = _public_write  # as SSL.Connection.send
shake_hands: ShakeHands = _public_shake_hands  # as do_handshake: whether it is done; False where it wants to read
# SHA-256 of each certificate of the verified chain but the root, which is ours; leaf first.
chain_hashes: ChainHashes = _public_chain_hashes
quicken: Quicken = _leave  # a context that is ready: answer at once in its callbacks where nothing is wrong


class _ShortWay(NamedTuple):
    read: Read
    read_on: ReadOn
    write: Write
    shake_hands: ShakeHands
    chain_hashes: ChainHashes
    quicken: Quicken
    address: Callable[[bytearray], Any]


def _short_way() -> _ShortWay:
    """The calls on OpenSSL itself. Raises whatever a pyOpenSSL that has changed makes it raise."""
    from OpenSSL._util import ffi, lib

    return _ShortWay(
        *_short_streams(ffi, lib), _short_shake_hands(lib), _short_chain_hashes(ffi, lib), _short_quicken(ffi, lib),
        ffi.from_buffer,
    )  # fmt: skip


def _short_streams(ffi: Any, lib: Any) -> tuple[Read, ReadOn, Write]:
    ssl_read, ssl_write, address = lib.SSL_read, lib.SSL_write, ffi.from_buffer

    def read(connection: Any, buffer: SharedBuffer, size: int) -> int:
        count: int = ssl_read(connection._ssl, buffer.address, size)
        if count <= 0:
            connection._raise_ssl_error(connection._ssl, count)
        return count

    def read_on(connection: Any, buffer: SharedBuffer, start: int, end: int) -> int:
        count: int = ssl_read(connection._ssl, buffer.address + start, end - start)
        if count <= 0:
            try:
                connection._raise_ssl_error(connection._ssl, count)
            except SSL.WantReadError:
                return 0
        return count

    def write(connection: Any, data: bytes | memoryview) -> int:
        count: int = ssl_write(connection._ssl, data if isinstance(data, bytes) else address(data), len(data))
        if count <= 0:
            connection._raise_ssl_error(connection._ssl, count)
        return count

    return read, read_on, write


def _short_shake_hands(lib: Any) -> ShakeHands:
    do_handshake, error_of, wants_to_read = lib.SSL_do_handshake, lib.SSL_get_error, lib.SSL_ERROR_WANT_READ

    def shake_hands(connection: Any) -> bool:
        result: int = do_handshake(connection._ssl)
        if result == 1:
            return True
        if error_of(connection._ssl, result) != wants_to_read:
            connection._raise_ssl_error(connection._ssl, result)
        return False

    return shake_hands


def _short_chain_hashes(ffi: Any, lib: Any) -> ChainHashes:
    verified_chain, number_in, item_of, digest = (
        lib.SSL_get0_verified_chain, lib.sk_X509_num, lib.sk_X509_value, lib.X509_digest
    )  # fmt: skip
    sha256 = lib.EVP_get_digestbyname(b"SHA256")
    if sha256 == ffi.NULL:
        raise SSL.Error("no SHA-256")
    room = ffi.new("unsigned char[]", 32)
    length = ffi.new("unsigned int *")
    hashed = ffi.buffer(room)

    def chain_hashes(connection: Any) -> tuple[bytes, ...]:
        chain = verified_chain(connection._ssl)
        if chain == ffi.NULL:
            return ()
        found = []
        for index in range(max(1, number_in(chain) - 1)):
            if digest(item_of(chain, index), sha256, room, length) != 1:
                raise SSL.Error("a certificate of the chain cannot be hashed")
            found.append(hashed[:])
        return tuple(found)

    return chain_hashes


def _short_quicken(ffi: Any, lib: Any) -> Quicken:
    taken: int = lib.SSL_TLSEXT_ERR_OK

    def quicken(context: Any, mode: int, alpn: tuple[bytes, ...]) -> None:
        note = context._verify_helper.callback

        def verified(ok: int, store: Any) -> int:
            result: int = 1 if ok else note(ok, store)  # where this raised, cffi would answer 0: refused
            return result

        context._mesh_verified = ffi.callback("int (*)(int, X509_STORE_CTX *)", verified)
        lib.SSL_CTX_set_verify(context._context, mode, context._mesh_verified)
        if not alpn:
            return
        choose = context._alpn_select_helper.callback
        # offers of just one protocol, and it is one of ours: those of a mesh
        offers = {bytes((len(name),)) + name: ffi.new("unsigned char[]", name) for name in alpn}

        def select(ssl: Any, out: Any, length: Any, offer: Any, size: int, nothing: Any) -> int:
            chosen = offers.get(ffi.buffer(offer, size)[:])
            if chosen is None:
                result: int = choose(ssl, out, length, offer, size, nothing)
                return result
            out[0], length[0] = chosen, size - 1
            return taken

        context._mesh_select = ffi.callback(
            "int (*)(SSL *, unsigned char **, unsigned char *, const unsigned char *, unsigned int, void *)", select
        )
        lib.SSL_CTX_set_alpn_select_cb(context._context, context._mesh_select, ffi.NULL)

    return quicken


def _works(way: _ShortWay) -> bool:
    """Whether the short way acts as the public one on a connection that has just begun: it asks for the other side,
    has its ClientHello ready, and knows of no chain.
    """
    buffer = SharedBuffer(64)
    buffer.address = way.address(buffer.data)
    calls: tuple[Callable[[SSL.Connection], int], ...] = (
        lambda c: way.read(c, buffer, 64), lambda c: way.write(c, b"x"), lambda c: way.write(c, memoryview(b"xy")),
    )  # fmt: skip
    for call in calls:
        connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        connection.set_connect_state()
        try:
            call(connection)
        except SSL.WantReadError:
            if connection.bio_read(1) != b"\x16":  # RFC 8446 section 5.1: a handshake record
                return False
        else:
            return False
        if way.shake_hands(connection) or way.chain_hashes(connection) != ():
            return False
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_verify(SSL.VERIFY_PEER, lambda *_: False)
    context.set_alpn_select_callback(lambda *_: b"")
    way.quicken(context, SSL.VERIFY_PEER, (b"http/1.1",))
    return True


def _choose() -> bool:
    global read, read_on, write, shake_hands, chain_hashes, quicken, _address
    try:
        found = _short_way()
        good = _works(found)
    except Exception:  # noqa: BLE001 - whatever is wrong with the short way, there is the public one
        good = False
    if good:
        read, read_on, write, shake_hands, chain_hashes, quicken, _address = found
    return good


SHORT = _choose()  # whether the short way is taken

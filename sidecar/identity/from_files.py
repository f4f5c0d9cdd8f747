"""An identity from files that somebody else renews: cert-manager, a Kubernetes secret, an agent with a folder.

Theory of operation. Files change one after another, and a reader in between sees a new certificate with an old key
(pain 29). So nothing is believed that was read once: paths are resolved (Kubernetes swaps one symlink, `..data`, under
all files of a volume at once), read, resolved and read again, and only where both readings are the same does anybody
look at what they say. Then the key has to be the certificate's, and the chain has to lead to the bundle. A reading that
fails is tried again shortly, for it may have been between two writes; if it stays so, the last good identity stays in
force and the status says what is wrong. Contents decide, not times: a file that was touched is no news.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import trio
from cryptography import x509

from certs.bundle import BundleSet, TrustBundle
from certs.errors import MeshError
from certs.jwt_svid import JwtSvid
from certs.keys import parse_key
from certs.store import read_guarded, read_key
from certs.svid import X509Svid, check_signer
from sidecar.identity.enrol import in_thread
from sidecar.identity.given import Held, NoTokens, NotOurs

LOOK_SECONDS = 2.0  # between two looks at the files
AGAIN_SECONDS = 0.2  # after a reading that failed
PATIENCE = 5  # readings that may fail before it is said: a writer needs milliseconds between its files
ROUNDS = 10  # tries for two readings that are the same


@dataclass(frozen=True, slots=True)
class Reading:
    """Three files as of one moment."""

    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    bundle: bytes

    @property
    def digest(self) -> bytes:
        """Equal for equal contents."""
        parts = (self.chain_pem, self.key_pem, self.bundle)
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


class FromFiles:
    """Keeps the identity that these files hold. Paths may be symbolic links."""

    def __init__(self, held: Held, cert: Path, key: Path, bundle: Path, *, disk: Any = in_thread) -> None:
        self._held = held
        self._cert, self._key, self._bundle = cert, key, bundle
        self._disk = disk
        self._known = b""  # the digest of what is in force
        self._nudge = trio.Event()
        self._sequence = 0
        self._last_roots: tuple[x509.Certificate, ...] = ()

    async def run(self) -> NoReturn:
        """Look, take over what is good, and look again, until cancelled."""
        bad = 0
        while True:
            try:
                await self.look()
                bad = 0
            except (MeshError, OSError) as error:
                bad += 1
                if bad == PATIENCE or (bad > PATIENCE and bad % 30 == 0):
                    self._held.fail(error)
            except Exception as error:  # noqa: BLE001 - no surprise may take down a sidecar with a valid certificate
                bad += 1
                self._held.fail(error)
            self._nudge = trio.Event()
            with trio.move_on_after(AGAIN_SECONDS if 0 < bad < PATIENCE else LOOK_SECONDS):
                await self._nudge.wait()

    def renew_soon(self) -> None:
        """Look at the files now."""
        self._nudge.set()

    async def fetch_jwt(self, audience: tuple[str, ...]) -> JwtSvid:
        """Files have no tokens. Raises NoTokens."""
        raise NoTokens("an identity from files has no JWT-SVIDs")

    async def look(self) -> bool:
        """Take over what the files hold now; whether it was news. Raises NotOurs, MeshError's kinds, OSError."""
        reading: Reading = await self._disk(self._read_steadily)
        if reading.digest == self._known:
            return False
        svid = X509Svid.parse(reading.chain_pem, parse_key(reading.key_pem, None, str(self._key)))
        self._held.accept(svid, self._bundles(reading.bundle))
        self._known = reading.digest
        return True

    def _read_steadily(self) -> Reading:
        """All three as of one moment: two readings in a row that are the same, by the same paths. Blocks on disk."""
        before = self._read()
        for _ in range(ROUNDS):
            after = self._read()
            if before == after:
                return after[1]
            before = after
        raise NotOurs("the files change while they are read, again and again")

    def _read(self) -> tuple[tuple[Path, ...], Reading]:
        where = tuple(path.resolve() for path in (self._cert, self._key, self._bundle))
        return where, Reading(read_guarded(where[0]), read_key(where[1]), read_guarded(where[2]))

    def _bundles(self, data: bytes) -> BundleSet:
        """The bundle of our trust domain: concatenated PEM, or SPIFFE's JWK Set. Raises MeshError's kinds."""
        domain = self._held.spiffe_id.trust_domain
        if data.lstrip()[:1] == b"{":
            return BundleSet((TrustBundle.parse_jwks(domain, data),))
        try:
            roots = tuple(dict.fromkeys(x509.load_pem_x509_certificates(data)))
        except ValueError:
            raise NotOurs(f"{self._bundle} holds neither PEM certificates nor a JWK Set") from None
        for root in roots:
            check_signer(root)
        if roots != self._last_roots:
            self._last_roots, self._sequence = roots, self._sequence + 1
        return BundleSet((TrustBundle(domain, roots, self._sequence),))

"""From a proof to a certificate: which proof to show, and what to remember of it (decision D14).

A join token buys one enrolment. In the same call the CA registers an enrolment key that we made, and from then on that
key is our proof, over restarts and expiries. The key is on disk *before* the token is sent: if the CA uses the token up
and its answer is lost, the next try finds the token used (409) and enrols with the key that came with it.

An enrolment file that brings a key of its own, or that says where a service-account token or the CA's Unix socket is,
needs none of this. A new join token in the file, as an operator hands
out after revoking a key, starts over with a new key.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import trio

from certs.csr import make_csr
from certs.enrolment import Enrolment, EnrolmentKey, JoinToken, KubernetesToken, UnixSocket, challenge_message
from certs.errors import PrivateFileUnavailable
from certs.jwt import MAX_TOKEN_BYTES
from certs.keys import KEY_KINDS, PrivateKey, make_key
from certs.signed import sign_bytes
from certs.svid import X509Svid
from sidecar.identity.answers import Issued
from sidecar.identity.ca_client import CaSession
from sidecar.identity.errors import CaRefused, NoToken
from sidecar.identity.state import KeptKey, StateFolder, token_hash

T = TypeVar("T")

_log = logging.getLogger("mesh.identity")


async def in_thread(work: Callable[[], T]) -> T:
    """Run what blocks on the disk in a worker thread."""
    return await trio.to_thread.run_sync(work)


async def enrol(
    session: CaSession, enrolment: Enrolment, state: StateFolder, disk: Any = in_thread, kind: str = KEY_KINDS[0]
) -> Issued:
    """Obtain a certificate for a new key by whatever proof we have. Raises CaError's kinds, DamagedState, OSError."""
    match enrolment.proof:
        case EnrolmentKey():
            return await _by_key(session, enrolment, enrolment.proof, disk, kind)
        case JoinToken():
            return await _by_token(session, enrolment, enrolment.proof, state, disk, kind)
        case KubernetesToken(path, cluster):
            shown = {"type": "kubernetes", "token": await disk(lambda: load_token(path)), "entry": enrolment.entry}
            return await _plainly(session, enrolment, shown | ({"cluster": cluster} if cluster else {}), disk, kind)
        case UnixSocket():
            return await _plainly(session, enrolment, {"type": "unix", "entry": enrolment.entry}, disk, kind)


async def reenrol(
    session: CaSession, enrolment: Enrolment, old: X509Svid, disk: Any = in_thread, kind: str = KEY_KINDS[0]
) -> Issued:
    """Obtain a certificate by one that has ended, where our entry allows that. Raises CaError's kinds."""
    key = await _new_key(kind, disk)
    csr = make_csr(key)
    nonce = await session.challenge(enrolment.entry)
    message = challenge_message(enrolment.trust_domain, enrolment.entry, nonce, csr)
    signature = _b64(sign_bytes("reenrol", message, old.key))
    chain = old.chain_pem().decode("ascii")
    shown = {"type": "expired_svid", "entry": enrolment.entry, "nonce": nonce, "chain": chain, "signature": signature}
    return await session.enrol(csr, shown, key, enrolment.spiffe_id)


def load_token(path: str) -> str:
    """The service-account token as it is now; Kubernetes replaces it long before its end. Raises NoToken."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_TOKEN_BYTES + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise NoToken(f"the service-account token {path} cannot be read: {why}") from None
    if not text or len(text) > MAX_TOKEN_BYTES:
        raise NoToken(f"{path} holds no service-account token")
    return text


async def _plainly(
    session: CaSession, enrolment: Enrolment, shown: dict[str, Any], disk: Any, kind: str
) -> Issued:
    key = await _new_key(kind, disk)
    return await session.enrol(make_csr(key), shown, key, enrolment.spiffe_id)


async def renew(
    session: CaSession, enrolment: Enrolment, disk: Any = in_thread, kind: str = KEY_KINDS[0]
) -> Issued:
    """Obtain a certificate for a new key on a connection that shows the current certificate. Raises CaError's kinds."""
    key = await _new_key(kind, disk)
    return await session.renew(make_csr(key), key, enrolment.spiffe_id)


async def _new_key(kind: str, thread: Any) -> PrivateKey:
    """A fresh key; RSA, which takes up to a second, in a thread of its own."""
    key: PrivateKey = await thread(lambda: make_key(kind)) if kind.startswith("rsa") else make_key(kind)
    return key


async def _by_key(session: CaSession, enrolment: Enrolment, proof: EnrolmentKey, disk: Any, kind: str) -> Issued:
    key = await _new_key(kind, disk)
    csr = make_csr(key)
    nonce = await session.challenge(enrolment.entry)
    signature = proof.sign(enrolment.trust_domain, enrolment.entry, nonce, csr)
    shown = {"type": "enrolment_key", "entry": enrolment.entry, "nonce": nonce, "signature": _b64(signature)}
    return await session.enrol(csr, shown, key, enrolment.spiffe_id)


async def _by_token(
    session: CaSession, enrolment: Enrolment, token: JoinToken, state: StateFolder, disk: Any, kind: str
) -> Issued:
    kept: KeptKey | None = await disk(state.load_key)
    if kept is None or kept.token_sha256 != token_hash(token):
        kept = KeptKey(EnrolmentKey.generate(), token_hash(token), confirmed=False)
        made = kept
        await disk(lambda: state.save_key(made))
    if kept.confirmed:
        return await _by_key(session, enrolment, kept.key, disk, kind)
    issued = await _exchange(session, enrolment, token, kept.key, disk, kind)
    confirmed = replace(kept, confirmed=True)
    try:
        await disk(lambda: state.save_key(confirmed))
    except (OSError, PrivateFileUnavailable) as error:  # no harm: the next life finds the token used, and its key good
        _log.error("the enrolment key could not be marked as confirmed: %s", error)
    return issued


async def _exchange(
    session: CaSession, enrolment: Enrolment, token: JoinToken, kept: EnrolmentKey, disk: Any, kind: str
) -> Issued:
    """Spend the token; where it turns out to be spent, the key that we may have registered with it is the proof.

    Where that key is unknown, somebody else has spent the token, and what the CA said of that is what to tell.
    """
    key = await _new_key(kind, disk)
    shown = {"type": "join_token", "token": token.token, "enrolment_public_key": _b64(kept.public_bytes)}
    try:
        return await session.enrol(make_csr(key), shown, key, enrolment.spiffe_id)
    except CaRefused as refused:
        if refused.status != 409:
            raise
        spent = refused
    try:
        return await _by_key(session, enrolment, kept, disk, kind)
    except CaRefused as refused:
        if refused.status == 401:
            raise spent from None
        raise


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")

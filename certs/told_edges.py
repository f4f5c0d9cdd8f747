"""What a sidecar has seen of the mesh's edges, signed by the key of its certificate where it is told.

    {"service", "spiffe_id", "since", "left_out", "edges", "at", "signed": {"signature", "signer", "roots"}}

The signature covers the canonical text (`certs.detached`) of all but `signed`, as a statement of its own kind
(`certs.signed`), so it is worth nothing for anything else. A sidecar signs what it has counted itself, and nothing that
it is told. Who reads it long after brings the SHA-256 of the mesh's root: the certificates are judged at the moment
that the statement names.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import BundleSet, TrustBundle, root_hash
from certs.detached import canonical
from certs.errors import IdentityError
from certs.signed import InvalidStatement, is_signed, sign_bytes
from certs.spiffe import SpiffeId
from certs.svid import MAX_CHAIN, X509Svid, parse_certificate
from certs.verify import verify_chain

KIND: Final = "edges"


@dataclass(frozen=True, slots=True)
class ToldEdges:
    """Who told, when (seconds since the epoch, by its clock), how many edges, and the SHA-256 of roots that vouch."""

    service: SpiffeId
    at: float
    edges: int
    roots: tuple[str, ...]


def sign_edges(said: Mapping[str, Any], svid: X509Svid, bundle: TrustBundle, now: float) -> dict[str, Any]:
    """What this sidecar says (JSON values), with its time and signature."""
    whole = {**said, "spiffe_id": svid.spiffe_id.text, "at": now}
    return {**whole, "signed": {
        "signature": _text(sign_bytes(KIND, canonical(whole), svid.key)),
        "signer": [_text(one.public_bytes(Encoding.DER)) for one in svid.chain],
        "roots": [_text(root.public_bytes(Encoding.DER)) for root in bundle.roots],
    }}  # fmt: skip


def open_edges(document: object, pins: Collection[str] = ()) -> ToldEdges:
    """Who has told this, if it is as it was told. Raises InvalidStatement.

    Only roots with one of these SHA-256 (lower-case hex) vouch; without any, all that the document names: that they
    are those of one's own mesh is then for the reader to say.
    """
    try:
        if not isinstance(document, dict):
            raise TypeError("it is not an object")
        whole = {key: value for key, value in document.items() if key != "signed"}
        signed, claimed = document["signed"], SpiffeId.parse(str(whole["spiffe_id"]))
        at, edges = float(whole["at"]), len(whole["edges"])
        if not 1 <= len(signed["signer"]) < MAX_CHAIN:
            raise ValueError("`signer` is not a list of certificates")
        chain = [parse_certificate(base64.b64decode(one)) for one in signed["signer"]]
        named = map(parse_certificate, map(base64.b64decode, signed["roots"]))
        roots = tuple(root for root in named if not pins or root_hash(root) in pins)
        text, signature = canonical(whole), base64.b64decode(signed["signature"])
        bundles = BundleSet((TrustBundle(claimed.trust_domain, roots),))
    except (KeyError, TypeError, ValueError, RecursionError, IdentityError) as error:
        raise InvalidStatement("malformed", f"this was not told by a sidecar: {error}") from None
    try:
        signer = verify_chain(chain, bundles, at)
    except (IdentityError, ValueError, OverflowError, OSError) as error:
        raise InvalidStatement("untrusted", f"who told the edges of {claimed} will not do: {error}") from None
    if signer != claimed:
        raise InvalidStatement("wrong_identity", f"the edges of {claimed} are signed by {signer}")
    if not is_signed(KIND, text, signature, chain[0].public_key()):
        raise InvalidStatement("bad_signature", f"the edges of {claimed} were changed after they were told")
    return ToldEdges(claimed, at, edges, tuple(map(root_hash, roots)))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")

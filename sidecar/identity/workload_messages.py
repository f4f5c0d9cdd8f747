"""The messages of the SPIFFE Workload API (workload.proto, in SPIFFE_Workload_API.md), both ways; bytes and values.

Bundles go by the SPIFFE ID of their trust domain. An X.509 bundle is concatenated DER, empty where nothing is trusted;
a JWT bundle is a JWK Set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from certs.bundle import BundleSet
from certs.svid import X509Svid
from sidecar.http import protobuf
from sidecar.http.protobuf import all_data, all_text, data, one_data, one_text, read_table, table, text

SERVICE = "/SpiffeWorkloadAPI/"
FETCH_X509_SVID = SERVICE + "FetchX509SVID"
FETCH_X509_BUNDLES = SERVICE + "FetchX509Bundles"
FETCH_JWT_SVID = SERVICE + "FetchJWTSVID"
FETCH_JWT_BUNDLES = SERVICE + "FetchJWTBundles"
VALIDATE_JWT_SVID = SERVICE + "ValidateJWTSVID"
SECURITY_HEADER = (b"workload.spiffe.io", b"true")  # SPIFFE_Workload_Endpoint.md section 4: no browser sends it


@dataclass(frozen=True, slots=True)
class ServedSvid:
    """One X.509-SVID as the API has it, all DER."""

    spiffe_id: str
    chain: bytes
    key: bytes = field(repr=False)
    bundle: bytes


@dataclass(frozen=True, slots=True)
class X509Update:
    """All that a workload is to have from now on."""

    svids: tuple[ServedSvid, ...]
    federated: Mapping[str, bytes]


def x509_svid_response(svid: X509Svid, bundles: BundleSet) -> bytes:
    """X509SVIDResponse: our SVID with its key, the bundle of its trust domain, and those of all others."""
    own = bundles.of(svid.spiffe_id.trust_domain)
    chain = b"".join(certificate.public_bytes(Encoding.DER) for certificate in svid.chain)
    key = svid.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    entry = text(1, svid.spiffe_id.text) + data(2, chain) + data(3, key) + data(4, own.to_der() if own else b"")
    others = {f"spiffe://{each.trust_domain}": each.to_der() for each in bundles if each is not own}
    return data(1, entry) + table(3, others)


def read_x509_svid_response(message: bytes) -> X509Update:
    """The same, read. Raises InvalidMessage."""
    entries = all_data(message, 1)
    svids = (ServedSvid(one_text(one, 1), one_data(one, 2), one_data(one, 3), one_data(one, 4)) for one in entries)
    return X509Update(tuple(svids), read_table(message, 3))


def x509_bundles_response(bundles: BundleSet) -> bytes:
    """X509BundlesResponse: every bundle that we have."""
    return table(2, {f"spiffe://{each.trust_domain}": each.to_der() for each in bundles})


def jwt_bundles_response(bundles: BundleSet) -> bytes:
    """JWTBundlesResponse: every bundle that we have."""
    return table(1, {f"spiffe://{each.trust_domain}": each.to_jwt_jwks() for each in bundles})


def read_jwt_svid_request(message: bytes) -> tuple[list[str], str]:
    """JWTSVIDRequest: the audience, and which of its identities the workload means, empty for all. Raises
    InvalidMessage.
    """
    return all_text(message, 1), one_text(message, 2)


def jwt_svid_response(spiffe_id: str, token: str) -> bytes:
    """JWTSVIDResponse with one JWT-SVID."""
    return data(1, text(1, spiffe_id) + text(2, token))


def read_validate_request(message: bytes) -> tuple[str, str]:
    """ValidateJWTSVIDRequest: audience and token. Raises InvalidMessage."""
    return one_text(message, 1), one_text(message, 2)


def validate_response(spiffe_id: str, claims: Mapping[str, Any]) -> bytes:
    """ValidateJWTSVIDResponse. Raises InvalidMessage where the claims are nested too deeply."""
    return text(1, spiffe_id) + data(2, protobuf.struct_of(claims))

"""Chain, bundles and the time in; a SPIFFE ID, or why not, out.

A root vouches only for its own trust domain. So the chain is first asked whose it claims to be, and then OpenSSL builds
the path (RFC 5280) to the roots of *that* trust domain's bundle alone, at the time that we are told; all other roots we
know might as well not exist. Then come the rules of the X.509-SVID profile, for the leaf and for every issuer on the
path. Nothing in here looks at a clock.

`cryptography` has a verifier of its own, but still calls its interface unstable; OpenSSL's is the one that also runs
inside the handshake, so both give the same answer.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from OpenSSL import crypto

from certs.bundle import BundleSet, TrustBundle, root_hash
from certs.errors import InvalidSvid, UntrustedSvid
from certs.spiffe import SpiffeId, TrustDomain
from certs.svid import MAX_CHAIN, X509Svid, check_leaf, check_signer

# X509_V_ERR_* of OpenSSL's x509_vfy.h; whatever is not listed is a `bad_chain`.
_REASONS: Final = {
    2: "unknown_root",  # a trusted certificate that is itself no root
    7: "bad_signature",
    9: "not_yet_valid",
    10: "expired",
    18: "unknown_root",  # a self-signed leaf
    19: "unknown_root",  # the chain brings a root that is not in the bundle
    20: "unknown_root",  # no issuer found: the root is not in the bundle, or an intermediate is missing
    25: "path_length",
    79: "invalid_issuer",  # a root in the bundle that is no CA
}


def verify_chain(chain: Sequence[x509.Certificate], bundles: BundleSet, now: float) -> SpiffeId:
    """Judge a presented chain (leaf first) at this moment, seconds since the epoch, and return whose it is.

    Valid for either side of a handshake: an SVID that names its uses must allow both. Raises InvalidSvid where a
    certificate breaks the profile, UntrustedSvid where no path leads to a root of the leaf's own trust domain.
    """
    spiffe_id = _claimed_id(chain)
    for signer in chain[1:]:
        _judged_signer(signer)  # what OpenSSL would only call "no issuer found" gets its own name here
    bundle = bundles.of(spiffe_id.trust_domain)
    if bundle is None:
        raise UntrustedSvid("no_bundle", f"{spiffe_id}: we know no trust domain {spiffe_id.trust_domain}")
    try:
        path = _build_path(spiffe_id, chain, bundle, now)
    except UntrustedSvid as error:
        if error.reason == "unknown_root":
            _blame_other_domain(spiffe_id, chain, bundles)
        raise
    for signer in path[1:]:
        _check_signer_of(signer, spiffe_id)
    return spiffe_id


def verify_pinned(
    chain: Sequence[x509.Certificate], pins: Container[str], trust_domain: TrustDomain, now: float
) -> SpiffeId:
    """Judge a chain that brings its own root, which vouches only if its SHA-256 (lower-case hex) is pinned (D15).

    Raises InvalidSvid, and UntrustedSvid: `wrong_trust_domain` or `not_pinned`, else as `verify_chain`.
    """
    spiffe_id = _claimed_id(chain)
    if spiffe_id.trust_domain != trust_domain:
        raise UntrustedSvid("wrong_trust_domain", f"{spiffe_id} is not of the trust domain {trust_domain}")
    roots = tuple(certificate for certificate in chain[1:] if root_hash(certificate) in pins)
    if not roots:
        raise UntrustedSvid("not_pinned", f"{spiffe_id} shows no root that we were told to trust")
    return verify_chain(chain, BundleSet((TrustBundle(trust_domain, roots),)), now)


def verify_signer(
    chain: Sequence[x509.Certificate], trust_domain: TrustDomain, bundles: BundleSet, now: float
) -> None:
    """Judge the signer of a statement (itself first, without the root): a CA of this trust domain, valid now.

    It must be allowed to sign revocation lists. Raises InvalidSvid and UntrustedSvid, as `verify_chain`.
    """
    identity = SpiffeId(trust_domain, "")
    bundle = bundles.of(trust_domain)
    if bundle is None:
        raise UntrustedSvid("no_bundle", f"we know no trust domain {trust_domain}")
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise UntrustedSvid("no_certificate", "the signer shows no certificate, or far too many")
    for signer in _build_path(identity, chain, bundle, now):
        check_signer(signer, identity)
    usage = chain[0].extensions.get_extension_for_class(x509.KeyUsage).value
    if not usage.crl_sign:
        raise InvalidSvid("signer_crl_sign", "the signer may not sign revocation lists (no cRLSign)")


def chain_ends(svid: X509Svid, bundle: TrustBundle) -> tuple[float, float]:
    """When the first of an SVID's issuing CAs ends, and the last of the roots that vouch for them; 0 for none."""
    issuers = [one.not_valid_after_utc.timestamp() for one in svid.chain[1:]]
    top = svid.chain[-1]
    roots = [root.not_valid_after_utc.timestamp() for root in bundle.roots if issued(root, top)]
    return min(issuers, default=0.0), max(roots, default=0.0)


def issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether this issuer's key made that certificate's signature, under its name."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def explain_time(certificate: x509.Certificate, now: float) -> str:
    """What this certificate's dates mean at this moment, in words that name the usual cause."""
    not_before = certificate.not_valid_before_utc.timestamp()
    not_after = certificate.not_valid_after_utc.timestamp()
    if now < not_before:
        return f"not valid for another {_span(not_before - now)}; check the clock"
    if now > not_after:
        return f"expired {_span(now - not_after)} ago; check the clock"
    return f"valid for another {_span(not_after - now)}"


@lru_cache(maxsize=256)
def _judged_signer(certificate: x509.Certificate, trust_domain: TrustDomain | None = None) -> None:
    """`check_signer`, once for each certificate: a mesh has a few signers and shows them at every handshake.

    Only a good verdict is remembered. It depends on nothing but the certificate's bytes and the trust domain.
    """
    check_signer(certificate, None if trust_domain is None else SpiffeId(trust_domain, ""))


def _check_signer_of(certificate: x509.Certificate, spiffe_id: SpiffeId) -> None:
    try:
        _judged_signer(certificate, spiffe_id.trust_domain)
    except InvalidSvid:
        check_signer(certificate, spiffe_id)  # the same again, in words that name whom it signed for
        raise


@lru_cache(maxsize=256)
def _known_to_openssl(certificate: x509.Certificate) -> crypto.X509:
    """OpenSSL's form of a signer, made once; nobody changes it."""
    return crypto.X509.from_cryptography(certificate)


def _claimed_id(chain: Sequence[x509.Certificate]) -> SpiffeId:
    if not chain:
        raise UntrustedSvid("no_certificate", "no certificate was presented")
    if len(chain) > MAX_CHAIN:
        raise UntrustedSvid("chain_too_long", f"{len(chain)} certificates were presented; at most {MAX_CHAIN} are read")
    return check_leaf(chain[0])


def _build_path(
    spiffe_id: SpiffeId, chain: Sequence[x509.Certificate], bundle: TrustBundle, now: float
) -> list[x509.Certificate]:
    """OpenSSL's path from the leaf to a root of this bundle, both included. Raises UntrustedSvid."""
    store = crypto.X509Store()
    store.set_time(datetime.fromtimestamp(now, UTC))
    try:
        for root in bundle.roots:
            store.add_cert(_known_to_openssl(root))
        leaf = crypto.X509.from_cryptography(chain[0])
        path = crypto.X509StoreContext(store, leaf, [*map(_known_to_openssl, chain[1:])]).get_verified_chain()
        return [certificate.to_cryptography() for certificate in path]
    except crypto.X509StoreContextError as error:
        raise _untrusted(spiffe_id, error, now) from None
    except crypto.Error as error:
        raise UntrustedSvid("bad_chain", f"{spiffe_id}: OpenSSL cannot read the chain") from error


def _untrusted(spiffe_id: SpiffeId, error: crypto.X509StoreContextError, now: float) -> UntrustedSvid:
    code, depth, message = error.errors
    reason = _REASONS.get(code, "bad_chain")
    if reason in ("expired", "not_yet_valid"):
        message = explain_time(error.certificate.to_cryptography(), now)
    if reason == "unknown_root":
        message += f"; not a root of the {spiffe_id.trust_domain} bundle, or an intermediate is missing"
    which = "its certificate" if depth == 0 else f"issuer {depth} above it"
    return UntrustedSvid(reason, f"{spiffe_id}: {which}: {message}")


def _blame_other_domain(spiffe_id: SpiffeId, chain: Sequence[x509.Certificate], bundles: BundleSet) -> None:
    """Say so where the root that is missing is one of another trust domain. Raises UntrustedSvid or returns."""
    issuers = {certificate.issuer for certificate in chain}
    for bundle in bundles:
        if bundle.trust_domain != spiffe_id.trust_domain and any(root.subject in issuers for root in bundle.roots):
            detail = f"{spiffe_id} is vouched for by a root of {bundle.trust_domain}, which speaks only for its own"
            raise UntrustedSvid("wrong_trust_domain", detail)


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"

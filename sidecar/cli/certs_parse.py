"""Certificates as the verbs of `mesh certs` meet them: PEM from a file or a sidecar, bundles from its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.cli.console import Code, Failure

if TYPE_CHECKING:
    from cryptography import x509

    from certs.bundle import BundleSet


def parse_chain(pem: bytes, origin: str) -> list[x509.Certificate]:
    """The certificates in this PEM; `origin` names it in the Failure that is raised where there is none."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise Failure(
            f"{origin} holds no certificate in PEM.", "A chain begins with -----BEGIN CERTIFICATE-----.", Code.USAGE
        ) from None


def bundles_of(document: dict[str, Any]) -> BundleSet:
    """The trust bundles that a sidecar tells of, each for its own trust domain."""
    from certs.bundle import BundleSet
    from certs.describe import bundle_of_pem
    from certs.spiffe import TrustDomain

    return BundleSet.of_all(
        bundle_of_pem(TrustDomain.parse(str(bundle["trust_domain"])), str(bundle["roots"]).encode())
        for bundle in document.get("bundles") or []
    )

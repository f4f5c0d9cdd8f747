"""Who keeps a sidecar's identity: the bundled CA, or whoever `identity_source` names."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

from certs.enrolment import Enrolment
from certs.errors import MeshError
from sidecar.identity.holdings import IdentityConfig
from sidecar.identity.rotator import Rotator

if TYPE_CHECKING:
    from certs.bundle import BundleSet
    from certs.denylist import Denylist
    from certs.source import Source
    from certs.svid import X509Svid
    from sidecar.config.schema import MeshConfig, Service
    from sidecar.identity.given import Keeper
    from sidecar.identity.status import IdentityStatus
    from sidecar.net.clock import Clock


class WrongEnrolment(MeshError):
    """The enrolment file is for another service or another trust domain than the configuration."""

    name = "wrong_enrolment"


def keeper_of(
    config: MeshConfig,
    service: Service,
    enrolment: Path | None,
    state_dir: Path,
    *,
    svids: Source[X509Svid],
    bundles: Source[BundleSet],
    denylists: Source[Denylist],
    status: Source[IdentityStatus],
    clock: Clock,
) -> Keeper:
    """Whoever is to keep the identity of a service, and to fill these sources.

    Raises WrongEnrolment, InvalidEnrolment, PrivateFileUnavailable.
    """
    if service.identity_source is not None:
        return _given(service, svids, bundles, status, clock)
    path = enrolment or (Path(config.ca.enrolment) if config.ca.enrolment else None)
    if path is None:
        raise WrongEnrolment("no enrolment file: name one with --enrolment, or `ca.enrolment` in the configuration")
    proof = Enrolment.load(path)
    if proof.spiffe_id != service.identity:
        raise WrongEnrolment(f"{path} is for {proof.spiffe_id}, but {service.name} is {service.identity}")
    address = str(config.ca.address) if config.ca.address is not None else ""
    asked = IdentityConfig(proof, state_dir, address, service.tls.key)
    return Rotator(asked, svids, bundles, clock, random.random, status, denylists=denylists)


def _given(
    service: Service,
    svids: Source[X509Svid],
    bundles: Source[BundleSet],
    status: Source[IdentityStatus],
    clock: Clock,
) -> Keeper:
    from sidecar.identity.from_files import FromFiles
    from sidecar.identity.from_workload_api import FromWorkloadApi
    from sidecar.identity.given import Held

    source = service.identity_source
    assert source is not None
    held = Held(service.identity, svids, bundles, clock, status)
    if source.workload_api is not None:
        return FromWorkloadApi(held, source.workload_api.path, random.random)
    assert source.files is not None  # `lint` sees to it
    return FromFiles(held, *(Path(path) for path in (source.files.cert, source.files.key, source.files.bundle)))

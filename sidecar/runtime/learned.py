"""From the configuration to what discovery follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.config.sources import path_of
from sidecar.discovery.sources import FromFile, FromKubernetes, FromSrv, Source

if TYPE_CHECKING:
    from sidecar.config.schema_outbound import Outbound


def sources_of(spec: Outbound) -> tuple[Source, ...]:
    """Where the endpoints of this entry are learned from; nowhere, if they are declared."""
    source = spec.endpoints_from
    if source is None:
        return ()
    if source.file:
        return (FromFile(path_of(spec)),)
    if source.srv:
        return (FromSrv(source.srv),)
    assert source.kubernetes is not None  # `sidecar.config.sources` sees to it
    it = source.kubernetes
    return (FromKubernetes(it.namespace, it.service, it.port, it.api, it.token_file, it.ca_file),)
